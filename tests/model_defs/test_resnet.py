"""Promises of ResNet and ResNeXt beside torchvision's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from model_defs import ModelError, create_model, model_info
from model_defs.resnet import ResNet

COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x4d": 44_177_704,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_the_counts_are_those_of_the_published_nets(name: str) -> None:
    assert model_info(name).parameters == COUNTS[name]  # test_models.py builds each and counts


@pytest.mark.parametrize(("name", "count"), [("resnext50_32x4d", 27_559_896), ("resnext101_32x4d", 48_955_416)])
def test_gates_make_it_an_se_resnext(name: str, count: int) -> None:
    with torch.device("meta"):
        assert parameters(create_model(name, squeeze_excite=True)) == count


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnext101_64x4d"])
def test_weights_of_torchvision_load_as_they_are(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(name).state_dict(), torchvision.models.get_model(name, weights=None).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_logits_are_those_of_torchvision(name: str, randomised: Callable[[nn.Module], nn.Module]) -> None:
    theirs = randomised(torchvision.models.get_model(name, weights=None, num_classes=9))
    ours = create_model(name, num_classes=9).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "kwargs"), [
    ("resnet18", {}),
    ("resnet18", {"squeeze_excite": True}),
    ("resnet50", {"squeeze_excite": True}),
    ("resnet_small", {}),
])  # fmt: skip
def test_the_head_of_the_last_map_gives_the_logits(name: str, kwargs: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **kwargs).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        last = model.forward_map(images)
        assert last.shape == (2, model.num_features, 2, 2)
        assert torch.equal(model.forward_head(last), model(images))
        assert torch.equal(last.mean(dim=(2, 3)), model.forward_features(images))


@pytest.mark.parametrize("layers", [18, 50])
def test_open_gates_leave_a_plain_resnet(layers: int) -> None:
    torch.manual_seed(0)
    gated = ResNet(layers, num_classes=3, squeeze_excite=True).eval()
    plain = ResNet(layers, num_classes=3).eval()
    missing = plain.load_state_dict(gated.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert all(".se_module." in key for key in missing.unexpected_keys)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(gated(images), plain(images))
        for name, parameter in gated.named_parameters():
            if ".se_module.fc2." in name:
                parameter.fill_(100.0 if name.endswith("bias") else 0.0)  # sigmoid(100) is 1
        torch.testing.assert_close(gated(images), plain(images))


def test_names_lead_to_the_classifier_and_the_first_convolution() -> None:
    for name in ("resnet18", "resnext50_32x4d", "resnet_small"):
        with torch.device("meta"):
            model = create_model(name, num_classes=4, in_chans=2)
        assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
        assert model.get_submodule(model.first_conv_name).in_channels == 2


def test_an_image_that_is_too_small_is_refused_by_its_tensor_too() -> None:
    with torch.device("meta"):
        model = create_model("resnet18", num_classes=2)
    with pytest.raises(ModelError, match="resnet: an image of 31 pixels is too small; use 32 or more"):
        model(torch.empty(1, 3, 64, 31, device="meta"))
