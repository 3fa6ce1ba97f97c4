"""ObservedStep: what one step of a training computed, on all ranks; the StepObserver of a replay."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import InputError
from pipeline.loading.batch import Batch
from pipeline.storage import Storage
from pipeline.training.bad_batch import batch_file, load_batch
from pipeline.training.nonfinite_module import first_nonfinite_module
from pipeline.training.task import ObservationEnded, StepOutput, Task

_BATCH_TENSORS = ("images", "ids", "labels", "groups", "tokens")


class ObservedStep:
    """Observes one step, then lets the training go on to `end`, for its log entries.

    Args:
        step: the step, numbered from 0.
        end: the training ends before this step; also after `step`, if its loss or gradient is not finite.
        saved: the storage and the folder of the saved batches.
    """

    def __init__(self, step: int, end: int, saved: tuple[Storage, str], rank: int, world: int) -> None:
        self.step = step
        self._end = end
        self._saved = saved
        self._rank, self._world = rank, world
        self._losses: list[tuple[float, int]] = []
        self._nonfinite_module: str | None = None
        self._report: dict[str, Any] | None = None

    def watched(self, task: Task) -> Task:
        """The same task, whose outputs at the step are observed."""
        return _WatchedTask(task, self)

    def add_output(self, output: StepOutput, samples: int, nonfinite_module: str | None) -> None:
        self._losses.append((float(output.loss.detach()), samples))
        self._nonfinite_module = self._nonfinite_module or nonfinite_module

    def observe(self, model: nn.Module, batch: Batch, learning_rate: float) -> None:
        """See StepObserver."""
        if batch.step == self.step:
            self._report = self._observed(model, batch, learning_rate)
        finite = self._report is None or self._report["finite"]
        if batch.step >= self._end or not finite:
            raise ObservationEnded

    def report(self) -> dict[str, Any]:
        """What `replay` returns, without the log entries.

        Raises:
            InputError: the training ended before the step.
        """
        if self._report is None:
            raise InputError(f"step {self.step:,}: the training ended before it")
        return self._report

    def _observed(self, model: nn.Module, batch: Batch, learning_rate: float) -> dict[str, Any]:
        layers, norm = gradient_norms(model)
        own = {
            "ids": batch.ids.tolist(),
            "loss": sum(loss * samples for loss, samples in self._losses) / batch.global_size,
            "nonfinite_module": self._nonfinite_module,
            "saved_batch": self._compared(batch),
        }
        ranks = self._of_all_ranks(own)
        loss = sum(rank["loss"] for rank in ranks)
        weights_finite = all(bool(torch.isfinite(_whole(weight.detach())).all()) for weight in model.parameters())
        modules = [(number, rank["nonfinite_module"]) for number, rank in enumerate(ranks)]
        found = next(((number, module) for number, module in modules if module is not None), None)
        return {
            "step": self.step,
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": learning_rate,
            "ids": [sample for rank in ranks for sample in rank["ids"]],
            "finite": math.isfinite(loss) and math.isfinite(norm),
            "weights_finite": weights_finite,
            "first_nonfinite": found[1] if found is not None else None,
            "first_nonfinite_rank": found[0] if found is not None else None,
            "layers": layers,
            "saved_batches": [rank["saved_batch"] for rank in ranks],
        }

    def _of_all_ranks(self, own: dict[str, Any]) -> list[dict[str, Any]]:
        if self._world == 1:
            return [own]
        gathered: list[Any] = [None] * self._world
        dist.all_gather_object(gathered, own)
        return gathered

    def _compared(self, batch: Batch) -> str | None:
        """ "equal", or the tensors in which the saved batch differs; None if none was saved."""
        storage, folder = self._saved
        path = batch_file(folder, self.step, self._rank)
        if storage.stat(path) is None:
            return None
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / "batch.pt"
            storage.download(path, file)
            saved, _ = load_batch(file)
        differing = [name for name in _BATCH_TENSORS if not _same(getattr(saved, name), getattr(batch, name))]
        differing += [
            f"columns.{name}" for name in batch.columns if not _same(saved.columns.get(name), batch.columns[name])
        ]
        return ", ".join(differing) or "equal"


class _WatchedTask:
    def __init__(self, task: Task, observed: ObservedStep) -> None:
        self._task = task
        self._observed = observed

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        if batch.step != self._observed.step:
            return self._task.training_step(model, batch)
        with first_nonfinite_module(model.module if isinstance(model, DistributedDataParallel) else model) as found:
            output = self._task.training_step(model, batch)
        loss_module = "the loss" if not bool(torch.isfinite(output.loss)) else None
        self._observed.add_output(output, len(batch), found[0] if found else loss_module)
        return output


def gradient_norms(model: nn.Module) -> tuple[dict[str, float], float]:
    """The L2 norm of the gradient of each module's own parameters by the module's name, and that of all."""
    layers = {}
    for name, module in model.named_modules():
        gradients = [weight.grad for weight in module.parameters(recurse=False) if weight.grad is not None]
        if gradients:
            layers[name or "the model"] = float(_whole(nn.utils.get_total_norm(gradients)))
    every = [weight.grad for weight in model.parameters() if weight.grad is not None]
    return layers, float(_whole(nn.utils.get_total_norm(every)))


def _whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or the whole of one that is divided among ranks."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether the bits are equal."""
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
