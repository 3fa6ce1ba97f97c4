"""Explanations by a heat map for a class: Grad-CAM and occlusion, and attention rollout, which ignores the class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.explain.attention_rollout import attention_rollout
from pipeline.explain.drawing import Panel, enlarge, overlay, to_picture
from pipeline.explain.explanation import Explanation, ExplanationRequest, Method, class_probabilities
from pipeline.explain.grad_cam import grad_cam
from pipeline.explain.occlusion import occlusion
from pipeline.exported_model import ExportedModel

_CLASS_MAPS: dict[Method, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "grad-cam": grad_cam,
    "occlusion": occlusion,
    "rollout": lambda model, images, classes: attention_rollout(model, images),
}


def explain_by_class(
    exported: ExportedModel, model: nn.Module, images: Tensor, request: ExplanationRequest, method: Method
) -> list[Explanation]:
    """A heat map over each image, for its predicted class or for the requested class."""
    x = exported.preprocessing.normalise(images)
    probabilities = class_probabilities(model, x)
    predicted = probabilities.argmax(dim=1)
    classes = predicted
    if request.class_name is not None:
        classes = torch.full_like(predicted, exported.labels.index(request.class_name))
    maps = _CLASS_MAPS[method](model, x, classes)
    if method == "rollout":
        maps = maps - maps.amin(dim=(1, 2), keepdim=True)  # the residual connection makes every weight positive
    explained = []
    for image, heat, predicted_class, shown_class, row in zip(
        images, maps, predicted.tolist(), classes.tolist(), probabilities, strict=True
    ):
        label, prediction = (
            exported.labels[shown_class],
            f"{exported.labels[predicted_class]}, {row[predicted_class]:.0%}",
        )
        heading = (
            prediction
            if predicted_class == shown_class
            else f"{label}, {row[shown_class]:.0%} (prediction: {prediction})"
        )
        shown = to_picture(image)
        drawn = overlay(enlarge(shown), (heat.clamp(min=0) / heat.max().clamp(min=1e-12)).numpy())
        panels = (Panel("image", shown), Panel(label if method != "rollout" else "attention", drawn))
        explained.append(
            Explanation(method, exported.labels[predicted_class], float(row[predicted_class]), heading, panels)
        )
    return explained
