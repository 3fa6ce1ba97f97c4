"""Promises of LeNet-5, today's and the one of 1998."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import nn

from model_defs import ModelError, create_model
from model_defs.counting import count_parameters
from model_defs.lenet import C3_INPUTS, LeNet5Of1998, ScaledTanh, TableConvolution

NAMES = ["lenet5", "lenet5_1998"]


def test_the_common_form_keeps_its_names_and_count() -> None:
    model = create_model("lenet5", num_classes=10, in_chans=1)
    assert count_parameters(model) == 61_706
    assert [key for key in model.state_dict() if key.endswith("weight")] == [
        "convolutions.0.weight", "convolutions.3.weight", "dense.1.weight", "dense.3.weight", "head.weight",
    ]  # fmt: skip


def test_the_layers_of_1998_have_the_parameters_that_the_paper_counts() -> None:
    model = create_model("lenet5_1998", num_classes=10, in_chans=1)
    counts = [count_parameters(layer) for layer in (*model.features, *model.dense)]
    assert [count for count in counts if count] == [156, 12, 1516, 32, 48_120, 10_164]
    assert sum(counts) == 60_000
    assert count_parameters(model.head) == 850


def test_the_maps_of_1998_have_the_papers_sides() -> None:
    x = torch.zeros(1, 1, 32, 32)
    sides = []
    for layer in create_model("lenet5_1998", in_chans=1).features:
        x = layer(x)
        sides.append(x.shape[-1])
    assert sides == [28, 28, 14, 14, 14, 10, 10, 5, 5, 5]


def test_the_table_is_that_of_the_paper() -> None:
    three, four, apart, (all_six,) = C3_INPUTS[:6], C3_INPUTS[6:12], C3_INPUTS[12:15], C3_INPUTS[15:]
    assert [set(row) for row in three] == [{i, (i + 1) % 6, (i + 2) % 6} for i in range(6)]
    assert [set(row) for row in four] == [{(i + j) % 6 for j in range(4)} for i in range(6)]
    assert [set(range(6)) - set(row) for row in apart] == [{2, 5}, {0, 3}, {1, 4}]
    assert set(all_six) == set(range(6))


def test_a_map_of_a_table_convolution_sees_its_inputs_and_no_others() -> None:
    torch.manual_seed(0)
    convolution = TableConvolution(((0, 2), (1,)), 3)
    image = torch.randn(1, 3, 5, 5)
    first, second = (nn.functional.conv2d(image[:, seen], kernels[None]) for seen, kernels in (
        ([0, 2], convolution.kernels[:2]), ([1], convolution.kernels[2:]),
    ))  # fmt: skip
    torch.testing.assert_close(convolution(image), torch.cat([first, second], dim=1))
    assert convolution.weight.count_nonzero() == convolution.kernels.numel() == 3 * 9


def test_subsampling_scales_and_shifts_the_sum_of_four_pixels() -> None:
    model = create_model("lenet5_1998", in_chans=1)
    assert isinstance(model, LeNet5Of1998)
    mean, scale, squash = model.features[2:5]
    with torch.no_grad():
        scale.weight.fill_(4 * 0.25)  # a coefficient of 0.25 on the sum
        scale.bias.fill_(0.5)
    pixels = torch.tensor([[1.0, 2.0], [3.0, -4.0]]).expand(1, 6, 2, 2)
    expected = 1.7159 * math.tanh(2 / 3 * (0.25 * (1 + 2 + 3 - 4) + 0.5))
    torch.testing.assert_close(squash(scale(mean(pixels))), torch.full((1, 6, 1, 1), expected))


def test_the_squashing_function_takes_one_to_one() -> None:
    torch.testing.assert_close(ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([-1.0, 0.0, 1.0]), **CLOSE)


CLOSE = {"rtol": 0.0, "atol": 1e-4}


def test_weights_start_within_the_bound_of_their_unit() -> None:
    torch.manual_seed(0)
    model = create_model("lenet5_1998", in_chans=1)
    table = model.features[5]
    largest = [filters.abs().max() for filters in table.kernels.split([len(row) for row in C3_INPUTS])]
    for row, value in zip(C3_INPUTS, largest, strict=True):
        assert 0.8 < value * len(row) * 25 / 2.4 <= 1
    assert 0.9 < model.dense[1].weight.abs().max() * 400 / 2.4 <= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("side", "last"), [(32, 5), (28, 4), (16, 1)])
def test_the_head_of_the_last_map_gives_the_logits(name: str, side: int, last: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=7, in_chans=2, img_size=side).eval()
    images = torch.randn(3, 2, side, side)
    feature_map = model.forward_map(images)
    assert feature_map.shape == (3, 16, last, last)
    assert torch.equal(feature_map, model.features(images))
    assert torch.equal(model.forward_head(feature_map), model(images))
    assert model.forward_features(images).shape == (3, model.num_features)
    assert create_model(name, num_classes=0, in_chans=2, img_size=side)(images).shape == (3, model.num_features)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, in_chans=1)
    nn.functional.cross_entropy(model(torch.randn(4, 1, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_names_lead_to_the_classifier_and_the_first_convolution(name: str) -> None:
    model = create_model(name, num_classes=4, in_chans=2)
    assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
    assert model.get_submodule(model.first_conv_name).in_channels == 2


@pytest.mark.parametrize("name", NAMES)
def test_images_that_do_not_fit_are_refused_with_what_would(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name}: images of 15 pixels leave no map; use 16 or more"):
        create_model(name, img_size=15)
    with pytest.raises(ModelError, match=f"{name}: built for 28 x 28 images, got 32 x 32; pass img_size"):
        create_model(name, img_size=28)(torch.zeros(1, 3, 32, 32))


def test_the_net_of_1998_is_exported_and_pickled_whole() -> None:
    torch.manual_seed(0)
    model = create_model("lenet5_1998", num_classes=3, in_chans=1).eval()
    images = torch.randn(5, 1, 32, 32)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(images), model(images))
    assert torch.equal(pickle.loads(pickle.dumps(model))(images), model(images))
