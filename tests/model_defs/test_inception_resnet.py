"""Promises of Inception-ResNet: v1 by the paper, v2 beside timm's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs import ModelError, create_model
from model_defs.inception_resnet import Block

pytestmark = pytest.mark.heavy

# Side and channels for images of 299 pixels: figure 14 and the widths of figures 10 to 13; the released v2.
SIZES = {
    "inception_resnet_v1": {
        "conv2d_1a": (149, 32),
        "conv2d_2a": (147, 32),
        "conv2d_2b": (147, 64),
        "maxpool_3a": (73, 64),
        "conv2d_3b": (73, 80),
        "conv2d_4a": (71, 192),
        "stem_end": (35, 256),
        "repeat": (35, 256),
        "mixed_6a": (17, 896),
        "repeat_1": (17, 896),
        "mixed_7a": (8, 1792),
        "repeat_2": (8, 1792),
    },
    "inception_resnet_v2": {
        "conv2d_4a": (71, 192),
        "mixed_5b": (35, 320),
        "repeat": (35, 320),
        "mixed_6a": (17, 1088),
        "repeat_1": (17, 1088),
        "mixed_7a": (8, 2080),
        "block8": (8, 2080),
        "conv2d_7b": (8, 1536),
    },
}
COUNTS = {"inception_resnet_v1": 22_756_328, "inception_resnet_v2": 55_843_464}
BLOCKS = {"inception_resnet_v1": (5, 10, 5), "inception_resnet_v2": (10, 20, 9)}


@pytest.fixture(scope="module")
def v1() -> nn.Module:
    torch.manual_seed(0)
    return create_model("inception_resnet_v1", num_classes=3, in_chans=2, img_size=75, squeeze_excite=True)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_counts_and_maps_are_those_of_the_papers_figures(name: str) -> None:
    seen: dict[str, tuple[int, int]] = {}
    with torch.device("meta"):
        model = create_model(name).eval()
        for key in SIZES[name]:
            model.get_submodule(key).register_forward_hook(
                lambda _module, _inputs, out, key=key: seen.update({key: (out.shape[2], out.shape[1])})
            )
        model(torch.empty(1, 3, 299, 299))
    assert parameters(model) == COUNTS[name]
    assert seen == SIZES[name]
    assert (len(model.repeat), len(model.repeat_1), len(model.repeat_2)) == BLOCKS[name]


def test_parameters_of_v2_are_those_of_timm_by_name_and_shape() -> None:
    with torch.device("meta"):
        ours, theirs = create_model("inception_resnet_v2"), timm.create_model("inception_resnet_v2")
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


def test_outputs_of_v2_equal_timms(with_batch_statistics: Callable[[nn.Module, Tensor], nn.Module]) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 107, 107)
    ours = with_batch_statistics(create_model("inception_resnet_v2", num_classes=5, img_size=75), images)
    with torch.device("meta"):
        theirs = timm.create_model("inception_resnet_v2", num_classes=5).eval()
    theirs.load_state_dict(ours.state_dict(), assign=True)
    with torch.no_grad():
        logits = ours(images)
        torch.testing.assert_close(logits, theirs(images), rtol=1e-5, atol=1e-5)
    assert logits.std(dim=0).min() > 1e-2  # the images still tell apart


@pytest.mark.parametrize("relu", [True, False])
def test_a_block_adds_a_scaled_projection_of_its_branches(relu: bool) -> None:
    torch.manual_seed(0)
    block = Block(6, ((4,), (3, 5, 2)), ((1, 7), (7, 1)), 0.1, False, relu=relu).eval()
    one, first, second, third, projection = (layer for layer in block.modules() if isinstance(layer, nn.Conv2d))

    def convolved(x: Tensor, layer: nn.Conv2d, padding: tuple[int, int]) -> Tensor:
        y = F.conv2d(x, layer.weight, padding=padding)
        return (y / (1 + 1e-3) ** 0.5).clamp(min=0)  # a fresh norm: mean 0, variance 1, epsilon 1e-3

    x = torch.randn(2, 6, 9, 9)
    with torch.no_grad():
        chain = convolved(convolved(convolved(x, first, (0, 0)), second, (0, 3)), third, (3, 0))
        joined = torch.cat([convolved(x, one, (0, 0)), chain], dim=1)
        expected = x + 0.1 * F.conv2d(joined, projection.weight, projection.bias)
        torch.testing.assert_close(block(x), expected.clamp(min=0) if relu else expected)


def test_the_head_of_the_last_map_gives_the_logits(v1: nn.Module) -> None:
    v1.eval()
    with torch.no_grad():
        images = torch.randn(1, 2, 75, 107)
        last = v1.forward_map(images)
        assert last.shape == (1, 1792, 1, 2)
        assert torch.equal(v1.forward_head(last), v1(images))
        assert torch.equal(v1.forward_features(images), last.mean(dim=(2, 3)))


def test_every_parameter_gets_a_gradient_with_gates_too(v1: nn.Module) -> None:
    torch.manual_seed(0)
    F.cross_entropy(v1.train()(torch.randn(3, 2, 75, 75)), torch.arange(3)).backward()
    assert [key for key, value in v1.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize(("name", "widths"), [
    ("inception_resnet_v1", 5 * [256] + 11 * [896] + 6 * [1792]),
    ("inception_resnet_v2", 10 * [320] + 21 * [1088] + 11 * [2080]),
])  # fmt: skip
def test_gates_cost_what_squeeze_and_excitation_costs(name: str, widths: list[int]) -> None:
    with torch.device("meta"):
        extra = parameters(create_model(name, squeeze_excite=True)) - COUNTS[name]
    assert extra == sum(2 * c * (c // 16) + c // 16 + c for c in widths)


@pytest.mark.parametrize("name", COUNTS)
def test_too_small_images_are_refused_at_creation_and_by_their_tensor(name: str) -> None:
    said = "inception_resnet: an image of 74 pixels is too small; use 75 or more"
    with torch.device("meta"):
        with pytest.raises(ModelError, match=said):
            create_model(name, img_size=74)
        model = create_model(name, img_size=75).eval()
        assert model(torch.empty(1, 3, 75, 75)).shape == (1, 1000)
        with pytest.raises(ModelError, match=said):
            model(torch.empty(1, 3, 299, 74))
        with pytest.raises(RuntimeError, match="size"):  # the promise is no stricter than the layers
            model.last_map(torch.empty(1, 3, 74, 74))


@pytest.mark.parametrize("name", COUNTS)
def test_names_lead_to_the_classifier_and_the_first_convolution(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=4, in_chans=2)
        headless = create_model(name, num_classes=0)
    assert isinstance(headless.get_submodule(headless.classifier_names[0]), nn.Identity)
    assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
    assert model.get_submodule(model.first_conv_name).in_channels == 2
