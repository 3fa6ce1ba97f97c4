"""The request for an explanation, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.explain.drawing import Panel

Method = Literal["deconvnet", "grad-cam", "rollout", "patch-text", "occlusion"]

CAPTIONS: dict[Method, str] = {
    "deconvnet": "Deconvnet (Zeiler & Fergus 2013): below, the receptive fields of the strongest channels; above, "
    "their activations projected back to pixels (grey is zero).",
    "grad-cam": "Grad-CAM (Selvaraju et al. 2017): evidence for the class in the last feature map; darker is more.",
    "rollout": "Attention rollout (Abnar & Zuidema 2020): the share of each patch in the token that is classified. It "
    "does not depend on the class.",
    "patch-text": "Cosine similarity of each patch with a text, without the last attention (Zhou et al. 2022). All "
    "maps of an image have one scale.",
    "occlusion": "Occlusion (Zeiler & Fergus 2013): the fall of the class's log-probability when a region is covered; "
    "darker is more.",
}


@dataclass(frozen=True)
class ExplanationRequest:
    """The options of an explanation.

    Attributes:
        class_name: the class to explain; None is the predicted class of each image.
        prompts: texts for a dual encoder; empty: the labels with the highest scores.
        layer: index or name in `features`, for a net of one sequence of layers; None is the last activation layer.
        channels: number of that layer's most active channels to show; None is five.
    """

    class_name: str | None = None
    prompts: tuple[str, ...] = ()
    layer: int | str | None = None
    channels: int | None = None


@dataclass(frozen=True)
class Explanation:
    """The explanation of a prediction for one image.

    Attributes:
        answer: the model's prediction, a label or text.
        score: probability of the prediction; for a dual encoder its cosine.
        heading: the subject of the panels, in a few words.
        panels: the image, then the drawings of the method.
    """

    method: Method
    answer: str
    score: float
    heading: str
    panels: tuple[Panel, ...]

    @property
    def caption(self) -> str:
        """How to read the panels, and the source of the method."""
        return CAPTIONS[self.method]


def class_probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """Probabilities of the labels, [B, K]."""
    with torch.no_grad():
        probabilities: Tensor = model(x).float().softmax(dim=1)
    return probabilities
