"""Top activations: the images of a data set with the highest activation of a channel, and their projections.

Zeiler, Fergus 2013, section 4 and figure 2: nine images per channel, one position per image; next to each patch its
projection by deconvnet. What the patches have in common is what the channel detects; the projections show by which
pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.explain.deconvnet import Box, Layer, activations, deconvnet, receptive_field


@dataclass(frozen=True, slots=True)
class Excitation:
    """The position in one image with the highest activation of a channel.

    Attributes:
        image_id: id of the image in the data set.
        value: the activation, > 0.
        position: (row, column) in the layer's map.
        box: the receptive field of this unit.
        patch: the normalised image in the box, [C, h, w].
        projection: of the activation, in the same box, [C, h, w]; outside the box it is zero.
    """

    image_id: int
    value: float
    position: tuple[int, int]
    box: Box
    patch: Tensor
    projection: Tensor


@dataclass(frozen=True, slots=True)
class TopActivations:
    """The top activations of one channel.

    Attributes:
        channel: index in the layer.
        excitations: the strongest first; fewer than k if fewer images activate the channel.
    """

    channel: int
    excitations: tuple[Excitation, ...]


def top_activations(
    features: nn.Sequential,
    batches: Iterable[tuple[Tensor, Tensor]],
    layer: Layer,
    channels: Sequence[int],
    k: int = 9,
) -> list[TopActivations]:
    """For each channel the k images with the highest activations, in the order of `channels`.

    Each image counts once, by its maximum; of equal maxima the earlier image comes first. Memory holds one batch and
    at most k images per channel, regardless of the size of the data set.

    Args:
        features: a sequence of layers that `deconvnet` supports, in evaluation mode.
        batches: images [B, C, H, W], normalised and all of one size, with their ids [B].
        layer: its index in the sequence, negative from the end, or its name.
    Raises:
        InputError: as in `deconvnet`, or k is less than 1.
    """
    if k < 1:
        raise InputError(f"top activations: k must be 1 or more, not {k}")
    best = [_StrongestImages(channel) for channel in channels]
    top_images: dict[int, tuple[Tensor, int]] = {}  # images among the best of a channel, by their number in the stream
    seen = 0
    for images, ids in batches:
        maps = activations(features, images, layer)
        if not 0 <= min(channels) <= max(channels) < maps.shape[1]:
            raise InputError(f"top activations: channels {list(channels)} of a layer that has {maps.shape[1]}, from 0")
        for strongest in best:
            strongest.add(maps[:, strongest.channel], seen, k)
        wanted = {index for strongest in best for index in strongest.indices.tolist()}
        top_images = {index: top_images[index] for index in top_images.keys() & wanted}
        for index in sorted(wanted - top_images.keys()):
            top_images[index] = (images[index - seen].clone(), int(ids[index - seen]))
        seen += len(images)
    return [
        TopActivations(strongest.channel, _excitations(features, layer, strongest, top_images)) for strongest in best
    ]


class _StrongestImages:
    """The strongest values of a channel so far with their positions and image numbers, strongest first."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.values = torch.empty(0)
        self.indices = torch.empty(0, dtype=torch.int64)
        self.positions = torch.empty(0, 2, dtype=torch.int64)

    def add(self, maps: Tensor, first: int, k: int) -> None:
        """Adds the maps [B, h, w] of the images from number `first` on."""
        values, flat = (tensor.cpu() for tensor in maps.flatten(1).max(dim=1))
        positions = torch.stack([flat // maps.shape[2], flat % maps.shape[2]], dim=1)
        is_active = values > 0
        values = torch.cat([self.values, values[is_active].float()])
        indices = torch.cat([self.indices, first + is_active.nonzero()[:, 0]])
        order = values.argsort(descending=True, stable=True)[:k]
        self.values, self.indices = values[order], indices[order]
        self.positions = torch.cat([self.positions, positions[is_active]])[order]


def _excitations(
    features: nn.Sequential, layer: Layer, best: _StrongestImages, top_images: dict[int, tuple[Tensor, int]]
) -> tuple[Excitation, ...]:
    if not len(best.indices):
        return ()
    images = torch.stack([top_images[index][0] for index in best.indices.tolist()])
    projections = deconvnet(features, images, layer, best.channel, best.positions)
    excitations = []
    for number, index in enumerate(best.indices.tolist()):
        row, column = best.positions[number].tolist()
        box = receptive_field(features, layer, (row, column), (images.shape[2], images.shape[3]))
        excitations.append(
            Excitation(
                image_id=top_images[index][1],
                value=best.values[number].item(),
                position=(row, column),
                box=box,
                patch=box.crop(images[number]),
                projection=box.crop(projections[number]),
            )
        )
    return tuple(excitations)
