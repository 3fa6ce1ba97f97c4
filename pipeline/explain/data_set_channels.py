"""The patches of a data set with the highest activations of a net's channels.

Figure 2 of Zeiler & Fergus 2013: nine patches per channel, next to their projections by deconvnet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.explain.channel_explanations import last_activation, supports_deconvnet
from pipeline.explain.deconvnet import Layer, activations
from pipeline.explain.drawing import PAPER, Panel, Picture, signed_picture, to_picture
from pipeline.explain.top_activations import Excitation, TopActivations, top_activations
from pipeline.exported_model import ExportedModel
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.index import SampleIndex

PATCHES = 9  # per channel
_GRID = 3  # patches along a side of a panel
_TILE = 104  # pixels
_GAP = 4
_BATCH_SIZE = 64

CAPTION = (
    "Top activations (Zeiler & Fergus 2013): the nine images with the highest activation of a channel, cut to its "
    "receptive field; next to them these activations projected back to pixels (grey is zero)."
)


def spread_evenly(rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` of the rows, evenly spaced from the first to the last."""
    if len(rows) <= limit:
        return rows
    return rows[np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)]


def channel_panels(
    exported: ExportedModel,
    reader: SampleReader,
    index: SampleIndex,
    rows: NDArray[np.int64],
    *,
    layer: Layer | None = None,
    channels: int = PATCHES,
    threads: int = 2,
) -> tuple[Layer, list[Panel]]:
    """The explained layer, and two panels per channel: patches and projections.

    The channels shown are those with the highest mean of their nine strongest activations. The images are read twice,
    with one batch in memory at a time.

    Args:
        rows: ids of the images to search.
        layer: index or name in the net's sequence of layers; None is the last activation layer.
        channels: maximum number of channels shown.
    Raises:
        InputError: the net is not one sequence of layers, has no such layer, or no image activates the layer.
    """
    model = exported.build()
    preprocessing = exported.preprocessing
    size = preprocessing.image_size
    device = next(model.parameters()).device
    if not supports_deconvnet(model, torch.zeros(1, preprocessing.channels, size, size, device=device)):
        raise InputError(
            f"explain: top-activations does not fit {exported.architecture}; use it for nets of one sequence of layers"
        )
    features = model.features
    assert isinstance(features, nn.Sequential)
    layer = last_activation(features) if layer is None else layer

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in evaluation_batches(
            reader,
            index,
            rows,
            image_size=size,
            channels=preprocessing.channels,
            batch_size=_BATCH_SIZE,
            threads=threads,
        ):
            yield preprocessing.normalise(batch.images.to(device)), batch.ids

    chosen = _most_active_channels(features, batches(), layer, channels)
    panels = []
    for top in top_activations(features, batches(), layer, chosen, PATCHES):
        panels += _pair(top, preprocessing.mean, preprocessing.std)
    return layer, panels


def _most_active_channels(
    features: nn.Sequential, batches: Iterator[tuple[Tensor, Tensor]], layer: Layer, count: int
) -> list[int]:
    """The channels with the highest top activations, strongest first; never activated channels are left out."""
    best: Tensor | None = None  # [k, channels]
    for images, _ in batches:
        strongest = activations(features, images, layer).amax(dim=(2, 3))
        candidates = strongest if best is None else torch.cat([best, strongest])
        best = candidates.topk(min(PATCHES, len(candidates)), dim=0).values
    if best is None:
        raise InputError("explain: there are no images to search")
    mean = best.clamp(min=0).mean(dim=0)
    order = mean.argsort(descending=True, stable=True)[:count].tolist()
    active = [channel for channel in order if mean[channel] > 0]
    if not active:
        raise InputError(f"explain: no image activates any channel of layer {layer}; choose another layer")
    return active


def _pair(top: TopActivations, mean: Sequence[float], std: Sequence[float]) -> list[Panel]:
    patches = [_image(excitation, mean, std) for excitation in top.excitations]
    projections = [signed_picture(excitation.projection) for excitation in top.excitations]
    low, high = top.excitations[-1].value, top.excitations[0].value
    return [
        Panel(f"channel {top.channel}   {low:.2g} to {high:.2g}", _mosaic(patches)),
        Panel("projections", _mosaic(projections)),
    ]


def _image(excitation: Excitation, mean: Sequence[float], std: Sequence[float]) -> Picture:
    """The patch with its normalisation undone."""
    shape = (-1, 1, 1)
    patch = excitation.patch.cpu()
    pixels = patch * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    return to_picture((pixels.clamp(0, 1) * 255).round().to(torch.uint8))


def _mosaic(pictures: Sequence[Picture]) -> Picture:
    """At most nine pictures as three rows of three tiles."""
    side = _GRID * _TILE + (_GRID - 1) * _GAP
    pixels = np.array(Image.new("RGB", (side, side), PAPER))
    for number, small in enumerate(pictures):
        shown = _fit_to_tile(small)
        row, column = divmod(number, _GRID)
        top = row * (_TILE + _GAP) + (_TILE - shown.shape[0]) // 2
        left = column * (_TILE + _GAP) + (_TILE - shown.shape[1]) // 2
        pixels[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return pixels


def _fit_to_tile(small: Picture) -> Picture:
    """The picture resized so that its longer side equals the side of a tile."""
    height, width = small.shape[:2]
    factor = _TILE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))
