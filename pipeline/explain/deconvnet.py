"""Deconvnet: the activation of one unit of a convolutional net, projected back to the pixels of an image.

Zeiler, Fergus 2013, "Visualizing and Understanding Convolutional Networks", section 2.1. The image goes forward through
a sequence of layers; all values of a layer's map but one are set to zero; that value goes back through the layers:

    max-pooling         to the position of the maximum (its "switch"); if overlapping windows share a maximum, their
                        contributions are added
    ReLU                rectified again, so that the reconstruction is positive like the maps
    convolution         transposed filters
    average pooling     spread evenly over the window
    batch norm          multiplied by its scale, as if the preceding filters contained the scale
    tanh                unchanged: its maps have both signs, so there is nothing to rectify
    response norm       unchanged, as in the paper; dropout likewise

Biases are left out. Pooling, filters and scale are linear once the switches are known, so the backward pass is the
transpose of the forward pass; autograd derives it from each layer, with its stride, padding and groups.

Only the ratios between the pixels of a projection are meaningful. Its dependence on the image comes from switches
and rectifiers: in a net with neither, such as the LeNet-5 of 1998, all images have the same projection of a channel, up
to scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model_defs.lenet import TableConvolution
from pipeline.errors import InputError, UnknownNameError

Layer = int | str
Backward = Callable[[Tensor], Tensor]

_PROJECTED_BY_TRANSPOSE = (nn.Conv2d, TableConvolution, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d)
_PROJECTED_UNCHANGED = (nn.Tanh, nn.LocalResponseNorm, nn.Dropout, nn.Identity)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels; `bottom` and `right` are exclusive, as in a slice."""

    top: int
    left: int
    bottom: int
    right: int

    def crop(self, images: Tensor) -> Tensor:
        """[..., H, W] to [..., bottom - top, right - left]."""
        return images[..., self.top : self.bottom, self.left : self.right]


@torch.no_grad()
def deconvnet(
    features: nn.Sequential,
    images: Tensor,
    layer: Layer,
    channel: int | Tensor,
    position: tuple[int, int] | Tensor | None = None,
) -> Tensor:
    """The activation of one unit of a layer in each image, projected back to its pixels, [B, C, H, W].

    Pixels outside the unit's receptive field are exactly zero. An inactive unit (0 after a ReLU) gives zeros.

    Args:
        features: a flat sequence of the layers above, in evaluation mode; `features` of LeNet, AlexNet, ZF-Net and VGG.
        images: normalised, [B, C, H, W].
        layer: the layer with the unit: its index in the sequence, negative from the end, or its name.
        channel: one for all images, or int64 [B], one for each.
        position: (row, column) in the layer's map, for all images, or int64 [B, 2]; None is the position of the
            channel's maximum in each image.
    Raises:
        InputError: a layer is not among those above, or there is no such layer, channel or position.
    """
    x, backward_functions = images, []
    for module in _layers_up_to(features, layer):
        x, backward = _forward_and_backward(module, x)
        backward_functions.append(backward)
    channels = torch.as_tensor(channel, device=x.device).expand(len(x))
    if position is None:
        _, positions = peaks(x, channels)
    else:
        positions = torch.as_tensor(position, device=x.device).expand(len(x), 2)
    unit = (torch.arange(len(x), device=x.device), channels, *positions.unbind(dim=1))
    _check_index(x, *unit[1:])
    signal = torch.zeros_like(x)
    signal[unit] = x[unit]
    for backward in reversed(backward_functions):
        signal = backward(signal)
    return signal


@torch.no_grad()
def activations(features: nn.Sequential, images: Tensor, layer: Layer) -> Tensor:
    """A layer's map of each image, [B, C, h, w]; arguments and errors as in `deconvnet`."""
    x: Tensor = _layers_up_to(features, layer)(images)
    return x


def peaks(maps: Tensor, channel: int | Tensor) -> tuple[Tensor, Tensor]:
    """The strongest value of a channel in each map, [B], and its row and column, int64 [B, 2].

    Args:
        maps: [B, C, h, w].
        channel: one for all maps, or int64 [B], one for each.
    """
    channels = torch.as_tensor(channel, device=maps.device).expand(len(maps))
    _check_index(maps, channels)
    values, positions = maps[torch.arange(len(maps), device=maps.device), channels].flatten(1).max(dim=1)
    return values, torch.stack([positions // maps.shape[3], positions % maps.shape[3]], dim=1)


def receptive_field(
    features: nn.Sequential, layer: Layer, position: tuple[int, int], image_size: tuple[int, int]
) -> Box:
    """The receptive field of the units at a position of a layer's map, clipped to the image.

    Args:
        position: (row, column) in the layer's map.
        image_size: height and width in pixels.
    Raises:
        InputError: as in `deconvnet`.
    """
    windows = [_windows(module) for module in _layers_up_to(features, layer)]
    spans = []
    for axis, (index, side) in enumerate(zip(position, image_size, strict=True)):
        sides = [side]
        for window in windows:
            sides.append(window[axis].output_size(sides[-1]))
        if not 0 <= index < sides[-1]:
            raise InputError(f"deconvnet: position {position} is outside the map of layer {layer!r}")
        first = last = index
        for window, input_size in zip(reversed(windows), reversed(sides[:-1]), strict=True):
            first, last = window[axis].input_span(first, last, input_size)
        spans.append((first, last + 1))
    (top, bottom), (left, right) = spans
    return Box(top, left, bottom, right)


@dataclass(frozen=True, slots=True)
class _Window:
    """How a layer slides over one axis; the default is a pointwise layer."""

    extent: int = 1  # positions from the first to the last that the window covers
    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # before and after
    ceil_mode: bool = False

    def output_size(self, side: int) -> int:
        """The number of windows along a side."""
        room = side + sum(self.padding) - self.extent
        count = (-(-room // self.stride) if self.ceil_mode else room // self.stride) + 1
        # A window that would start in the padding at the end is left out, as in PyTorch.
        return count - 1 if self.ceil_mode and (count - 1) * self.stride >= side + self.padding[0] else count

    def input_span(self, first: int, last: int, side: int) -> tuple[int, int]:
        """The first and the last position on a side that the windows from `first` to `last` cover."""
        begin = first * self.stride - self.padding[0]
        end = last * self.stride - self.padding[0] + self.extent - 1
        return max(begin, 0), min(end, side - 1)


def _windows(module: nn.Module) -> tuple[_Window, _Window]:
    """How a layer slides over rows and over columns."""
    if isinstance(module, TableConvolution):
        height, width = module.kernel_size
        return _Window(height), _Window(width)
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return _Window(), _Window()
    dilation = (1, 1) if isinstance(module, nn.AvgPool2d) else _pair(module.dilation)
    extents = [(kernel - 1) * step + 1 for kernel, step in zip(_pair(module.kernel_size), dilation, strict=True)]
    if module.padding == "same":
        paddings = [((extent - 1) // 2, extent // 2) for extent in extents]
    else:
        paddings = [(pad, pad) for pad in _pair(0 if isinstance(module.padding, str) else module.padding)]
    ceil_mode = not isinstance(module, nn.Conv2d) and module.ceil_mode
    rows, columns = (
        _Window(*window, ceil_mode) for window in zip(extents, _pair(module.stride), paddings, strict=True)
    )
    return rows, columns


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else value


def _layers_up_to(features: nn.Sequential, layer: Layer) -> nn.Sequential:
    """The layers up to and including `layer`, checked to be supported."""
    if not isinstance(features, nn.Sequential):
        raise InputError(f"deconvnet: needs a flat nn.Sequential, not {type(features).__name__}; use Grad-CAM")
    names = [name for name, _ in features.named_children()]
    if isinstance(layer, str):
        if layer not in names:
            raise UnknownNameError("layer", layer, names)
        index = names.index(layer)
    else:
        if not -len(names) <= layer < len(names):
            raise InputError(f"deconvnet: there is no layer {layer}; the net has {len(names)}, from 0")
        index = layer % len(names)
    layers = features[: index + 1]
    for name, module in layers.named_children():
        if not isinstance(module, (nn.ReLU, *_PROJECTED_BY_TRANSPOSE, *_PROJECTED_UNCHANGED)):
            raise InputError(
                f"deconvnet: layer {name!r} is a {type(module).__name__}, which it cannot undo; use Grad-CAM"
            )
        if module.training:
            raise InputError("deconvnet: the model is in training mode, which changes its outputs; call eval()")
        if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
            raise InputError(f"deconvnet: layer {name!r} pads by {module.padding_mode}; only zeros can be undone")
    return layers


def _forward_and_backward(module: nn.Module, x: Tensor) -> tuple[Tensor, Backward]:
    """A layer's output, and the function that projects a signal from its output to its input."""
    if isinstance(module, nn.ReLU):
        return torch.relu(x), torch.relu  # not the module itself, which may work in place
    if isinstance(module, _PROJECTED_UNCHANGED):
        return module(x), lambda signal: signal
    output, transpose = torch.func.vjp(module, x)[:2]
    return output, lambda signal: transpose(signal)[0]


def _check_index(maps: Tensor, *index: Tensor) -> None:
    """Raises InputError if a channel, row or column is outside the maps."""
    for what, requested, count in zip(("channel", "row", "column"), index, maps.shape[1:], strict=False):
        if not 0 <= int(requested.min()) <= int(requested.max()) < count:
            raise InputError(f"deconvnet: {what}s {sorted(set(requested.tolist()))} of a map that has {count}, from 0")
