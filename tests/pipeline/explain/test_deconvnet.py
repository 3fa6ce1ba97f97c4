"""Promises of deconvnet: its arithmetic by hand, and what it may and may not touch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs import create_model
from model_defs.counting import on_meta
from model_defs.lenet import TableConvolution
from pipeline.errors import InputError
from pipeline.explain.deconvnet import Box, activations, deconvnet, peaks, receptive_field


def convolution(weight: object, bias: float = 0.0, **kwargs: int) -> nn.Conv2d:
    filters = torch.tensor(weight, dtype=torch.float32)
    layer = nn.Conv2d(filters.shape[1] * kwargs.get("groups", 1), len(filters), filters.shape[2], **kwargs)
    layer.weight.data = filters
    nn.init.constant_(layer.bias, bias)
    return layer


def row(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).eval()


def image(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def test_one_convolution_one_rectifier_one_pool_by_hand() -> None:
    features = row(convolution([[[[2, -1], [0, 1]]]]), nn.ReLU(), nn.MaxPool2d(2))
    pixels = image([1, 0, 0], [0, 1, 0], [3, 0, 1])
    # Convolved: 2*1 + 1*1 = 3, 0; -1*1 = -1, 2*1 + 1*1 = 3. Rectified -1 is 0; the first 3 is the maximum.
    torch.testing.assert_close(activations(features, pixels, 0)[0, 0], torch.tensor([[3.0, 0.0], [-1.0, 3.0]]))
    # The 3 goes back to the top left, and there the filter is laid down three times over.
    first = image([6, -3, 0], [0, 3, 0], [0, 0, 0])
    torch.testing.assert_close(deconvnet(features, pixels, 2, channel=0), first)
    last = image([0, 0, 0], [0, 6, -3], [0, 0, 3])
    torch.testing.assert_close(deconvnet(features, pixels, 1, channel=0, position=(1, 1)), last)


def test_what_two_layers_bring_back_is_rectified_between_them() -> None:
    features = row(
        convolution([[[[2.0]]], [[[-1.0]]]], bias=9.0), nn.ReLU(), convolution([[[[1.0]], [[-3.0]]]], bias=50)
    )
    pixels = image([1, 2], [3, 4])
    # Bottom right: 2*4 + 9 = 17 and -4 + 9 = 5, then 17 - 15 + 50 = 52. Back: 52 and -156, of which the latter is
    # cut off; then 2 * 52. Biases take no part on the way back.
    assert activations(features, pixels, 2)[0, 0, 1, 1] == 52
    torch.testing.assert_close(deconvnet(features, pixels, 2, 0, (1, 1)), image([0, 0], [0, 104]))


@pytest.mark.parametrize("kwargs", [
    {},
    {"stride": 2},
    {"stride": 3, "padding": 2},
    {"padding": 1, "groups": 2},
    {"stride": 2, "padding": 1, "groups": 4, "dilation": 2},
])  # fmt: skip
def test_the_projection_of_one_convolution_is_its_filter_laid_down_in_place(kwargs: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, **kwargs)
    pixels = torch.randn(2, 4, 11, 10)  # no whole number of strides
    maps = layer(pixels)
    position = (maps.shape[2] - 1, 1)
    channel = 5
    projection = deconvnet(row(layer), pixels, 0, channel, position)
    step, edge, apart = kwargs.get("stride", 1), kwargs.get("padding", 0), kwargs.get("dilation", 1)
    group, seen = channel // (8 // layer.groups), 4 // layer.groups
    expected = torch.zeros(2, 4, 11 + 2 * edge + 9, 10 + 2 * edge + 9)
    for y in range(3):
        for x in range(3):
            place = position[0] * step + y * apart, position[1] * step + x * apart
            expected[:, group * seen : (group + 1) * seen, place[0], place[1]] = (
                layer.weight[channel, :, y, x] * maps[:, channel, position[0], position[1], None]
            ).detach()
    torch.testing.assert_close(projection, expected[:, :, edge : edge + 11, edge : edge + 10])


def test_overlapping_windows_bring_their_shared_maximum_both_parts() -> None:
    weighted = nn.Conv2d(1, 1, (1, 2), bias=False)
    weighted.weight.data = torch.tensor([[[[1.0, 10.0]]]])
    features = row(nn.MaxPool2d(2, stride=1), weighted)
    pixels = image([0, 5, 0], [0, 0, 0])
    # Both windows have the 5 as their maximum; 1*5 + 10*5 = 55 goes back as 55 and 550, to one and the same pixel.
    torch.testing.assert_close(deconvnet(features, pixels, 1, 0), image([0, 605, 0], [0, 0, 0]))


def test_pooling_with_switches_is_pytorchs_unpooling_where_windows_are_apart() -> None:
    torch.manual_seed(0)
    pixels = torch.randn(3, 2, 7, 9)
    pooled, switches = F.max_pool2d(pixels, 2, return_indices=True)
    only = torch.zeros_like(pooled)
    only[:, 1, 2, 3] = pooled[:, 1, 2, 3]
    expected = F.max_unpool2d(only, switches, 2, output_size=(7, 9))
    torch.testing.assert_close(deconvnet(row(nn.MaxPool2d(2)), pixels, 0, 1, (2, 3)), expected)


def test_averages_are_spread_and_signs_of_tanh_are_kept() -> None:
    features = row(convolution([[[[-2.0]]]]), nn.Tanh(), nn.AvgPool2d(2))
    pixels = image([0.1, 0.1], [0.1, 0.1])
    value = torch.tanh(torch.tensor(-0.2)).item()
    torch.testing.assert_close(deconvnet(features, pixels, 2, 0), torch.full((1, 1, 2, 2), -2 * value / 4))


def test_norms_of_batches_scale_and_norms_of_responses_pass_on() -> None:
    norm = nn.BatchNorm2d(1)
    nn.init.constant_(norm.weight, 6.0)
    nn.init.constant_(norm.bias, 1.0)
    norm.running_mean.fill_(0.5)
    norm.running_var.fill_(4.0 - norm.eps)
    features = row(convolution([[[[1.0]]]]), norm, nn.LocalResponseNorm(5, k=2.0), nn.Dropout(0.5))
    pixels = image([2.5])
    answer = activations(features, pixels, -1).item()
    assert activations(features, pixels, 1).item() == pytest.approx(7.0)  # (2.5 - 0.5) / 2 * 6 + 1
    assert answer == pytest.approx(7.0 / (2 + 1e-4 / 5 * 49) ** 0.75)
    torch.testing.assert_close(deconvnet(features, pixels, -1, 0), image([3 * answer]))


def test_a_partly_connected_convolution_brings_nothing_to_the_maps_it_does_not_see() -> None:
    torch.manual_seed(0)
    layer = TableConvolution(((0, 2), (1,)), 3)
    projection = deconvnet(row(layer), torch.randn(1, 3, 5, 5), 0, channel=0)
    assert [bool(part.any()) for part in projection[0]] == [True, False, True]


def test_each_image_has_its_own_strongest_place_and_may_have_its_own_channel() -> None:
    maps = torch.zeros(2, 2, 2, 3)
    maps[0, 0, 1, 2], maps[1, 1, 0, 1], maps[1, 0] = 4, 7, -1
    values, positions = peaks(maps, torch.tensor([0, 1]))
    assert values.tolist() == [4, 7]
    assert positions.tolist() == [[1, 2], [0, 1]]
    torch.manual_seed(0)
    features = row(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2))
    pixels = torch.randn(3, 1, 8, 8)
    together = deconvnet(features, pixels, "2", torch.tensor([2, 0, 1]))
    for number, channel in enumerate([2, 0, 1]):
        one = pixels[number : number + 1]
        _, place = peaks(activations(features, one, 2), channel)
        torch.testing.assert_close(together[number : number + 1], deconvnet(features, one, 2, channel, place))


def test_a_unit_that_does_not_answer_gives_a_black_picture() -> None:
    features = row(convolution([[[[1.0]]]], bias=-100.0), nn.ReLU())
    assert not deconvnet(features, torch.rand(1, 1, 3, 3), 1, 0).any()


ROWS = {
    "strides": row(
        nn.Conv2d(2, 4, 5, stride=3, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1), nn.Conv2d(4, 3, 3)
    ),
    "dilated": row(nn.Conv2d(2, 4, 3, dilation=2), nn.ReLU(), nn.Conv2d(4, 4, 2, padding="same"), nn.AvgPool2d(2)),
    "ceil": row(
        nn.Conv2d(2, 3, 2, stride=2), nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)
    ),
    "uneven": row(nn.Conv2d(2, 3, (3, 5), stride=(2, 1), padding=(0, 2)), nn.BatchNorm2d(3), nn.MaxPool2d((1, 2))),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", ROWS)
def test_the_receptive_field_is_where_pixels_change_the_unit_and_nowhere_else(name: str) -> None:
    torch.manual_seed(0)
    features = ROWS[name]
    last = len(features) - 1
    pixels = torch.randn(1, 2, 19, 23)
    height, width = activations(features, pixels, last).shape[2:]
    # With positive weights and means for maxima every pixel that a unit sees changes it.
    linear = row(*(_all_seeing(layer) for layer in features)).double()
    for position in {(0, 0), (height // 2, width // 2), (height - 1, width - 1), (0, width - 1)}:
        box = receptive_field(features, last, position, (19, 23))
        inside = torch.zeros(19, 23, dtype=torch.bool)
        box.crop(inside).fill_(True)
        tracked = pixels.double().requires_grad_()
        linear(tracked)[0, :, *position].sum().backward()
        changes = tracked.grad[0].abs().sum(dim=0) > 0
        assert not (changes & ~inside).any()
        bounds = [
            (int(axis.nonzero().min()), int(axis.nonzero().max()) + 1) for axis in (changes.any(1), changes.any(0))
        ]
        assert Box(bounds[0][0], bounds[1][0], bounds[0][1], bounds[1][1]) == box
        projection = deconvnet(features, pixels, last, 0, position)
        assert projection.any()
        assert not projection[0, :, ~inside].any()


def _all_seeing(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.MaxPool2d):
        return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
    if isinstance(layer, nn.Conv2d):
        positive = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation
        )
        nn.init.constant_(positive.weight, 1.0)
        return positive
    return layer if isinstance(layer, nn.AvgPool2d) else nn.Identity()


@pytest.mark.parametrize(("name", "layer", "side"), [
    ("alexnet", 3, 19),  # the first pool: 11 + 2 * 4
    ("alexnet", 14, 195),  # the fifth
    ("vgg16", 30, 212),
    ("zfnet", 2, 11),  # 7 + 2 * 2
])  # fmt: skip
def test_known_nets_have_their_known_fields(name: str, layer: int, side: int) -> None:
    # In the middle of an image so large that nothing is cut off.
    box = receptive_field(on_meta(name).features, layer, (20, 20), (2000, 2000))
    assert (box.bottom - box.top, box.right - box.left) == (side, side)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_every_layer_of_a_net_can_be_projected_and_the_net_stays_as_it_was(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, in_chans=1, img_size=28).eval()
    pixels = torch.randn(2, 1, 28, 28)
    given, before = pixels.clone(), model(pixels)
    for layer in range(len(model.features)):
        assert activations(model.features, pixels, layer)[:, 2].amax() > 0
        projection = deconvnet(model.features, pixels, layer, channel=2)
        assert projection.shape == pixels.shape
        assert projection.isfinite().all()
        assert not projection.requires_grad
    assert projection.any()
    assert torch.equal(pixels, given)
    assert torch.equal(model(pixels), before)


def test_the_layers_of_the_large_nets_can_all_be_walked() -> None:
    torch.manual_seed(0)
    for name, side in (
        ("alexnet", 67),
        ("alexnet_torchvision", 63),
        ("zfnet", 53),
        ("vgg11_lrn", 32),
        ("vgg11_bn", 32),
    ):
        with torch.device("meta"):
            features = create_model(name).features.eval()
        features.to_empty(device="cpu")
        for key, value in features.state_dict().items():
            if value.is_floating_point():
                value.uniform_(0.01, 0.02) if key.endswith(("weight", "var")) else value.zero_()
        projection = deconvnet(features, torch.rand(1, 3, side, side), -1, channel=7)
        assert (projection > 0).any()


def test_what_cannot_be_projected_is_refused() -> None:
    features = row(nn.Conv2d(1, 2, 3), nn.ReLU())
    pixels = torch.zeros(1, 1, 5, 5)
    cases: list[tuple[nn.Module, dict[str, object], str]] = [
        (features, {"layer": 2}, "no layer 2; the net has 2, from 0"),
        (features, {"layer": "relu"}, "unknown layer 'relu'; known: 0, 1"),
        (features, {"channel": 2}, r"channels \[2\] of a map that has 2, from 0"),
        (features, {"position": (0, 3)}, r"columns \[3\] of a map that has 3, from 0"),
        (features, {"position": (-1, 0)}, r"rows \[-1\] of a map that has 3"),
        (row(nn.Conv2d(1, 2, 3), nn.GELU()), {"layer": 1}, "layer '1' is a GELU, which it cannot undo; use Grad-CAM"),
        (row(nn.Conv2d(1, 2, 3, padding_mode="circular", padding=1)), {}, "pads by circular; only zeros"),
        (nn.Conv2d(1, 2, 3), {}, "needs a flat nn.Sequential, not Conv2d"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), {}, r"in training mode, which changes its outputs; call eval\(\)"),
    ]
    for net, kwargs, message in cases:
        with pytest.raises(InputError, match=message):
            deconvnet(net, pixels, **{"layer": 0, "channel": 0, **kwargs})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"position \(3, 0\) is outside the map of layer 1"):
        receptive_field(features, 1, (3, 0), (5, 5))
