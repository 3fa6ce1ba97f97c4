"""Promises of EfficientNet and RegNet beside torchvision's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from model_defs import ModelError, create_model, list_models, model_info

pytestmark = pytest.mark.heavy

NAMES = list_models("efficientnet_[bv]*") + list_models("regnet_*")


def test_the_catalogue_has_both_families() -> None:
    wanted = {
        f"efficientnet_{size}" for size in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2_s", "v2_m", "v2_l")
    }
    sizes = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")
    assert set(NAMES) == wanted | {f"regnet_{kind}_{size}" for kind in "xy" for size in sizes}


@pytest.mark.parametrize("name", NAMES)
def test_the_counts_are_those_of_the_published_weights(name: str) -> None:
    weights = torchvision.models.get_model_weights(name)
    assert model_info(name).parameters == weights["IMAGENET1K_V1"].meta["num_params"]
    assert model_info(name).weights == f"torchvision {weights.__name__}"


@pytest.mark.parametrize("name", ["efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf"])
def test_logits_are_those_of_torchvision(name: str, randomised: Callable[[nn.Module], nn.Module]) -> None:
    theirs = randomised(torchvision.models.get_model(name, weights=None, num_classes=9))
    ours = create_model(name, num_classes=9).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet_b0", "regnet_y_400mf"])
def test_the_head_of_the_last_map_gives_the_logits(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, in_chans=1).eval()
    headless = create_model(name, num_classes=0, in_chans=1).eval()
    headless.load_state_dict(model.state_dict(), strict=False)
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        last = model.forward_map(images)
        assert last.shape == (2, model.num_features, 2, 2)
        assert torch.equal(model.forward_head(last), model(images))
        assert torch.equal(last.mean(dim=(2, 3)), model.forward_features(images))
        assert torch.equal(headless(images), model.forward_features(images))


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf"])
def test_names_lead_to_the_classifier_and_the_first_convolution(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=4, in_chans=2)
    assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
    assert model.get_submodule(model.first_conv_name).in_channels == 2
    with torch.device("meta"):
        three = create_model(name).get_submodule(model.first_conv_name)
    two = model.get_submodule(model.first_conv_name)
    assert (two.out_channels, two.kernel_size, two.stride, two.padding, two.bias) == (
        three.out_channels, three.kernel_size, three.stride, three.padding, three.bias,
    )  # fmt: skip


def test_stochastic_depth_and_dropout_can_be_turned_off() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    noisy = create_model("efficientnet_b0", num_classes=2).train()
    quiet = create_model("efficientnet_b0", num_classes=2, drop_path=0.0, dropout=0.0).train()
    assert not torch.equal(noisy(images), noisy(images))
    assert torch.equal(quiet(images), quiet(images))


@pytest.mark.parametrize("name", ["efficientnet_b0", "regnet_x_400mf"])
def test_an_image_that_is_too_small_is_refused_at_creation_and_by_its_tensor(name: str) -> None:
    with pytest.raises(ModelError, match="an image of 31 pixels is too small; use 32 or more"):
        create_model(name, img_size=31)
    with torch.device("meta"):
        model = create_model(name, num_classes=2)
    with pytest.raises(ModelError, match="an image of 30 pixels is too small; use 32 or more"):
        model(torch.empty(1, 3, 30, 64, device="meta"))
