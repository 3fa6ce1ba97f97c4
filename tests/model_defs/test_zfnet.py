"""Promises of ZF-Net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_defs import ModelError, create_model
from model_defs.counting import count_parameters, on_meta


def test_the_count_is_that_of_the_papers_net() -> None:
    assert count_parameters(on_meta("zfnet")) == 62_357_608


def test_maps_are_those_of_the_papers_figure() -> None:
    x = torch.empty(1, 3, 224, 224, device="meta")
    sides, channels = [], []
    for layer in on_meta("zfnet").features:
        x = layer(x)
        if not sides or sides[-1] != x.shape[-1]:
            sides.append(x.shape[-1])
        if isinstance(layer, nn.Conv2d):
            channels.append(x.shape[1])
    assert sides == [110, 55, 26, 13, 6]
    assert channels == [96, 256, 384, 384, 256]


def test_contrast_is_normalised_after_pooling_and_nothing_is_grouped() -> None:
    features = list(on_meta("zfnet").features)
    before = [type(features[i - 1]) for i, layer in enumerate(features) if isinstance(layer, nn.LocalResponseNorm)]
    assert before == [nn.MaxPool2d, nn.MaxPool2d]
    assert all(layer.groups == 1 for layer in features if isinstance(layer, nn.Conv2d))


def test_its_parts_are_where_its_names_say() -> None:
    with torch.device("meta"):
        model = create_model("zfnet", num_classes=4, in_chans=1).eval()
        assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
        assert model.get_submodule(model.first_conv_name).in_channels == 1
        images = torch.empty(2, 1, 64, 224)
        assert model.forward_head(model.forward_map(images)).shape == model(images).shape == (2, 4)
        assert create_model("zfnet", num_classes=0)(torch.empty(2, 3, 224, 224)).shape == (2, model.num_features)


def test_a_forward_and_a_backward_pass_reach_every_parameter() -> None:
    torch.manual_seed(0)
    model = create_model("zfnet", num_classes=3, dropout=0.0, img_size=53)
    logits = model(torch.randn(2, 3, 53, 53))
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_smallest_image_leaves_one_pixel_and_less_is_refused() -> None:
    with torch.device("meta"):
        model = create_model("zfnet", img_size=53)
        assert model.forward_map(torch.empty(1, 3, 53, 53)).shape == (1, 256, 1, 1)
        with pytest.raises(ModelError, match="zfnet: an image of 52 pixels is too small; use 53 or more"):
            create_model("zfnet", img_size=52)
        with pytest.raises(ModelError, match="use 53 or more"):
            model(torch.empty(1, 3, 52, 224))
