"""The properties of a model that are known without building it: a row of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_defs.normalisation import Normalisation


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The properties of a model that are known without building it.

    Attributes:
        name: the name for `create_model`.
        kind: "image" returns logits or features of images, "text" features of tokens, "dual" both in one space.
        year: year of the paper.
        paper: author and title, short.
        image_size: the default side of its square input in pixels; None if it takes no images.
        parameters: count for the default arguments, if known.
        macs: multiply-accumulates of one image (or text) at that size, in convolutions and matrix products.
        top1_error, top5_error: on ImageNet's validation set, in percent, as reported in the paper.
        weights: the source of trained weights, in a few words, e.g. "torchvision VGG16_Weights".
        errors_from: the table of these errors and the test protocol, e.g. "table 3: ten crops"; papers differ.
        normalisation: the pixel normalisation that `weights` expect; without them, that of the weights in common use.
    """

    name: str
    kind: Literal["image", "text", "dual"]
    year: int
    paper: str
    image_size: int | None = None
    parameters: int | None = None
    macs: int | None = None
    top1_error: float | None = None
    top5_error: float | None = None
    weights: str | None = None
    errors_from: str | None = None
    normalisation: Normalisation | None = None
