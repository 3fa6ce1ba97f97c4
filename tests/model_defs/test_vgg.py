"""Promises of VGG beside torchvision's, and of the two columns that torchvision has not."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torchvision
from torch import Tensor, nn

from model_defs import ModelError, create_model
from model_defs.counting import count_parameters, on_meta

COUNTS = {
    "vgg11": 132_863_336,
    "vgg11_lrn": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16_1x1": 133_638_952,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_1x1_bn": 133_647_400,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}
OF_TORCHVISION = sorted(set(COUNTS) - {"vgg11_lrn", "vgg16_1x1", "vgg16_1x1_bn"})


@pytest.fixture(scope="module")
def classifier() -> dict[str, Tensor]:
    """Weights of the dense layers, drawn once: they are 123 of 138 million."""
    torch.manual_seed(1)
    with torch.device("meta"):
        shapes = torchvision.models.vgg11(num_classes=5).classifier.state_dict()
    return {
        f"classifier.{key}": torch.empty(shape.shape).uniform_(-1, 1).div_(shape.shape[-1] ** 0.5)
        for key, shape in shapes.items()
    }


@pytest.mark.parametrize("name", COUNTS)
def test_the_counts_are_those_of_the_published_nets(name: str) -> None:
    assert count_parameters(on_meta(name)) == COUNTS[name]


def drawn(key: str, shape: torch.Size) -> Tensor:
    """A weight of a convolution or norm such that signals keep their size."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if len(shape) == 4:
        return nn.init.kaiming_uniform_(torch.empty(shape), nonlinearity="relu")
    about = 1.0 if key.endswith(("weight", "running_var")) else 0.0
    return about + torch.empty(shape).uniform_(-0.3, 0.3)


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_logits_are_those_of_torchvision(name: str, classifier: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None, num_classes=5).eval()
        ours = create_model(name, num_classes=5).eval()
    state = {
        key: classifier[key] if key in classifier else drawn(key, value.shape)
        for key, value in theirs.state_dict().items()
    }
    for net in (theirs, ours):
        net.load_state_dict(state, assign=True)
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        expected = theirs(images)
        assert expected.std() > 1e-2
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)


def convolutions(name: str) -> list[tuple[int, int]]:
    """Filters and side of each convolution."""
    return [(m.out_channels, m.kernel_size[0]) for m in on_meta(name).features if isinstance(m, nn.Conv2d)]


def test_column_c_is_b_with_a_1x1_convolution_at_the_end_of_three_stages() -> None:
    with_pools = [m for m in on_meta("vgg16_1x1").features if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    ends = [layer for layer, after in pairwise(with_pools) if isinstance(after, nn.MaxPool2d)]
    assert [end.kernel_size for end in ends] == [(3, 3), (3, 3), (1, 1), (1, 1), (1, 1)]
    assert [row for row in convolutions("vgg16_1x1") if row[1] == 3] == convolutions("vgg13")
    assert [width for width, side in convolutions("vgg16_1x1") if side == 1] == [256, 512, 512]


def test_a_lrn_is_a_with_normalised_responses_of_the_first_convolution() -> None:
    plain, normalised = list(on_meta("vgg11").features), list(on_meta("vgg11_lrn").features)
    assert [type(layer) for layer in normalised[:4]] == [nn.Conv2d, nn.ReLU, nn.LocalResponseNorm, nn.MaxPool2d]
    assert [type(layer) for layer in normalised[:2] + normalised[3:]] == [type(layer) for layer in plain]


@pytest.mark.parametrize("name", ["vgg16", "vgg16_1x1_bn"])
def test_its_parts_are_where_its_names_say(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=4, in_chans=1).eval()
        assert [model.get_submodule(key).out_features for key in model.classifier_names] == [4]
        assert model.get_submodule(model.first_conv_name).in_channels == 1
        images = torch.empty(2, 1, 64, 96)
        assert model.forward_map(images).shape == (2, 512, 2, 3)
        assert model.forward_head(model.forward_map(images)).shape == model(images).shape == (2, 4)
        assert create_model(name, num_classes=0)(torch.empty(2, 3, 224, 224)).shape == (2, model.num_features)


def test_less_than_32_pixels_are_refused() -> None:
    with torch.device("meta"):
        model = create_model("vgg11", img_size=32)
        assert model.forward_map(torch.empty(1, 3, 32, 32)).shape == (1, 512, 1, 1)
        with pytest.raises(ModelError, match="vgg: an image of 31 pixels is too small; use 32 or more"):
            create_model("vgg16", img_size=31)
        with pytest.raises(ModelError, match="use 32 or more"):
            model(torch.empty(1, 3, 224, 31))
