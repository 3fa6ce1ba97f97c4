"""Steps whose loss or gradient is not finite: the training stops, or goes on without their batches.

    on_nonfinite
    stop        NonFiniteError
    skip        the step is skipped: found before the optimiser's update, for which the host waits at every step
    rollback    found at the next log entry at the latest: the training resumes from its newest checkpoint, and skips
                the step when it gets there again

A skipped step counts as a step, without an update: weights, optimiser, average and running statistics keep their bits.
So the learning rate and the samples of every other step are those of a training without a skipped step. All ranks skip
the same steps, and the list of them is part of the checkpoint: a resumed run ends in the same bits.

The batch of the step is saved in any case; see bad_batch.py.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.counted import counted
from pipeline.errors import InputError, WorkError, listed
from pipeline.loading.batch import Batch
from pipeline.training.bad_batch import save_batch
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.task import BatchSource
from pipeline.training.training_config import TrainingConfig

_log = logging.getLogger("tutelage.training")


class NonFiniteError(WorkError):
    """The loss or the gradient of a step is not finite.

    Args:
        batch: the file with the step's batch, if it was saved.
    """

    def __init__(self, step: int, batch: str | None = None, skipped: int = 0) -> None:
        self.step = step
        before = f", after {counted(skipped, 'skipped step')} (max_skipped_steps)" if skipped else ""
        saved = f"; its batch is in {batch}" if batch is not None else ""
        super().__init__(
            f"step {step}: the loss or its gradient is not a finite number{before}{saved}; "
            "lower the learning rate, clip the gradient (clip_norm) or use precision=float32"
        )


class NonFiniteSteps:
    """Finds the steps that are not finite, and skips them if the config says so.

    Args:
        checkpoints: their folder gets the batches; None: batches are not saved.
    Attributes:
        skipped: the skipped steps, in order; the same on every rank.
    Raises:
        InputError: a rollback is configured, and there are no checkpoints.
    """

    def __init__(
        self,
        training: TrainingConfig,
        model: nn.Module,
        loader: BatchSource,
        checkpoints: Checkpoints | None,
        device: torch.device,
        rank: int,
        world: int,
    ) -> None:
        if training.on_nonfinite == "rollback" and checkpoints is None:
            raise InputError("training.on_nonfinite=rollback needs checkpoints; set skip or stop")
        self.skipped: list[int] = []
        self._training = training
        self._model = model
        self._loader = loader
        self._checkpoints = checkpoints
        self._device = device
        self._rank, self._world = rank, world
        self._will_skip: set[int] = set()  # found before a rollback
        self._unchecked: list[tuple[int, Tensor]] = []
        self._buffers: list[Tensor] = []
        self._files: dict[int, str | None] = {}

    def start(self, step: int) -> None:
        """Records that `step` starts. If it may be skipped, the running statistics are kept."""
        may_skip = self._training.on_nonfinite == "skip" or step in self._will_skip
        self._buffers = [buffer.clone() for buffer in self._model.buffers()] if may_skip else []

    def accepts(self, batch: Batch, loss: Tensor | float, gradient_norm: Tensor) -> bool:
        """Whether the optimiser may do the step of this batch; False: the step is skipped. Every rank must call it.

        Args:
            loss: of this rank. It can be infinite and its gradient zero, so both are checked.
            gradient_norm: of all ranks; finite only if every element of the gradient is.
        Raises:
            NonFiniteError: on a CPU; on a GPU `check` raises it later.
        """
        mode, step = self._training.on_nonfinite, batch.step
        finite = self._agreed(_finite(loss, gradient_norm))
        at_once = not isinstance(finite, Tensor) or mode == "skip" or step in self._will_skip
        if not at_once:
            assert isinstance(finite, Tensor)
            self._unchecked.append((step, finite))
            return True
        if bool(finite) and step not in self._will_skip:
            return True
        if step not in self._will_skip:
            self._files[step] = self._saved(batch)
            if mode != "skip" or len(self.skipped) >= self._training.max_skipped_steps:
                raise NonFiniteError(step)
        for buffer, before in zip(self._model.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        self.skipped.append(step)
        _log.warning("step %d: skipped, its loss or gradient is not a finite number; %s", step, self._files.get(step))
        return False

    def clean(self) -> bool:
        """Whether every step so far was finite; one rank may call it alone.

        Raises:
            NonFiniteError: with on_nonfinite=stop, one was not.
        """
        if self._training.on_nonfinite == "stop":
            self.check()
        return not self._unchecked or bool(torch.stack([finite for _, finite in self._unchecked]).all())

    def check(self) -> None:
        """Raises NonFiniteError if a step since the last check was not finite; for a rollback, every rank calls it."""
        if not self._unchecked:
            return
        finite = torch.stack([finite for _, finite in self._unchecked]).cpu().tolist()
        failed = [step for (step, _), ok in zip(self._unchecked, finite, strict=True) if not ok]
        self._unchecked.clear()
        if failed:
            raise NonFiniteError(failed[0])

    @contextmanager
    def recovered(self, resume: Callable[[], bool]) -> Iterator[None]:
        """Rolls back after a step in this context that was not finite; the context ends without the error.

        Args:
            resume: loads the newest checkpoint, and returns whether there is one; the write of a checkpoint within the
                context has ended.
        Raises:
            NonFiniteError: no rollback is configured, or too many steps were skipped; the batch is saved.
        """
        try:
            yield
            self.check()  # A refresh may follow, after which the batch could not be read again.
        except NonFiniteError as error:
            self._unchecked.clear()
            if error.step not in self._files:
                self._files[error.step] = self._saved(self._read_again(error.step))
            known = len(self._will_skip | set(self.skipped))
            at_limit = known >= self._training.max_skipped_steps
            if self._training.on_nonfinite != "rollback" or at_limit:
                raise NonFiniteError(error.step, self._files[error.step], known) from None
            self._will_skip.add(error.step)
            _log.warning(
                "step %d: the loss or its gradient is not a finite number; back to the last checkpoint, to skip it; %s",
                error.step,
                self._files[error.step],
            )
            if self._world > 1:
                dist.barrier()  # rank 0 may have been writing the checkpoint that the others read now
            if not resume():  # the disk was full
                raise NonFiniteError(error.step, self._files[error.step]) from None

    def note(self) -> str | None:
        """A sentence about the skipped steps, if there are any."""
        if not self.skipped:
            return None
        steps = listed([f"{step:,}" for step in self.skipped])
        verb = "was" if len(self.skipped) == 1 else "were"
        return (
            f"{counted(len(self.skipped), 'step')} {verb} skipped, with a loss or gradient that is not finite: {steps}"
        )

    def _agreed(self, finite: Tensor | bool) -> Tensor | bool:
        if self._world == 1 or self._training.on_nonfinite == "stop":
            return finite
        flag = torch.as_tensor(finite, device=self._device).int()
        dist.all_reduce(flag, dist.ReduceOp.MIN)
        return bool(flag) if isinstance(finite, bool) else flag.bool()

    def _read_again(self, step: int) -> Batch:
        with closing(self._loader.batches(step, step + 1)) as batches:
            return next(batches)

    def _saved(self, batch: Batch) -> str | None:
        if self._checkpoints is None:
            return None
        return save_batch(batch, self._checkpoints, self._training.seed, self._rank, self._world)


def _finite(loss: Tensor | float, gradient_norm: Tensor) -> Tensor | bool:
    if isinstance(loss, Tensor):
        return torch.isfinite(gradient_norm) & torch.isfinite(loss)
    return math.isfinite(loss) and math.isfinite(gradient_norm)
