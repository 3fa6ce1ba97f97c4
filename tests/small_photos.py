"""Small photos, and the preset `photos` with two small nets from random weights, which train in seconds."""

from __future__ import annotations

from pathlib import Path
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


def draw_photos(folder: Path) -> None:
    """40 red and 40 blue pictures of 64 blocks each, no two alike, in folders of their colour."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, tint in {"red": (255, 60, 60), "blue": (60, 60, 255)}.items():
        (folder / label).mkdir(parents=True)
        for number in range(40):
            blocks = rng.random((8, 8, 1)) * tint
            picture = Image.fromarray(blocks.astype("uint8")).resize((64, 64), Image.Resampling.NEAREST)
            picture.save(folder / label / f"{number}.png")
