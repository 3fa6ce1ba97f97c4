"""The preset `photos` with two small nets from random weights, which train in seconds."""

from __future__ import annotations

from typing import Any

from flows.catalog import find_flow
from flows.cli.parameters_file import apply_settings, validated_model
from flows.presets import find_preset

# By the parameter of a flow that they change.
SMALL = {
    "baseline": ("baseline=null",),
    "teacher": ("teacher.model={name: resnet_small}", "teacher.image_size=64"),
    "student": (
        "student.model={name: deit_micro_distilled, kwargs: {stem: conv}}",
        "student.image_size=64",
        "student.distillation.method=token",
    ),
}


def small_photos(flow: str, *settings: str) -> Any:
    """The parameters of a flow, changed by settings such as "teacher.training.steps=2"."""
    model = find_flow(flow).parameter_model()
    values = find_preset("photos").parameters(flow).model_dump(mode="json")
    small = [setting for name, ones in SMALL.items() if name in model.model_fields for setting in ones]
    return validated_model(model, apply_settings(apply_settings(values, small), settings), "here")
