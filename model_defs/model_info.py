"""What is known about a model without building it: a row of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_defs.normalisation import Normalisation


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known about a model without building it.

    Attributes:
        name: what `create_model` takes.
        kind: "image" gives logits or features of images, "text" features of tokens, "dual" both in one space.
        year: of the paper.
        paper: author and title, short.
        image_size: the default side of its square input in pixels; None if it takes no images.
        parameters: count for the default arguments, if it is known.
        macs: multiply-accumulates of one image (or text) at that size, in convolutions and matrix products.
        top1_error, top5_error: on ImageNet's validation set, in percent, as the paper prints them.
        weights: where trained weights come from, in a few words, e.g. "torchvision VGG16_Weights".
        errors_from: where the paper prints these errors and how it tested, e.g. "table 3: ten crops"; papers differ.
        normalisation: what the weights that are usual for it, or that `weights` names, expect of pixels.
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
