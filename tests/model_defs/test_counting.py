from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from model_defs import create_model
from model_defs.counting import count_macs, count_parameters, layer_table, on_meta, rows_at


class Tiny(nn.Module):
    """A strided, grouped convolution and a linear layer, and a parameter of its own."""

    img_size = 8
    first_conv_name = "conv"

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.scale = nn.Parameter(torch.ones(6))
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.norm(self.conv(x)).mean(dim=(2, 3)) * self.scale)
        return out


def test_convolutions_and_products_are_counted_and_nothing_else() -> None:
    convolution = 4 * 4 * 6 * (4 // 2) * 3 * 3  # pixels x filters x channels of a group x kernel
    assert count_macs(Tiny()) == convolution + 6 * 5
    assert count_parameters(Tiny()) == (6 * 2 * 9 + 6) + (6 + 6) + 6 + (6 * 5 + 5)


def test_attention_is_counted_with_its_two_products() -> None:
    tokens, width, depth, patch = 65, 128, 4, 8
    block = tokens * width * (3 * width + width + 4 * width + 4 * width) + 2 * tokens * tokens * width
    embedding, head = 64 * width * 3 * patch * patch, width * 1000
    assert count_macs("vit_micro") == embedding + depth * block + head


def test_known_nets_have_their_known_counts() -> None:
    assert round(count_macs("resnet50") / 1e9, 2) == 4.09
    # 16.85 G without attention's two products, as some tables have it: 12 blocks of 2 x 197 x 197 x 768.
    assert round((count_macs("vit_base_patch16_224") - 12 * 2 * 197 * 197 * 768) / 1e9, 2) == 16.85


def test_the_count_follows_the_size_the_channels_and_the_classes() -> None:
    by_name = count_macs("resnet_small", img_size=32, in_chans=1, num_classes=5)
    assert by_name == count_macs(create_model("resnet_small", img_size=32, in_chans=1, num_classes=5))
    assert by_name < count_macs("resnet_small", img_size=64, in_chans=1, num_classes=5)
    assert count_macs("resnet_small", num_classes=7) - count_macs("resnet_small", num_classes=6) == 256


def test_counting_leaves_a_model_as_it_was() -> None:
    model = Tiny().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model)
    assert (model.training, model.conv.training, model.norm.training) == (True, True, False)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_on_meta_holds_no_memory() -> None:
    assert {parameter.device.type for parameter in on_meta("vit_huge_patch14_224").parameters()} == {"meta"}


def test_the_rows_of_a_level_add_up_to_the_model() -> None:
    rows = layer_table("vit_micro", img_size=32, num_classes=3)
    model, *inside = rows
    assert (model.path, model.type, model.shape) == ("", "VisionTransformer", (1, 3))
    top = [row for row in inside if "." not in row.path]
    assert [row.path for row in top] == ["cls_token", "pos_embed", "patch_embed", "norm_pre", "blocks", "norm", "head"]
    assert sum(row.parameters for row in top) == model.parameters
    assert sum(row.macs for row in top) == model.macs == count_macs("vit_micro", img_size=32, num_classes=3)
    (attention,) = (row for row in inside if row.path == "blocks.0.attn")
    layers = [row for row in inside if row.path.startswith("blocks.0.attn.")]
    assert attention.macs - sum(row.macs for row in layers) == 2 * 17 * 17 * 128  # its products belong to no layer
    assert attention.shape == (1, 17, 128)


def test_a_dual_encoder_costs_both_of_its_towers() -> None:
    pair = count_macs("clip", image_tower="vit_micro", text_kwargs={"depth": 1, "width": 64, "heads": 1})
    image = count_macs("vit_micro", num_classes=0)
    text = count_macs("text_transformer", depth=1, width=64, heads=1)
    assert pair == image + 128 * 512 + text


table = cache(layer_table)


@pytest.mark.parametrize("depth", range(6))
@pytest.mark.parametrize("name", ["vit_micro", "resnet_small", "clip"])
def test_the_rows_of_any_depth_are_the_whole_model(name: str, depth: int) -> None:
    rows = table(name)
    shown = rows_at(rows, depth)
    assert sum(row.macs for row in shown) == rows[0].macs
    assert sum(row.parameters for row in shown) == rows[0].parameters
    assert len({row.path for row in shown}) == len(shown)


def test_a_row_of_its_own_tells_what_is_computed_between_layers() -> None:
    shown = rows_at(layer_table("vit_micro"), 4)
    (products,) = (row for row in shown if row.path == "blocks.2.attn itself")
    assert products.macs == 2 * 65 * 65 * 128
    assert rows_at(layer_table("vit_micro"), 1)[4].type == "4 x Block"
