"""Promises of the door to timm."""

from __future__ import annotations

import sys

import pytest
import timm
import torch

from model_defs import ModelError, create_model, list_models, model_info

pytestmark = pytest.mark.heavy

IN_TIMM = [name for name in list_models() if (model_info(name).weights or "").startswith("timm ")]

# A net of convolutions, one of windows with its channels last, one of tokens, one with two heads, one with
# layers between its map and its classifier.
SMALL = {
    "resnet10t": {},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 2, "embed_dim": 24, "depths": (1, 1, 1, 1)},
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2},
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "depth": 2},
    "mobilenetv3_small_050": {},
}
WITH_MAP = {"resnet10t", "mobilenetv3_small_050"}


@pytest.mark.parametrize("name", SMALL)
def test_a_model_of_timm_has_the_interface_of_ours(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(f"timm/{name}", num_classes=5, in_chans=1, **SMALL[name]).eval()
    side = model.img_size if model.fixed_size else 64
    images = torch.randn(2, 1, side, side)
    with torch.no_grad():
        logits, features = model(images), model.forward_features(images)
    assert logits.shape == (2, 5)
    assert features.shape == (2, model.num_features)
    assert model.num_classes == 5
    heads = [model.get_submodule(key) for key in model.classifier_names]
    assert [head.out_features for head in heads] == [5] * len(heads)
    assert all(head.in_features == model.num_features for head in heads)
    assert model.get_submodule(model.first_conv_name).in_channels == 1
    if "distilled" not in name:  # there each head sees its own token, and the features are the tokens' mean
        torch.testing.assert_close(logits, heads[0](features))


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_those_of_timm(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(f"timm/{name}", num_classes=5, **SMALL[name]).eval()
    theirs = timm.create_model(name, num_classes=5, **SMALL[name]).eval()
    theirs.load_state_dict({key.removeprefix("net."): value for key, value in model.state_dict().items()})
    images = torch.randn(1, 3, model.img_size, model.img_size)
    with torch.no_grad():
        assert torch.equal(model(images), theirs(images))


@pytest.mark.parametrize("name", SMALL)
def test_a_map_is_there_where_timm_ends_in_one(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(f"timm/{name}", num_classes=5, **SMALL[name]).eval()
    assert hasattr(model, "forward_map") == (name in WITH_MAP)
    if name in WITH_MAP:
        images = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            last = model.forward_map(images)
            assert last.shape[-2:] == (2, 3)
            assert torch.equal(model.forward_head(last), model(images))


@pytest.mark.parametrize("name", SMALL)
def test_without_classes_it_gives_its_features(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(f"timm/{name}", num_classes=0, **SMALL[name]).eval()
    images = torch.randn(1, 3, model.img_size, model.img_size)
    with torch.no_grad():
        assert torch.equal(model(images), model.forward_features(images))
        assert model(images).shape == (1, model.num_features)


def test_it_is_made_on_meta_and_in_training() -> None:
    with torch.device("meta"):
        model = create_model("timm/resnet10t", num_classes=2)
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(parameter.is_meta for parameter in model.parameters())


def test_dynamic_sizes_go_through_where_timm_allows_them() -> None:
    kwargs = {"num_classes": 2, "img_size": 32, "depth": 1}
    model = create_model("timm/vit_tiny_patch16_224", dynamic_img_size=True, **kwargs).eval()
    assert model(torch.zeros(1, 3, 48, 64)).shape == (1, 2)
    fixed = create_model("timm/vit_tiny_patch16_224", **kwargs).eval()
    with pytest.raises(ModelError, match=r"timm/vit_tiny_patch16_224: built for 32 x 32 images, got 48 x 64"):
        fixed(torch.zeros(1, 3, 48, 64))


def test_a_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"'timm/resnet18' needs timm: pip install 'tutelage\[timm\]'"):
        create_model("timm/resnet18")


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("resnet_18", {}, "unknown model 'timm/resnet_18': .*; did you mean timm/resnet18"),
        ("hf-hub:someone/model", {}, "unknown model 'timm/hf-hub:someone/model'"),
        ("resnet18.a_tag", {}, "Invalid pretrained tag"),
        ("resnet18", {"dept": 3}, "'timm/resnet18': timm refuses its arguments: .*'dept'"),
        ("resnet10t", {"img_size": 31}, "timm/resnet10t: an image of 31 pixels is too small; use 32 or more"),
        ("vit_tiny_patch16_224", {"img_size": 8, "depth": 1}, "too small; use 16 or more"),
    ],
)
def test_what_timm_does_not_take_is_refused_by_name(name: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(f"timm/{name}", num_classes=2, **kwargs)


def test_an_image_that_is_too_small_is_refused_by_its_tensor() -> None:
    model = create_model("timm/resnet10t", num_classes=2)
    with pytest.raises(ModelError, match="timm/resnet10t: an image of 31 pixels is too small; use 32 or more"):
        model(torch.zeros(1, 3, 64, 31))


@pytest.mark.parametrize("name", IN_TIMM)
def test_weights_that_the_catalogue_finds_in_timm_are_there(name: str) -> None:
    card = timm.get_pretrained_cfg((model_info(name).weights or "").removeprefix("timm "))
    assert card.has_weights
