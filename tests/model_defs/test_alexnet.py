"""Promises of AlexNet, the paper's and torchvision's."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from model_defs import ModelError, create_model, model_info
from model_defs.alexnet import init_as_in_2012, response_norm
from model_defs.counting import count_parameters, on_meta

SMALLEST = {"alexnet": 67, "alexnet_torchvision": 63}


def test_the_counts_are_those_of_the_published_nets() -> None:
    assert count_parameters(on_meta("alexnet")) == 60_965_224
    assert count_parameters(on_meta("alexnet_torchvision")) == 61_100_840


def sides(features: nn.Sequential, side: int, kinds: tuple[type[nn.Module], ...]) -> list[tuple[int, int]]:
    """Channels and side after each layer of these kinds."""
    x: Tensor = torch.empty(1, 3, side, side, device="meta")
    shapes = []
    for layer in features:
        x = layer(x)
        if isinstance(layer, kinds):
            shapes.append((x.shape[1], x.shape[2]))
    return shapes


def test_maps_are_those_of_the_paper() -> None:
    features = on_meta("alexnet").features
    assert sides(features, 227, (nn.Conv2d,)) == [(96, 55), (256, 27), (384, 13), (384, 13), (256, 13)]
    assert sides(features, 227, (nn.MaxPool2d,)) == [(96, 27), (256, 13), (256, 6)]


def test_two_groups_are_the_two_halves_of_the_paper() -> None:
    second = on_meta("alexnet").features[4]
    torch.manual_seed(0)
    second = nn.Conv2d(second.in_channels, second.out_channels, 5, padding=second.padding, groups=second.groups)
    maps = torch.randn(1, 96, 5, 5)
    blind = maps.clone()
    blind[:, 48:] = 0
    with torch.no_grad():
        changed = (second(maps) != second(blind)).flatten(2).any(2)[0]
    assert not changed[:128].any()
    assert changed[128:].all()
    groups = [layer.groups for layer in on_meta("alexnet").features if isinstance(layer, nn.Conv2d)]
    assert groups == [1, 2, 1, 2, 2]


def test_responses_are_normalised_by_the_formula_of_the_paper() -> None:
    values = [1.0, -20.0, 300.0, 4.0, 50.0, 0.0, 70.0]
    expected = []
    for i, a in enumerate(values):
        neighbours = values[max(0, i - 2) : min(len(values) - 1, i + 2) + 1]
        expected.append(a / (2 + 1e-4 * sum(b * b for b in neighbours)) ** 0.75)
    assert expected[0] == pytest.approx(1 / (2 + 1e-4 * (1 + 400 + 90_000)) ** 0.75)
    normalised = response_norm()(torch.tensor(values).view(1, 7, 1, 1))
    torch.testing.assert_close(normalised.flatten(), torch.tensor(expected))


def test_weights_start_as_in_the_paper_for_pixels_of_deviation_one() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = create_model("alexnet", num_classes=2)
    model.classifier[1], model.classifier[4] = nn.Linear(10, 4096), nn.Linear(4096, 10)  # else a second of drawing
    init_as_in_2012(model.to_empty(device="cpu"))
    layers = [m for m in (*model.features, *model.classifier) if isinstance(m, nn.Conv2d | nn.Linear)]
    deviations = [layer.weight.std().item() for layer in layers]
    assert deviations == pytest.approx([0.57] + 7 * [0.01], rel=0.05)
    assert not any(layer.bias.any() for layer in layers)


@pytest.mark.parametrize("name", SMALLEST)
def test_names_lead_to_the_classifier_and_the_first_convolution(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=4, in_chans=2)
    assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
    assert model.get_submodule(model.first_conv_name).in_channels == 2
    assert model.img_size == model_info(name).image_size


@pytest.mark.parametrize(("name", "smallest"), SMALLEST.items())
def test_the_smallest_image_leaves_one_pixel_and_less_is_refused(name: str, smallest: int) -> None:
    message = f"{name}: an image of {smallest - 1} pixels is too small; use {smallest} or more"
    with torch.device("meta"):
        model = create_model(name, img_size=smallest)
        assert model.forward_map(torch.empty(1, 3, smallest, smallest)).shape == (1, 256, 1, 1)
        with pytest.raises(ModelError, match=message):
            create_model(name, img_size=smallest - 1)
        with pytest.raises(ModelError, match=message):
            model(torch.empty(1, 3, 227, smallest - 1))


@pytest.mark.parametrize("name", SMALLEST)
def test_any_larger_image_goes_through_the_same_weights(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=5).eval()
        assert model(torch.empty(2, 3, 96, 128)).shape == (2, 5)
        assert model.forward_features(torch.empty(2, 3, 256, 256)).shape == (2, 4096)
        assert create_model(name, num_classes=0)(torch.empty(2, 3, 227, 227)).shape == (2, 4096)


def test_logits_are_those_of_torchvision() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet(num_classes=5).eval()
    with torch.device("meta"):
        ours = create_model("alexnet_torchvision", num_classes=5).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    images = torch.randn(1, 3, 96, 80)
    with torch.no_grad():
        expected = theirs(images)
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.forward_head(ours.forward_map(images)), expected, rtol=1e-5, atol=1e-5)
