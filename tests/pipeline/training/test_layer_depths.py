"""The depth of each layer below the head, and the learning rates of a training with layer_decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_defs import create_model
from pipeline.training.layer_depths import layer_depths
from pipeline.training.optim import build_optimizer, set_learning_rate
from pipeline.training.optimizer_config import AdamWConfig, SGDConfig


def by_depth(model: nn.Module) -> list[set[str]]:
    """The modules and parameters of each depth, from the head down, without `.weight` and `.bias`."""
    depths = layer_depths(model)
    assert list(depths) == [name for name, _ in model.named_parameters()]
    names: list[set[str]] = [set() for _ in range(max(depths.values()) + 1)]
    for name, depth in depths.items():
        names[depth].add(name.removesuffix(".weight").removesuffix(".bias"))
    return names


def test_the_layers_of_a_convnet() -> None:
    model = create_model("resnet_small", num_classes=3, widths=[8, 16], depths=[1, 2])
    shortcut = {"stages.1.0.downsample.0", "stages.1.0.downsample.1"}
    block = ("conv1", "bn1", "conv2", "bn2")
    assert by_depth(model) == [
        {"fc"},
        {f"stages.1.1.{name}" for name in block},
        {f"stages.1.0.{name}" for name in block} | shortcut,
        {f"stages.0.0.{name}" for name in block},
        {"stem.3", "stem.4"},
        {"stem.0", "stem.1"},
    ]


def test_the_layers_of_a_transformer() -> None:
    model = create_model("deit_micro_distilled", num_classes=3, depth=2)
    names = by_depth(model)
    assert names[0] == {"head", "head_dist"}
    assert names[3] == {"cls_token", "dist_token", "pos_embed", "patch_embed.proj"}
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in names[2]} == {"blocks.0"}
    assert "norm" in names[1]
    assert {".".join(name.split(".")[:2]) for name in names[1]} == {"norm", "blocks.1"}
    assert len(names) == 4


@pytest.mark.parametrize(
    ("name", "layers", "last"),
    [
        ("efficientnet_lite0", 18, "_conv_head"),  # the stem, 16 blocks, the last convolution
        ("densenet_small", 21, "features.norm5"),  # 18 layers, 2 transitions
        ("vgg11", 10, "classifier.3"),
        ("timm/convnext_atto", 5, "net.stages.3.blocks.0.conv_dw"),
        ("timm/vit_tiny_patch16_224", 13, "net.blocks.11.attn.qkv"),
    ],
)
def test_the_head_is_on_top_and_the_first_convolution_below_all(name: str, layers: int, last: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=3)
    names = by_depth(model)
    assert len(names) == layers + 1
    assert names[0] == set(model.classifier_names)
    assert model.first_conv_name in names[-1]
    assert last in names[1]


@pytest.mark.parametrize("config", [AdamWConfig(lr=0.1, layer_decay=0.5), SGDConfig(lr=0.1, layer_decay=0.5)])
def test_each_layer_has_its_rate_at_every_step(config: AdamWConfig | SGDConfig) -> None:
    model = create_model("resnet_small", num_classes=3, widths=[8, 16], depths=[1, 1])
    depths = layer_depths(model)
    optimizer = build_optimizer(model, config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    for lr in (0.1, 0.03):
        set_learning_rate(optimizer, lr)
        rates = {names[parameter]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        assert rates == {name: lr * 0.5**depth for name, depth in depths.items()}
    decayed = {names[p] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
