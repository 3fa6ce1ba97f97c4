"""Top activations: the images of a data set that excite a channel most, and what in each of them did it.

Zeiler, Fergus 2013, section 4 and figure 2: nine images a channel, one place an image; beside each patch its projection
by deconvnet. Alike patches tell what a channel is after, their projections which part of them counts.
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
    """The place in one image that excites a channel most.

    Attributes:
        image_id: as the data set gave it.
        value: of the activation, > 0.
        position: (row, column) in the layer's map.
        box: the pixels that this unit sees.
        patch: the image there, normalised as it was given, [C, h, w] of the box.
        projection: of that activation, cut to the same box, [C, h, w]; outside it is zero.
    """

    image_id: int
    value: float
    position: tuple[int, int]
    box: Box
    patch: Tensor
    projection: Tensor


@dataclass(frozen=True, slots=True)
class TopActivations:
    """What excites a channel.

    Attributes:
        channel: of the layer.
        excitations: the strongest first; fewer than asked for if no more images excite the channel at all.
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
    """For each channel the k images with the strongest activation, in the order of `channels`.

    Each image counts once, by its maximum; of equal ones the earlier image comes first. Memory holds one batch and at
    most k images a channel, however long the data set is.

    Args:
        features: a row of layers that `deconvnet` can walk, in evaluation.
        batches: images [B, C, H, W], normalised and all of one size, with their ids [B].
        layer: its place in the row, from the end if negative, or its name.
    Raises:
        InputError: as in `deconvnet`, or k is less than 1.
    """
    if k < 1:
        raise InputError(f"top activations: k must be 1 or more, not {k}")
    best = [_Best(channel) for channel in channels]
    kept: dict[
        int, tuple[Tensor, int]
    ] = {}  # images that are among the best of a channel, by their place in the stream
    seen = 0
    for images, ids in batches:
        maps = activations(features, images, layer)
        if not 0 <= min(channels) <= max(channels) < maps.shape[1]:
            raise InputError(f"top activations: channels {list(channels)} of a layer that has {maps.shape[1]}, from 0")
        for of_channel in best:
            of_channel.add(maps[:, of_channel.channel], seen, k)
        wanted = {index for of_channel in best for index in of_channel.indices.tolist()}
        kept = {index: kept[index] for index in kept.keys() & wanted}
        for index in sorted(wanted - kept.keys()):
            kept[index] = (images[index - seen].clone(), int(ids[index - seen]))
        seen += len(images)
    return [TopActivations(of.channel, _excitations(features, layer, of, kept)) for of in best]


class _Best:
    """The strongest values of a channel so far, where in their maps they are and in which images, strongest first."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.values = torch.empty(0)
        self.indices = torch.empty(0, dtype=torch.int64)
        self.positions = torch.empty(0, 2, dtype=torch.int64)

    def add(self, maps: Tensor, first: int, k: int) -> None:
        """Takes in maps [B, h, w] of the images from number `first` on."""
        values, places = (tensor.cpu() for tensor in maps.flatten(1).max(dim=1))
        positions = torch.stack([places // maps.shape[2], places % maps.shape[2]], dim=1)
        excited = values > 0
        values = torch.cat([self.values, values[excited].float()])
        indices = torch.cat([self.indices, first + excited.nonzero()[:, 0]])
        order = values.argsort(descending=True, stable=True)[:k]
        self.values, self.indices = values[order], indices[order]
        self.positions = torch.cat([self.positions, positions[excited]])[order]


def _excitations(
    features: nn.Sequential, layer: Layer, best: _Best, kept: dict[int, tuple[Tensor, int]]
) -> tuple[Excitation, ...]:
    if not len(best.indices):
        return ()
    images = torch.stack([kept[index][0] for index in best.indices.tolist()])
    projections = deconvnet(features, images, layer, best.channel, best.positions)
    excitations = []
    for number, index in enumerate(best.indices.tolist()):
        row, column = best.positions[number].tolist()
        box = receptive_field(features, layer, (row, column), (images.shape[2], images.shape[3]))
        excitations.append(
            Excitation(
                image_id=kept[index][1],
                value=best.values[number].item(),
                position=(row, column),
                box=box,
                patch=box.crop(images[number]),
                projection=box.crop(projections[number]),
            )
        )
    return tuple(excitations)
