"""FullyShardedDataParallel: the Parallelism in which each rank has a part of the model (torch's FSDP2).

`fully_shard` divides every parameter along its first dimension and, for the blocks of `units`, gathers the weights of a
block before its forward and backward pass and frees them after. Gradients are averaged over the ranks, as by DDP.

Mixed precision stays autocast's, so that results are DDP's to rounding, norms included; torch's MixedPrecisionPolicy
would also round the weights of norms. Its price: weights are gathered in float32, and their bfloat16 copies (2 bytes a
parameter) live from the forward to the backward pass.

Source: Zhao 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from pipeline.errors import InputError, WorkError
from pipeline.training.checkpoint import Checkpoint, Checkpoints
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.ema import WeightAverage
from pipeline.training.fsdp.checkpoint_io import ShardedCheckpoints, load
from pipeline.training.fsdp.equal_passes import EqualPasses
from pipeline.training.fsdp.tensor_parts import empty_on_host, optimizer_parameters, part_of
from pipeline.training.fsdp.units import units
from pipeline.training.task import Evaluate

_log = logging.getLogger("tutelage.training")


class FullyShardedDataParallel:
    """Each rank has a part of the model, its average and its optimiser state; torch.distributed is initialised."""

    def __init__(self, device: torch.device, rank: int) -> None:
        self._device = device
        self._rank = rank
        world = cast(dist.ProcessGroup, dist.group.WORLD)
        self._mesh = DeviceMesh.from_group(world, device.type)
        # Decisions are made on the host; NCCL would make it wait for the GPU.
        self._decisions = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
        # A checkpoint is written in a thread, so its messages need a group of their own.
        self._checkpoint_group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))

    def average(self, model: nn.Module, decay: float | None) -> WeightAverage | None:
        scalars = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
        if scalars:
            raise InputError(f"training.parallelism=fsdp: {scalars[0]} of the model is a scalar; set it to ddp")
        # A sharded module cannot be copied, so the copy comes first.
        average = None if decay is None else WeightAverage(model, decay)
        self._shard(model)
        if average is not None:
            self._shard(average.module)
            average.pair(model)
        return average

    def newest(
        self,
        checkpoints: Checkpoints,
        model: nn.Module,
        average: WeightAverage | None,
        optimizer: torch.optim.Optimizer,
    ) -> Checkpoint | None:
        averaged = average.module if average is not None else model
        targets: dict[str, Tensor] = {f"model/{name}": value for name, value in model.state_dict().items()}
        for part in ("average", "best"):
            targets |= {f"{part}/{name}": value for name, value in averaged.state_dict().items()}
        parameters = optimizer_parameters(optimizer)
        for path in self._from_rank_0(checkpoints.entries() if self._rank == 0 else None):
            try:
                return self._read(checkpoints, path, targets, parameters)
            except (OSError, ValueError, KeyError, WorkError) as error:
                _log.warning("%s: skipped, it is not whole (%s)", path, error)
        return None

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    def evaluation(self, evaluate: Evaluate) -> Evaluate:
        return lambda model: evaluate(EqualPasses(model, self._device, self._decisions))

    def writer(self, checkpoints: Checkpoints) -> CheckpointWriter | None:
        return CheckpointWriter(ShardedCheckpoints(checkpoints, self._checkpoint_group))

    def decide(self, stop: bool, checkpoint: bool) -> tuple[bool, bool]:
        """What rank 0 finds: a checkpoint is written by all ranks, at the same step."""
        found = torch.tensor([stop, checkpoint])
        dist.broadcast(found, 0, group=self._decisions)
        return bool(found[0]), bool(found[1])

    def _shard(self, model: nn.Module) -> None:
        model.to(memory_format=torch.contiguous_format)
        for unit in units(model):
            fully_shard(unit, mesh=self._mesh, reshard_after_forward=True)
        # torch keeps the root's weights after a forward pass for the backward pass, which an evaluation does not have.
        fully_shard(model, mesh=self._mesh, reshard_after_forward=True)

    def _read(
        self, checkpoints: Checkpoints, path: str, targets: dict[str, Tensor], parameters: list[Tensor]
    ) -> Checkpoint:
        """The checkpoint at `path`; an error of one rank is raised by all."""
        entry = self._agreed(lambda: checkpoints.entry(path))
        if "files" not in entry:
            checkpoint = cast(Checkpoint, self._agreed(lambda: checkpoints.read(path, mapped=True)))
            # What stays in host memory; the rest is divided when it is loaded.
            for name, value in checkpoint.tensors.get("best", {}).items():
                checkpoint.tensors["best"][name] = part_of(targets[f"best/{name}"], value)
            return checkpoint
        empty: dict[str, Tensor] = {}
        for key, described in entry["tensors"].items():
            target = targets.get(key)
            if key.startswith("optimizer/"):
                parameter = parameters[int(key.split("/")[1])]
                # A state of another shape, e.g. the number of steps, is the same on every rank.
                target = parameter if list(parameter.shape) == described["shape"] else None
            if target is None:
                empty[key] = torch.empty(described["shape"], dtype=getattr(torch, described["dtype"]))
            else:
                empty[key] = empty_on_host(target)
        tensors = load(checkpoints, path.removesuffix(".json"), entry, empty, self._decisions)
        return Checkpoint(entry["step"], tensors, entry["notes"])

    def _agreed(self, read: Callable[[], Any]) -> Any:
        """The result of `read` on this rank.

        Raises:
            WorkError: `read` failed on any rank.
        """
        result, problem = None, ""
        try:
            result = read()
        except (OSError, ValueError, KeyError) as error:
            problem = f"{type(error).__name__}: {error}"
        problems: list[str] = [""] * dist.get_world_size(self._decisions)
        dist.all_gather_object(problems, problem, group=self._decisions)
        if any(problems):
            raise WorkError(next(problem for problem in problems if problem))
        return result

    def _from_rank_0(self, value: Any) -> Any:
        values = [value]
        dist.broadcast_object_list(values, 0, group=self._decisions)
        return values[0]
