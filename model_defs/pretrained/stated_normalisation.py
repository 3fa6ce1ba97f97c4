"""The normalisation stated in files next to weights: our exports, timm, open_clip, transformers.

preprocessing.json          {"mean", "std"}                       an exported model; see architecture.json
config.json                 {"pretrained_cfg": {"mean", "std"}}   timm
open_clip_config.json       {"preprocess_cfg": {"mean", "std"}}   open_clip, OpenAI's CLIP
preprocessor_config.json    {"image_mean", "image_std"}           transformers; neither if do_normalize is false

The images of an exported model whose architecture.json sets transform_input are normalised again by its net. What is
returned here is the normalisation after that.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from model_defs.errors import ModelError
from model_defs.normalisation import Normalisation, after_transform_input

EXPORTED, ARCHITECTURE = "preprocessing.json", "architecture.json"
FILES = (EXPORTED, "config.json", "open_clip_config.json", "preprocessor_config.json")
_SECTIONS = ("pretrained_cfg", "preprocess_cfg")
_NAMES = (("mean", "std"), ("image_mean", "image_std"))


def find_stated_normalisation(weights: Path) -> Normalisation | None:
    """The normalisation stated in the folder of a file of weights; None if none is stated.

    Raises:
        ModelError: a file cannot be read.
    """
    candidates = (weights.parent / name for name in FILES)
    return next((stated for path in candidates if path.is_file() and (stated := read_stated_normalisation(path))), None)


def read_stated_normalisation(file: Path) -> Normalisation | None:
    """The normalisation stated in one of FILES; for EXPORTED, ARCHITECTURE must be next to it.

    Raises:
        ModelError: a file cannot be read.
    """
    content = _read(file)
    if not isinstance(content, dict):
        return None
    origin = f"{file.name} of the weights"
    if content.get("do_normalize") is False:
        return Normalisation((0.0,), (1.0,), origin)
    factor = content.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        raise ModelError(f"{file}: rescale_factor is {factor}, so mean and std are not for pixels in 0..1; set both")
    for section in (content, *(content.get(name) for name in _SECTIONS)):
        if not isinstance(section, dict):
            continue
        for mean_name, std_name in _NAMES:
            mean, std = _numbers(section.get(mean_name)), _numbers(section.get(std_name))
            if mean and len(mean) == len(std):
                stated = Normalisation(mean, std, origin)
                if file.name == EXPORTED and _transforms_input(file.with_name(ARCHITECTURE)):
                    stated = after_transform_input(stated)
                    return replace(stated, origin=f"{origin}, whose model has transform_input")
                return stated
    return None


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({error}); set mean and std to do without it") from None


def _transforms_input(architecture: Path) -> bool:
    """Whether the net of an exported model, or the image backbone of a dual encoder, has transform_input."""
    content = _read(architecture) if architecture.is_file() else {}
    kwargs = _mapping(_mapping(content).get("kwargs"))
    return bool(kwargs.get("transform_input") or _mapping(kwargs.get("image_kwargs")).get("transform_input"))


def _mapping(value: Any) -> dict[str, Any]:
    """The value; {} if it is not a mapping."""
    return value if isinstance(value, dict) else {}


def _numbers(value: Any) -> tuple[float, ...]:
    """The value as numbers; empty if it is not a list of numbers."""
    values = value if isinstance(value, list) else [value]
    return tuple(map(float, values)) if all(type(number) in (int, float) for number in values) else ()
