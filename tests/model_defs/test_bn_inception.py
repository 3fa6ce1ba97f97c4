"""Promises of BN-Inception."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs import ModelError, create_model
from model_defs.bn_inception import MODULES, Inception, Widths

# Figure 5 of the paper for images of 224 pixels: side, and channels as the widths of its rows add up.
FIGURE_5 = {
    "conv1": (112, 64),
    "conv3": (56, 192),
    "inception.3a": (28, 256),
    "inception.3b": (28, 320),
    "inception.3c": (14, 576),
    "inception.4a": (14, 576),
    "inception.4b": (14, 576),
    "inception.4c": (14, 608),
    "inception.4d": (14, 608),
    "inception.4e": (7, 1056),
    "inception.5a": (7, 1024),
    "inception.5b": (7, 1024),
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_count_is_that_of_the_net_that_circulates() -> None:
    with torch.device("meta"):
        assert parameters(create_model("bn_inception")) == 11_295_240


def test_maps_have_the_sizes_of_figure_5() -> None:
    seen: dict[str, tuple[int, int]] = {}
    with torch.device("meta"):
        model = create_model("bn_inception").eval()
        for key in FIGURE_5:
            model.get_submodule(key).register_forward_hook(
                lambda _module, _inputs, out, key=key: seen.update({key: (out.shape[2], out.shape[1])})
            )
        model(torch.empty(1, 3, 224, 224))
    assert seen == FIGURE_5


@pytest.mark.parametrize("widths", [
    Widths(5, 4, 6, 3, 7, "mean", 2),
    Widths(5, 4, 6, 3, 7, "max", 2),
    Widths(0, 4, 6, 3, 7, "max", 0),
])  # fmt: skip
def test_a_module_joins_1x1_3x3_two_3x3_and_the_pool(widths: Widths) -> None:
    torch.manual_seed(0)
    module = Inception(8, widths, squeeze_excite=False).eval()
    layers = iter([layer for layer in module.modules() if isinstance(layer, nn.Conv2d)])
    stride = 1 if widths.one else 2

    def convolved(x: Tensor, kernel: int, step: int = 1) -> Tensor:
        layer = next(layers)
        assert layer.kernel_size == (kernel, kernel)
        y = F.conv2d(x, layer.weight, layer.bias, stride=step, padding=kernel // 2)
        return (y / (1 + 1e-3) ** 0.5).clamp(min=0)  # a fresh norm: mean 0, variance 1, epsilon 1e-3

    x = torch.randn(2, 8, 7, 7)
    parts = [convolved(x, 1)] if widths.one else []
    parts.append(convolved(convolved(x, 1), 3, stride))
    parts.append(convolved(convolved(convolved(x, 1), 3), 3, stride))
    pooled = (F.avg_pool2d if widths.pool == "mean" else F.max_pool2d)(x, 3, stride=stride, padding=1)
    parts.append(convolved(pooled, 1) if widths.after_pool else pooled)
    with torch.no_grad():
        torch.testing.assert_close(module(x), torch.cat(parts, dim=1))
    assert module(x).shape[1] == widths.out_channels(8)


def test_the_head_of_the_last_map_gives_the_logits() -> None:
    torch.manual_seed(0)
    model = create_model("bn_inception", num_classes=3, in_chans=1, img_size=64).eval()
    images = torch.randn(2, 1, 64, 80)
    with torch.no_grad():
        last = model.forward_map(images)
        assert last.shape == (2, 1024, 2, 3)
        assert torch.equal(model.forward_head(last), model(images))
        assert torch.equal(model.forward_features(images), last.mean(dim=(2, 3)))


def test_every_parameter_but_the_biases_before_a_norm_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = create_model("bn_inception", num_classes=3, squeeze_excite=True).train()
    F.cross_entropy(model(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    without = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert [key for key in without if not key.endswith("conv.bias")] == []


def test_gates_cost_what_squeeze_and_excitation_costs() -> None:
    widths, channels = [], 192
    for row in MODULES.values():
        channels = row.out_channels(channels)
        widths.append(channels)
    with torch.device("meta"):
        extra = parameters(create_model("bn_inception", squeeze_excite=True)) - 11_295_240
    assert extra == sum(2 * c * (c // 16) + c // 16 + c for c in widths)


def test_too_small_images_are_refused_at_creation_and_by_their_tensor() -> None:
    said = "bn_inception: an image of 31 pixels is too small; use 32 or more"
    with torch.device("meta"):
        with pytest.raises(ModelError, match=said):
            create_model("bn_inception", img_size=31)
        model = create_model("bn_inception", img_size=32).eval()
        assert model.forward_map(torch.empty(1, 3, 32, 32)).shape == (1, 1024, 1, 1)
        with pytest.raises(ModelError, match=said):
            model(torch.empty(1, 3, 31, 64))


def test_names_lead_to_the_classifier_and_the_first_convolution() -> None:
    with torch.device("meta"):
        model = create_model("bn_inception", num_classes=4, in_chans=2)
        headless = create_model("bn_inception", num_classes=0)
    assert isinstance(headless.get_submodule(headless.classifier_names[0]), nn.Identity)
    assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
    assert model.get_submodule(model.first_conv_name).in_channels == 2
