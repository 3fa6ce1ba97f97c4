"""A rank's part of a tensor that FSDP divides among the ranks.

On the device it is a DTensor. In host memory, for checkpoints and the best weights of early stopping, a part is a plain
tensor with the fields of torch's CheckpointableTensor (global_shape, global_offsets, local_offsets, local_sizes), by
which torch.distributed.checkpoint knows its place in the whole tensor.

Each function leaves a tensor that is not divided as it is, so that callers need not know how a model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def is_divided(value: Any) -> bool:
    """Whether `value` is a DTensor; without torch.distributed.tensor, whose import takes a while."""
    return hasattr(value, "device_mesh")


def is_part(value: Any) -> bool:
    """Whether `value` is a part in host memory."""
    return hasattr(value, "global_shape")


def global_shape(value: Tensor) -> torch.Size:
    """The shape of the whole tensor, also of a part in host memory."""
    return torch.Size(getattr(value, "global_shape", value.shape))


def local(value: Tensor) -> Tensor:
    """This rank's part on the device, in the same memory."""
    return value.to_local() if is_divided(value) else value  # type: ignore[attr-defined]


def whole(value: Tensor) -> Tensor:
    """The whole tensor, on every rank; every rank must call it. For scalars."""
    return value.full_tensor() if is_divided(value) else value  # type: ignore[attr-defined]


def on_host(value: Tensor) -> Tensor:
    """A copy in host memory of a tensor, or of this rank's part of it; a part in host memory stays as it is."""
    if is_part(value):
        return value
    if not is_divided(value):
        return value.detach().to("cpu", copy=True)
    offsets, _ = _place(value)
    return _as_part(local(value.detach()).to("cpu", copy=True), value.shape, offsets)


def empty_on_host(target: Tensor) -> Tensor:
    """An uninitialised tensor in host memory for the part that this rank has of `target`."""
    if not is_divided(target):
        return torch.empty_like(target, device="cpu")
    offsets, sizes = _place(target)
    return _as_part(torch.empty(sizes, dtype=target.dtype), target.shape, offsets)


def part_of(target: Tensor, value: Tensor) -> Tensor:
    """The part in host memory of `value`, a whole tensor there, that this rank has of `target`."""
    if not is_divided(target) or is_part(value):
        return value
    offsets, sizes = _place(target)
    box = tuple(slice(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))
    return _as_part(value[box].clone(), target.shape, offsets)


def divided_as(target: Any, value: Tensor) -> Tensor:
    """`value`, a whole tensor or the part in host memory, divided among the ranks as `target` is."""
    if not is_divided(target):
        return value
    from torch.distributed.tensor import DTensor

    part = part_of(target, value).to(local(target).device, copy=True)
    divided: Tensor = DTensor.from_local(
        part, target.device_mesh, target.placements, run_check=False, shape=target.shape, stride=target.stride()
    )
    return divided


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """`model.load_state_dict`, with whole tensors or parts."""
    targets = model.state_dict()
    model.load_state_dict(
        {name: divided_as(targets[name], value) if name in targets else value for name, value in weights.items()}
    )


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """`optimizer.load_state_dict`, with whole tensors or parts; what has a parameter's shape is divided as it is.

    The optimiser keeps its kernel, which may not know divided parameters, or be faster for whole ones.
    """
    parameters = optimizer_parameters(optimizer)
    placed = {
        index: {
            name: divided_as(parameters[index], value)
            if isinstance(value, Tensor) and global_shape(value) == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    groups = [
        {**loaded, **{name: own[name] for name in ("fused", "foreach") if name in own}}
        for own, loaded in zip(optimizer.param_groups, state["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({**state, "state": placed, "param_groups": groups})


def optimizer_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters by their number in the optimiser's state dict."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _place(value: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Offsets and sizes of this rank's part within the whole."""
    (chunk,) = value.__create_chunk_list__()
    return tuple(chunk.offsets), tuple(chunk.sizes)


def _as_part(part: Any, shape: torch.Size, offsets: tuple[int, ...]) -> Tensor:
    there = [offsets] if part.numel() else []  # of a tensor with fewer rows than ranks, some have nothing
    part.global_shape = tuple(shape)
    part.global_offsets = tuple(there)
    part.local_offsets = tuple((0,) * part.ndim for _ in there)
    part.local_sizes = tuple(tuple(part.shape) for _ in there)
    placed: Tensor = part
    return placed
