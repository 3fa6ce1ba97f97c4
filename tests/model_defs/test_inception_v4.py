"""Promises of Inception v4 beside timm's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs import ModelError, create_model

pytestmark = pytest.mark.heavy

# Figures 3 to 9 of the paper: side and channels for images of 299 pixels.
SIZES = {
    0: (149, 32),
    1: (147, 32),
    2: (147, 64),
    3: (73, 160),
    4: (71, 192),
    5: (35, 384),
    9: (35, 384),
    10: (17, 1024),
    17: (17, 1024),
    18: (8, 1536),
    21: (8, 1536),
}


@pytest.fixture(scope="module")
def ours() -> nn.Module:
    torch.manual_seed(0)
    return create_model("inception_v4", num_classes=5, img_size=75)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_are_those_of_timm_by_name_and_shape() -> None:
    with torch.device("meta"):
        ours, theirs = create_model("inception_v4"), timm.create_model("inception_v4")
    assert parameters(ours) == 42_679_816
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


def test_maps_have_the_sizes_of_the_papers_figures() -> None:
    seen: dict[int, tuple[int, int]] = {}
    with torch.device("meta"):
        model = create_model("inception_v4").eval()
        for index in SIZES:
            model.features[index].register_forward_hook(
                lambda _module, _inputs, out, index=index: seen.update({index: (out.shape[2], out.shape[1])})
            )
        model(torch.empty(1, 3, 299, 299))
    assert seen == SIZES
    kinds = [type(module).__name__ for module in model.features[6:]]
    assert kinds == 4 * ["InceptionA"] + ["ReductionA"] + 7 * ["InceptionB"] + ["ReductionB"] + 3 * ["InceptionC"]


def test_outputs_equal_timms(ours: nn.Module, with_batch_statistics: Callable[[nn.Module, Tensor], nn.Module]) -> None:
    images = torch.randn(4, 3, 107, 107)
    with_batch_statistics(ours, images)
    with torch.device("meta"):
        theirs = timm.create_model("inception_v4", num_classes=5).eval()
    theirs.load_state_dict(ours.state_dict(), assign=True)
    with torch.no_grad():
        logits = ours(images)
        torch.testing.assert_close(logits, theirs(images), rtol=1e-5, atol=1e-5)
    assert logits.std(dim=0).min() > 1e-2  # the images still tell apart


def test_the_head_of_the_last_map_gives_the_logits(ours: nn.Module) -> None:
    ours.eval()
    with torch.no_grad():
        images = torch.randn(1, 3, 75, 107)
        last = ours.forward_map(images)
        assert last.shape == (1, 1536, 1, 2)
        assert torch.equal(ours.forward_head(last), ours(images))
        assert torch.equal(ours.forward_features(images), last.mean(dim=(2, 3)))


def test_every_parameter_gets_a_gradient_with_gates_too() -> None:
    torch.manual_seed(0)
    model = create_model("inception_v4", num_classes=3, img_size=75, squeeze_excite=True).train()
    F.cross_entropy(model(torch.randn(3, 3, 75, 75)), torch.arange(3)).backward()
    assert [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_gates_cost_what_squeeze_and_excitation_costs() -> None:
    with torch.device("meta"):
        extra = parameters(create_model("inception_v4", squeeze_excite=True)) - 42_679_816
    widths = 4 * [384] + 8 * [1024] + 4 * [1536]
    assert extra == sum(2 * c * (c // 16) + c // 16 + c for c in widths)


def test_too_small_images_are_refused_at_creation_and_by_their_tensor() -> None:
    said = "inception_v4: an image of 74 pixels is too small; use 75 or more"
    with torch.device("meta"):
        with pytest.raises(ModelError, match=said):
            create_model("inception_v4", img_size=74)
        model = create_model("inception_v4").eval()
        with pytest.raises(ModelError, match=said):
            model(torch.empty(1, 3, 299, 74))
        with pytest.raises(RuntimeError, match="size"):  # the promise is no stricter than the layers
            model.last_map(torch.empty(1, 3, 74, 74))


def test_names_lead_to_the_classifier_and_the_first_convolution() -> None:
    with torch.device("meta"):
        model = create_model("inception_v4", num_classes=4, in_chans=2)
        headless = create_model("inception_v4", num_classes=0)
    assert isinstance(headless.get_submodule(headless.classifier_names[0]), nn.Identity)
    assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
    assert model.get_submodule(model.first_conv_name).in_channels == 2
