from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs import ModelError, create_model, list_models, model_info
from model_defs.layers.attention import SelfAttention
from model_defs.layers.transformer import quick_gelu

NAMES = [*list_models("vit*"), *list_models("deit*")]
SMALL = {"num_classes": 3, "img_size": 32, "width": 32, "depth": 2}


def scrambled(model: nn.Module) -> nn.Module:
    """Moves biases, norms and tokens away from 0 and 1, so that none can be left out unseen."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("name", sorted({*NAMES} & {*timm.list_models("vit*"), *timm.list_models("deit*")}))
def test_parameters_are_those_of_timm_by_name_and_shape(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(name), timm.create_model(name, num_classes=1000)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    assert ours.img_size == theirs.default_cfg["input_size"][1]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_outputs_equal_timms(name: str) -> None:
    torch.manual_seed(0)
    theirs = scrambled(timm.create_model(name, img_size=48, num_classes=11))
    ours = create_model(name, img_size=48, num_classes=11).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.tokens(images), theirs.forward_features(images), rtol=0, atol=1e-5)


def test_any_size_patch_and_image_by_the_generic_name() -> None:
    with torch.device("meta"):
        model = create_model("vit", size="small", patch_size=8, img_size=96, in_chans=1, num_classes=0)
        assert model(torch.empty(2, 1, 96, 96)).shape == (2, 384)
    assert model.grid_size == 12
    assert model.pos_embed.shape == (1, 145, 384)


def test_a_name_with_384_means_images_of_384() -> None:
    with torch.device("meta"):
        assert create_model("vit_base_patch16_384").grid_size == 24
        assert create_model("deit_base_distilled_patch16_384", img_size=224).grid_size == 14


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": "giant"}, "size must be one of tiny, small, base, large, huge, not 'giant'"),
        ({"img_size": 100}, "100 pixels cannot be cut into patches of 16; use a multiple of 16"),
        ({"img_size": 8}, "use a multiple of 16"),
        ({"activation": "relu"}, "gelu or quick_gelu"),
        ({"stem": "lines"}, "patch or conv"),
    ],
)
def test_what_fits_no_vit_is_refused(kwargs: dict[str, object], message: str) -> None:
    with torch.device("meta"), pytest.raises(ModelError, match=message):
        create_model("vit", **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "prefix"), [("vit_micro", 1), ("deit_micro_distilled", 2)])
@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_tokens_are_the_prefix_and_then_the_patches_row_by_row(name: str, prefix: int, stem: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, **SMALL, stem=stem).eval()
    blank = torch.zeros(1, 3, 32, 32)
    marked = blank.clone()
    marked[..., 20, 28] = 1  # row 2, column 3 of 4 x 4 patches
    changed = (model.embed(marked) != model.embed(blank)).any(dim=-1).nonzero()[:, 1].tolist()
    place = prefix + 2 * 4 + 3
    assert changed == [place] if stem == "patch" else place in changed
    assert min(changed) >= prefix
    assert model.embed(blank).shape == (1, prefix + 16, 32)
    for index, token in enumerate(model.prefix()):
        torch.testing.assert_close(model.embed(marked)[:, index], token[0] + model.pos_embed[:, index])


def test_the_norm_before_the_blocks_sees_tokens_and_positions() -> None:
    torch.manual_seed(0)
    with_norm = create_model("vit", size="tiny", img_size=32, pre_norm=True, patch_bias=False, norm_eps=1e-5)
    without = create_model("vit", size="tiny", img_size=32, patch_bias=False)
    without.load_state_dict(with_norm.state_dict(), strict=False)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(with_norm.embed(images), F.layer_norm(without.embed(images), (192,), eps=1e-5))
    assert with_norm.patch_embed.proj.bias is None
    assert {module.eps for module in with_norm.modules() if isinstance(module, nn.LayerNorm)} == {1e-5}


def test_the_activation_reaches_every_block() -> None:
    torch.manual_seed(0)
    gelu = create_model("vit", size="tiny", img_size=16)
    quick = create_model("vit", size="tiny", img_size=16, activation="quick_gelu")
    assert {block.mlp.activation for block in gelu.blocks} == {F.gelu}
    assert {block.mlp.activation for block in quick.blocks} == {quick_gelu}
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(quick_gelu(x), x / (1 + torch.exp(-1.702 * x)))


@pytest.mark.parametrize("name", NAMES)
def test_classifiers_and_the_first_convolution_are_where_the_model_says(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=5, in_chans=4)
    for place in model.classifier_names:
        assert model.get_submodule(place).out_features == 5
    convolutions = [key for key, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    assert model.first_conv_name == convolutions[0]
    assert model.get_submodule(model.first_conv_name).in_channels == 4


def test_the_first_convolution_of_a_convolutional_stem_is_named() -> None:
    model = create_model("vit_micro", stem="conv", in_chans=4)
    assert model.get_submodule(model.first_conv_name).in_channels == 4


def test_attention_runs_in_the_fused_kernel_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(k) or fused(*a, **k))
    monkeypatch.setattr(SelfAttention, "attention_weights", None)
    create_model("vit_micro", **SMALL)(torch.randn(1, 3, 32, 32))
    assert len(calls) == 2


@pytest.mark.parametrize("causal", [False, True])
def test_attention_weights_are_those_of_the_fused_kernel(causal: bool) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(12, 3, causal=causal).eval()
    x = torch.randn(2, 5, 12)
    weights = attention.attention_weights(x)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 5))
    values = attention.qkv(x)[..., 24:].unflatten(2, (3, 4)).transpose(1, 2)
    mixed = (weights @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.proj(mixed), attention(x))
    assert bool(weights.triu(1).any()) is not causal


def test_values_are_the_output_of_tokens_that_attend_to_themselves() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(12, 3)
    x = torch.randn(2, 5, 12)
    alone = torch.stack([attention(x[:, index : index + 1])[:, 0] for index in range(5)], dim=1)
    torch.testing.assert_close(attention.values(x), alone)


def test_channels_last_and_bfloat16_change_no_decision() -> None:
    torch.manual_seed(0)
    model = create_model("vit_micro", **SMALL).eval()
    images = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected: Tensor = model(images)
        torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)), expected)
        low = model.to(torch.bfloat16)(images.to(torch.bfloat16)).float()
    torch.testing.assert_close(low, expected, rtol=0.05, atol=0.02)


def test_every_row_tells_its_products() -> None:
    assert [name for name in NAMES if not model_info(name).macs] == []
