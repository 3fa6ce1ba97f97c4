"""Model names: registered once, looked up with suggestions for unknown names, built on demand.

A name stands for a builder, given as a function or as "module:function". The latter is imported when
the model is first built, so that listing models does not import torch.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_defs.arguments import check_arguments
from model_defs.errors import ArgumentError, ModelError
from model_defs.model_info import ModelInfo

if TYPE_CHECKING:
    from torch import nn

Builder = Callable[..., "nn.Module"]


@dataclass(frozen=True, slots=True)
class _Entry:
    info: ModelInfo
    builder: str | Builder
    fixed: dict[str, Any]

    def load(self) -> Builder:
        if not isinstance(self.builder, str):
            return self.builder
        module, _, function = self.builder.partition(":")
        builder: Builder = getattr(importlib.import_module(module), function)
        return builder

    def location(self) -> str:
        return self.builder if isinstance(self.builder, str) else f"{self.builder.__module__}:{self.builder.__name__}"


_models: dict[str, _Entry] = {}
_TIMM = "timm/"  # any model of timm, if it is installed


def register_model(info: ModelInfo, builder: str | Builder, **fixed: Any) -> None:
    """Registers `builder` as `info.name`.

    Args:
        builder: a function, or "module:function", of keyword arguments. For an image model it takes
            num_classes, in_chans and img_size (None: its default), for a dual encoder the last two.
        fixed: arguments that the name implies, e.g. layers=18; `create_model` rejects them.
    Raises:
        ModelError: the name is already registered.
    """
    if info.name in _models:
        raise ModelError(f"model {info.name!r} is registered already, by {_models[info.name].location()}")
    _models[info.name] = _Entry(info, builder, fixed)


def list_models(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_models, pattern))


def model_info(name: str) -> ModelInfo:
    """The catalogue's row of a model.

    Raises:
        ModelError: there is none of this name; similar names are listed.
    """
    return _find(name).info


def create_model(
    name: str,
    /,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | None = None,
    pretrained: str | Path | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A new model, with random or trained weights.

    Args:
        num_classes: width of the head; 0 returns features [B, num_features] instead of logits.
        in_chans: channels of the images.
        img_size: side of the square images in pixels; None is the model's default.
        pretrained: source of trained weights: "DEFAULT" for the catalogue's source, a torchvision name, a file
            or folder, hf:ORG/NAME, models:/NAME@alias (see model_defs.pretrained). They are fitted to the arguments;
            the report is logged, and `load_pretrained` returns it.
        kwargs: further arguments of the model, e.g. depth=4.
    Raises:
        ArgumentError: the model has no such argument, or does not accept its value.
        ModelError: no such model, arguments that do not fit each other, or weights of another model.
    """
    model = _new_model(name, num_classes=num_classes, in_chans=in_chans, img_size=img_size, **kwargs)
    if pretrained is not None:
        from model_defs.pretrained import load_pretrained
        from model_defs.pretrained.sources import DEFAULT, default_source

        load_pretrained(model, default_source(model_info(name)) if pretrained == DEFAULT else pretrained)
    return model


def _new_model(name: str, /, *, num_classes: int, in_chans: int, img_size: int | None, **kwargs: Any) -> nn.Module:
    entry = _find(name)
    info, builder = entry.info, entry.load()
    if info.kind == "image":
        kwargs = {"num_classes": num_classes, "in_chans": in_chans, "img_size": img_size, **kwargs}
    else:
        _require(num_classes in (0, 1000), f"model {name!r}: has no classes, so it takes no num_classes")
        if info.kind == "dual":
            kwargs = {"in_chans": in_chans, "img_size": img_size, **kwargs}
        else:
            _require(
                in_chans == 3 and img_size is None,
                f"model {name!r}: takes no images, so neither in_chans nor img_size",
            )
    _check_names(name, builder, entry.fixed, kwargs)
    check_arguments(name, builder, kwargs)
    return builder(**entry.fixed, **kwargs)


def _find(name: str) -> _Entry:
    if name.startswith(_TIMM):
        info = ModelInfo(name, "image", 2019, "Wightman, PyTorch Image Models", weights="timm")
        return _Entry(info, "model_defs.timm_models:timm_model", {"name": name.removeprefix(_TIMM)})
    if name not in _models:
        raise ModelError(f"unknown model {name!r}{_near(name, _models)}")
    return _models[name]


def _check_names(name: str, builder: Builder, fixed: dict[str, Any], kwargs: dict[str, Any]) -> None:
    parameters = inspect.signature(builder).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    free = set(parameters) - set(fixed)
    for key in kwargs:
        if key in fixed:
            raise ArgumentError(name, key, "the name of the model fixes it; leave it out")
        if not open_ended and key not in free:
            raise ArgumentError(name, key, f"no such argument{_near(key, free)}")
    for key in sorted(free - set(kwargs)):
        if parameters[key].default is parameters[key].empty and parameters[key].kind is parameters[key].KEYWORD_ONLY:
            raise ArgumentError(name, key, "has no default; give it")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(message)


def _near(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(names)}"
