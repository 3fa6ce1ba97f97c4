"""The cost of a model: its parameters, and its multiply-accumulates for one input.

Multiply-accumulates (MACs) are counted for convolutions, linear layers and matrix products, including the two products
of attention, but not for norms, activations, pooling and additions, as in the papers' tables. Papers and libraries that
also omit the products of attention report less for transformers: ViT-B/16 has 17.56 G here and 16.85 G there.

Everything is computed from shapes on the meta device: no weight is read, no memory is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from model_defs.registry import create_model


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A module with its submodules, or a parameter that a module owns directly.

    Attributes:
        path: its name from the model's root, e.g. "layer1.0.conv1"; "" is the model.
        type: the class; "3 x Bottleneck" for a sequence of one class; "Parameter" for a parameter.
        shape: shape of its output for one input; None if evaluation never calls it or its output is not a tensor.
        parameters, macs: totals including all submodules.
    """

    path: str
    type: str
    shape: tuple[int, ...] | None
    parameters: int
    macs: int


def on_meta(name: str, **kwargs: Any) -> nn.Module:
    """The model that `create_model` would build, in eval mode, with shapes and no weights."""
    with torch.device("meta"):
        return create_model(name, **kwargs).eval()


def count_parameters(model: nn.Module) -> int:
    """The number of parameter elements; a shared parameter counts once, buffers do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module | str, **kwargs: Any) -> int:
    """Multiply-accumulates of one image, one text of full length, or one pair of them, in evaluation.

    Args:
        model: a model on any device, or the name of one.
        kwargs: arguments of `create_model`, if `model` is a name.
    """
    model = on_meta(model, **kwargs) if isinstance(model, str) else model
    with _ProductCounter() as counter:
        _forward(model)
    return counter.macs


def layer_table(name: str, **kwargs: Any) -> list[LayerRow]:
    """A row for each module, and for each parameter of a module with submodules; parents come before children."""
    model = on_meta(name, **kwargs)
    shapes: dict[str, tuple[int, ...]] = {}
    counter = FlopCounterMode(display=False)
    with _recording(model, shapes), counter:
        _forward(model)
    flops = {path: sum(by_op.values()) for path, by_op in counter.get_flop_counts().items()}
    root = type(model).__name__
    rows = []
    for path, module in model.named_modules():
        count = count_parameters(module)
        macs = flops.get(f"{root}.{path}" if path else root, 0) // 2
        rows.append(LayerRow(path, _type(module), shapes.get(path), count, macs))
        if next(module.children(), None) is not None:
            rows += [
                LayerRow(
                    f"{path}.{parameter_name}".lstrip("."), "Parameter", tuple(parameter.shape), parameter.numel(), 0
                )
                for parameter_name, parameter in module.named_parameters(recurse=False)
            ]
    return rows


def rows_at(rows: Sequence[LayerRow], depth: int) -> list[LayerRow]:
    """The rows `depth` levels below the model, and leaves above them: together they cover the whole model.

    The computation of a module outside its submodules (e.g. the products of attention) has a row "... itself".
    """
    shown = []
    inside: dict[str, list[LayerRow]] = {}
    for row in rows[1:]:
        inside.setdefault(row.path.rpartition(".")[0], []).append(row)
    for row in rows:
        level = row.path.count(".") + 1 if row.path else 0
        submodules = inside.get(row.path, ())
        if level == depth or (level < depth and not submodules):
            shown.append(row)
        elif level < depth and (own_macs := row.macs - sum(submodule.macs for submodule in submodules)):
            shown.append(LayerRow(f"{row.path} itself".lstrip(), row.type, row.shape, 0, own_macs))
    return shown


def example_inputs(model: nn.Module) -> tuple[Tensor, ...]:
    """One input on the meta device: an image [1, C, H, W], tokens [1, L], or both."""
    inputs: list[Tensor] = []
    side = getattr(model, "img_size", None)
    if isinstance(side, int):
        first = model.get_submodule(str(model.first_conv_name))
        assert isinstance(first, nn.Conv2d)
        inputs.append(torch.empty(1, first.in_channels, side, side, device="meta"))
    length = getattr(model, "context_length", None)
    if isinstance(length, int):
        inputs.append(torch.empty(1, length, dtype=torch.int64, device="meta"))
    return tuple(inputs)


class _ProductCounter(TorchDispatchMode):
    """Sums up the multiply-accumulates of the operations that run in its context.

    PyTorch's FlopCounterMode also tracks modules and takes a third more time. Batch norm is skipped: on the meta
    device it decomposes into a dozen operations, half of the time of a convolutional net.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten.native_batch_norm:
            x: Tensor = args[0]
            return torch.empty_like(x), x.new_empty(0), x.new_empty(0)
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.macs += formula(*args, **(kwargs or {}), out_val=out) // 2
        return out


def _forward(model: nn.Module) -> None:
    """Runs one forward pass with meta tensors in place of the model's weights."""
    shapes = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    with _evaluating(model), torch.no_grad():
        functional_call(model, shapes, example_inputs(model))


def _type(module: nn.Module) -> str:
    classes = {type(child).__name__ for child in module.children()}
    if isinstance(module, nn.Sequential | nn.ModuleList) and len(classes) == 1:
        return f"{len(module)} x {classes.pop()}"
    return type(module).__name__


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _recording(model: nn.Module, shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    """Records the output shape of each module at its first call."""

    def record(path: str, output: object) -> None:
        if isinstance(output, Tensor):
            shapes.setdefault(path, tuple(output.shape))

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, path=path: record(path, output))
        for path, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
