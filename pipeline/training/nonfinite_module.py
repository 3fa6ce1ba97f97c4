"""The first module of a forward pass whose output is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def first_nonfinite_module(model: nn.Module) -> Iterator[list[str]]:
    """Watches the forward passes of the block; the list then has that module's name and class, or nothing.

    Modules end in the order in which their outputs exist, so the first one is also the innermost. Compiled blocks are
    not watched: hooks would compile them anew, with other roundings.
    """
    found: list[str] = []

    def watch(name: str, kind: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if not found and not all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(output)):
                found.append(f"{name} ({kind})")

        return hook

    handles = [
        module.register_forward_hook(watch(name or "the model", type(module).__name__))
        for name, module in _uncompiled(model, "")
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _uncompiled(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if module._compiled_call_impl is not None:
        return
    yield name, module
    for child_name, child in module.named_children():
        yield from _uncompiled(child, f"{name}.{child_name}" if name else child_name)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _tensors(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry)
