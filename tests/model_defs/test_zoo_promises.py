"""Promises that every registered model keeps, held on the meta device: a new model is tested by being registered.

What shapes cannot tell (numbers, gradients, export) is asked of one model a family in test_models.py.
"""

from __future__ import annotations

from functools import cache

import pytest
import timm
import torch
import torchvision
from torch import nn

from model_defs import ModelError, create_model, list_models, model_info, registry
from model_defs.counting import count_macs, count_parameters, example_inputs, on_meta
from model_defs.lenet import TableConvolution

MODELS = list_models()
IMAGE_MODELS = [name for name in MODELS if model_info(name).kind == "image"]


def _smallest_of_each_builder() -> list[str]:
    """Models that share a builder differ by its arguments; the one with the fewest parameters stands for them."""
    chosen: dict[object, str] = {}
    for name in sorted(IMAGE_MODELS, key=lambda name: model_info(name).parameters or 0):
        chosen.setdefault(registry._models[name].builder, name)
    return sorted(chosen.values())


BUILDERS = _smallest_of_each_builder()
CONVOLUTIONAL = [name for name in BUILDERS if not name.startswith(("vit", "deit"))]
# The others take images of the one size that they are built for.
OF_ANY_SIZE = [name for name in CONVOLUTIONAL if not name.startswith(("lenet", "resnet50_clip"))]

# Counts of the papers' nets for 1000 classes, as torchvision 0.29, timm 1.0 and open_clip 3.3 have them, or as the
# layer tables of the papers give them.
PUBLISHED = {
    "alexnet": 60_965_224,
    "alexnet_torchvision": 61_100_840,
    "zfnet": 62_357_608,
    "vgg11": 132_863_336,
    "vgg11_lrn": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16_1x1": 133_638_952,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 13_378_280,
    "bn_inception": 11_295_240,
    "inception_v3": 23_834_568,
    "inception_v4": 42_679_816,
    "inception_resnet_v1": 22_756_328,
    "inception_resnet_v2": 55_843_464,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x4d": 44_177_704,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet264": 33_337_704,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "senet154": 115_088_984,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_224": 88_224_232,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch32_224": 306_535_400,
    "vit_huge_patch14_224": 632_045_800,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
    "deit_base_patch16_384": 86_859_496,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_distilled_patch16_224": 87_338_192,
    "deit_base_distilled_patch16_384": 87_630_032,
    "text_transformer": 63_428_096,
    "clip_resnet50": 102_007_137,
    "clip_vit_base_patch32": 151_277_313,
    "clip_vit_base_patch16": 149_620_737,
    "clip_vit_large_patch14": 427_616_513,
}


@cache
def built(name: str) -> nn.Module:
    """The model with its defaults; on meta it holds no weights, so all of the zoo may stay."""
    return on_meta(name)


@pytest.mark.heavy
@pytest.mark.parametrize("name", MODELS)
def test_the_catalogue_tells_the_exact_parameters_and_multiply_accumulates(name: str) -> None:
    info, model = model_info(name), built(name)
    assert count_parameters(model) == info.parameters == PUBLISHED.get(name, info.parameters)
    assert count_macs(model) == info.macs


def test_no_published_net_is_missing() -> None:
    assert set(PUBLISHED) - set(MODELS) == set()


@pytest.mark.parametrize("name", MODELS)
def test_the_catalogue_tells_where_a_model_comes_from(name: str) -> None:
    info = model_info(name)
    assert 1998 <= info.year <= 2021
    assert ", " in info.paper  # author, title
    assert (info.image_size is None) == (info.kind == "text")
    errors = [error for error in (info.top5_error, info.top1_error) if error is not None]
    assert errors == sorted(errors)
    assert all(0 < error < 100 for error in errors)
    # No figure without its table, and no table without a figure.
    assert bool(errors) == bool(info.errors_from)


@pytest.mark.parametrize("name", [name for name in MODELS if model_info(name).weights])
def test_the_weights_that_the_catalogue_names_are_there_to_be_had(name: str) -> None:
    source, _, weights = (model_info(name).weights or "").partition(" ")
    if source == "torchvision":
        assert hasattr(torchvision.models, weights)
    elif source == "timm":
        architecture, _, tag = weights.partition(".")
        assert timm.is_model_pretrained(architecture)
        assert timm.get_pretrained_cfg(f"{architecture}.{tag}") is not None
    else:
        assert source in ("package", "hf")
        assert weights


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_an_image_model_tells_its_classes_features_and_size_and_where_its_ends_are(name: str) -> None:
    model = built(name)
    assert model.num_classes == 1000
    assert model.img_size == model_info(name).image_size
    assert isinstance(model.num_features, int)
    first = model.get_submodule(model.first_conv_name)
    assert isinstance(first, nn.Conv2d | TableConvolution)
    assert first.in_channels == 3
    heads = [model.get_submodule(name) for name in model.classifier_names]
    assert heads
    assert all(isinstance(head, nn.Linear) and head.out_features == 1000 for head in heads)
    others = set(model.modules()) - set(heads)
    assert not [module for module in others if isinstance(module, nn.Linear) and module.out_features == 1000]


@pytest.mark.parametrize("name", BUILDERS)
def test_any_number_of_channels_and_classes(name: str) -> None:
    model = on_meta(name, in_chans=4, num_classes=7)
    assert model.get_submodule(model.first_conv_name).in_channels == 4
    assert {model.get_submodule(head).out_features for head in model.classifier_names} == {7}
    images = torch.empty(2, 4, model.img_size, model.img_size, device="meta")
    assert model(images).shape == (2, 7)


@pytest.mark.parametrize("name", BUILDERS)
def test_without_classes_the_features_of_grey_images_come_out(name: str) -> None:
    model, whole = on_meta(name, in_chans=1, num_classes=0), built(name)
    (image,) = example_inputs(model)
    assert image.shape[1] == 1
    assert model(image).shape == (1, model.num_features)
    assert model.num_features == whole.num_features
    assert whole.forward_features(*example_inputs(whole)).shape == (1, model.num_features)
    heads = sum(count_parameters(whole.get_submodule(head)) for head in whole.classifier_names)
    assert count_parameters(whole) - count_parameters(model) > heads


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_convolutional_net_comes_apart_at_its_last_map(name: str) -> None:
    model = built(name)
    feature_map = model.forward_map(*example_inputs(model))
    assert feature_map.ndim == 4
    assert feature_map.shape[0] == 1
    assert min(feature_map.shape[2:]) >= 1
    assert model.forward_head(feature_map).shape == (1, 1000)


@pytest.mark.parametrize("name", BUILDERS)
def test_an_image_size_that_is_too_small_is_refused_at_creation(name: str) -> None:
    with pytest.raises(ModelError, match="3 pixels"):
        on_meta(name, img_size=3)


@pytest.mark.parametrize("name", OF_ANY_SIZE)
def test_the_smallest_side_is_told_and_goes_through(name: str) -> None:
    # The stem of a small net follows the size it is built for, and with it the smallest side.
    smallest = on_meta(name, img_size=built(name).smallest).smallest
    model = on_meta(name, img_size=smallest, num_classes=2)
    assert model(*example_inputs(model)).shape == (1, 2)
    with pytest.raises(ModelError, match=f"use {smallest} or more"):
        on_meta(name, img_size=smallest - 1)
    with pytest.raises(ModelError, match=f"use {smallest} or more"):
        model(torch.empty(1, 3, smallest - 1, smallest - 1, device="meta"))


def test_larger_images_cost_a_transformer_positions_only() -> None:
    more = (384 // 16) ** 2 - (224 // 16) ** 2
    for name in ("deit_base_patch16_224", "deit_base_distilled_patch16_224"):
        assert count_parameters(on_meta(name, img_size=384)) - count_parameters(built(name)) == more * 768


def test_lenet_has_the_counts_of_its_two_forms() -> None:
    assert count_parameters(create_model("lenet5", num_classes=10, in_chans=1)) == 61_706
    assert count_parameters(create_model("lenet5_1998", num_classes=0, in_chans=1)) == 60_000
