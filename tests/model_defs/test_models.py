"""Promises that every registered model keeps; a new model is tested by being registered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_defs import ModelError, create_model, list_models, model_info

IMAGE_MODELS = [name for name in list_models() if model_info(name).kind == "image"]

# Small enough for a test, one a family and head.
TRIED = {
    "lenet5": {},
    "resnet18": {"img_size": 64},
    "resnet50": {"img_size": 64},
    "resnet_small": {"widths": (8, 16), "depths": (1, 2), "img_size": 28},
    "vit_micro": {"width": 32, "depth": 2, "img_size": 32},
    "vit_tiny_patch16_224": {"img_size": 32},
    "deit_tiny_patch16_224": {"img_size": 32},
    "deit_micro_distilled": {"width": 32, "depth": 2, "img_size": 32},
}

# Counts of the papers' nets for 1000 classes, as torchvision 0.29 and timm 1.0 have them.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_224": 88_224_232,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch32_224": 306_535_400,
    "vit_huge_patch14_224": 632_045_800,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_distilled_patch16_224": 87_338_192,
    "text_transformer": 63_428_096,
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", list_models())
def test_the_catalogue_tells_the_number_of_parameters(name: str) -> None:
    info = model_info(name)
    with torch.device("meta"):
        count = parameters(create_model(name))
    assert count == info.parameters
    assert count == PUBLISHED.get(name, count)


def test_lenet_has_the_count_of_its_common_form() -> None:
    assert parameters(create_model("lenet5", num_classes=10, in_chans=1)) == 61_706


@pytest.mark.parametrize(("name", "img_size", "count"), [
    ("deit_base_patch16_224", 384, 86_859_496),
    ("deit_base_distilled_patch16_224", 384, 87_630_032),
])  # fmt: skip
def test_larger_images_cost_positions_only(name: str, img_size: int, count: int) -> None:
    with torch.device("meta"):
        assert parameters(create_model(name, img_size=img_size)) == count


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_image_model_tells_its_features_classes_and_size(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=5)
    assert model.num_classes == 5
    assert model.img_size == model_info(name).image_size
    assert isinstance(model.num_features, int)


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("in_chans", [1, 3])
def test_logits_and_features_have_their_shapes(name: str, in_chans: int) -> None:
    model = create_model(name, num_classes=7, in_chans=in_chans, **TRIED[name]).eval()
    images = torch.randn(2, in_chans, model.img_size, model.img_size)
    with torch.no_grad():
        logits, features = model(images), model.forward_features(images)
        headless = create_model(name, num_classes=0, in_chans=in_chans, **TRIED[name])(images)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert features.shape == headless.shape == (2, model.num_features)


@pytest.mark.parametrize("name", TRIED)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **TRIED[name]).train()
    out = model(torch.randn(4, 3, model.img_size, model.img_size))
    logits = sum(out) if isinstance(out, tuple) else out
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []


@pytest.mark.parametrize(("name", "side"), [("lenet5", 12), ("resnet18", 31), ("resnet_small", 15), ("vit_micro", 4)])
def test_an_image_size_that_is_too_small_is_refused(name: str, side: int) -> None:
    with pytest.raises(ModelError, match=str(side)):
        create_model(name, img_size=side)(torch.zeros(1, 3, side, side))


@pytest.mark.parametrize("name", ["lenet5", "vit_micro", "deit_micro_distilled"])
def test_images_of_another_size_are_refused_with_both_sizes(name: str) -> None:
    model = create_model(name, num_classes=2)
    with pytest.raises(ModelError, match=rf"built for {model.img_size} x {model.img_size} images, got 40 x 48"):
        model(torch.zeros(1, 3, 40, 48))


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "resnet_small", "vit_micro", "deit_micro_distilled"])
def test_one_model_a_family_exports_with_a_free_batch(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **TRIED[name]).eval()
    side = model.img_size
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model, (torch.randn(2, 3, side, side),), dynamic_shapes=({0: batch},))
    for count in (1, 5):
        images = torch.randn(count, 3, side, side)
        torch.testing.assert_close(program.module()(images), model(images))
