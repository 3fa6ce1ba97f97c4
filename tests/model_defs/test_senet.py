"""Promises of SENet beside timm's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from model_defs import ModelError, create_model, model_info
from model_defs.senet import LAYOUTS, SENet

pytestmark = pytest.mark.heavy


COUNTS = {
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "seresnext50_32x4d": 27_559_896,
    "seresnext101_32x4d": 48_955_416,
    "senet154": 115_088_984,
}
SHALLOW = (1, 2, 1, 2)  # each kind of block: first and later, with and without stride


@pytest.mark.parametrize("name", COUNTS)
def test_the_counts_are_those_of_the_published_nets(name: str) -> None:
    assert model_info(name).parameters == COUNTS[name]  # test_models.py builds each and counts


@pytest.mark.parametrize("name", ["seresnet101", "seresnext50_32x4d", "senet154"])
def test_weights_of_timm_load_as_they_are(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(name).state_dict(), timm.create_model(f"legacy_{name}").state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize(("name", "side"), [
    ("seresnet50", 64),
    ("seresnet50", 51),  # the stem's pooling leaves a rest at its end
    ("seresnext50_32x4d", 64),
    ("senet154", 51),
])  # fmt: skip
def test_logits_are_those_of_timm(name: str, side: int, randomised: Callable[[nn.Module], nn.Module]) -> None:
    theirs = randomised(timm.create_model(f"legacy_{name}", num_classes=9, layers=SHALLOW))
    ours = SENet(replace(LAYOUTS[name], depths=SHALLOW), num_classes=9, img_size=side).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_the_whole_seresnet50_gives_the_logits_of_timm(randomised: Callable[[nn.Module], nn.Module]) -> None:
    theirs = randomised(timm.create_model("legacy_seresnet50"))
    ours = create_model("seresnet50").eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_only_senet154_drops_out_before_its_head() -> None:
    rates = {name: layout.dropout for name, layout in LAYOUTS.items()}
    with torch.device("meta"):
        assert create_model("senet154").dropout.p == 0.2
    assert rates == dict.fromkeys(COUNTS, 0.0) | {"senet154": 0.2}


def test_the_head_of_the_last_map_gives_the_logits() -> None:
    torch.manual_seed(0)
    model = SENet(replace(LAYOUTS["seresnet50"], depths=SHALLOW), num_classes=5, in_chans=1).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        last = model.forward_map(images)
        assert last.shape == (2, 2048, 2, 2)
        assert torch.equal(model.forward_head(last), model(images))
        assert torch.equal(last.mean(dim=(2, 3)), model.forward_features(images))


@pytest.mark.parametrize("name", ["seresnet50", "senet154"])
def test_names_lead_to_the_classifier_and_the_first_convolution(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=4, in_chans=2)
    assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
    assert model.get_submodule(model.first_conv_name).in_channels == 2


def test_an_image_that_is_too_small_is_refused_at_creation_and_by_its_tensor() -> None:
    with pytest.raises(ModelError, match="an image of 31 pixels is too small; use 32 or more"):
        create_model("seresnet50", img_size=31)
    with torch.device("meta"):
        model = create_model("seresnet50", num_classes=2)
    with pytest.raises(ModelError, match="an image of 30 pixels is too small; use 32 or more"):
        model(torch.empty(1, 3, 30, 64, device="meta"))
