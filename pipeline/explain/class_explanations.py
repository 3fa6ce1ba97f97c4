"""Explanations by a map of an image for a class: Grad-CAM, occlusion, and rollout, which knows no class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.explain.attention_rollout import attention_rollout
from pipeline.explain.drawing import Panel, enlarged, overlay, picture
from pipeline.explain.explanation import Explanation, Method, Request, answers
from pipeline.explain.grad_cam import grad_cam
from pipeline.explain.occlusion import occlusion
from pipeline.exported_model import ExportedModel

_CLASS_MAPS: dict[Method, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "grad-cam": grad_cam,
    "occlusion": occlusion,
    "rollout": lambda model, images, classes: attention_rollout(model, images),
}


def explain_by_class(
    exported: ExportedModel, model: nn.Module, images: Tensor, request: Request, method: Method
) -> list[Explanation]:
    """A map of each image for its own answer, or for the class that was asked about."""
    x = exported.preprocessing.normalise(images)
    probabilities = answers(model, x)
    own_answers = probabilities.argmax(dim=1)
    asked = own_answers
    if request.class_name is not None:
        asked = torch.full_like(own_answers, exported.labels.index(request.class_name))
    maps = _CLASS_MAPS[method](model, x, asked)
    if method == "rollout":
        maps = maps - maps.amin(dim=(1, 2), keepdim=True)  # no share is 0
    explained = []
    for image, heat, own, wanted, row in zip(
        images, maps, own_answers.tolist(), asked.tolist(), probabilities, strict=True
    ):
        label, told = exported.labels[wanted], f"{exported.labels[own]}, {row[own]:.0%}"
        heading = told if own == wanted else f"{label}, {row[wanted]:.0%} (its answer: {told})"
        shown = picture(image)
        drawn = overlay(enlarged(shown), (heat.clamp(min=0) / heat.max().clamp(min=1e-12)).numpy())
        panels = (Panel("image", shown), Panel(label if method != "rollout" else "where it looks", drawn))
        explained.append(Explanation(method, exported.labels[own], float(row[own]), heading, panels))
    return explained
