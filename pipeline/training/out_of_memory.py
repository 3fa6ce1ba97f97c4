"""Steps that need more memory than the device has: the batch is cut into smaller micro-batches.

    a step exceeds the memory -> the accumulation is doubled, and recorded beside the checkpoints
    -> the training starts again from its newest checkpoint, on every worker, and repeats the steps since

All workers read the record when they start, so they agree, and a resumed run starts with it. The global batch, and so
the loss to rounding, is the same; the steps from the checkpoint on have the bits of a training that was configured so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.counted import counted
from pipeline.errors import WorkError, first_line
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.training_config import TrainingConfig

_FILE = "accumulation"  # not .json, as checkpoints are


class StepMemoryError(WorkError):
    """A step needed more memory than the device has."""

    def __init__(self, step: int, rows: int, accumulation: int, reason: str) -> None:
        self.accumulation = accumulation
        self.rows = rows
        at_once = -(-rows // min(accumulation, rows))
        advice = (
            "raise training.accumulation, or set training.auto_micro_batch=true"
            if at_once > 1
            else "use a smaller model or image size, or training.gradient_checkpointing=true"
        )
        super().__init__(f"step {step}: too little memory for {counted(at_once, 'row')} at once ({reason}); {advice}")


class AccumulationRaisedError(WorkError):
    """The workers must start again, with the accumulation that is recorded beside their checkpoints."""


@contextmanager
def step_memory(step: int, rows: int, accumulation: int) -> Iterator[None]:
    """The forward and backward passes of a step over a rank's rows.

    Raises:
        StepMemoryError: they need more memory than the device has.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; on a CPU only the words say what it is
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        reason = first_line(error, 120)
    else:
        return
    # Not within `except`: the traceback would keep the tensors of the step.
    raise StepMemoryError(step, rows, accumulation, reason)


def recorded_accumulation(training: TrainingConfig, checkpoints: Checkpoints) -> TrainingConfig:
    """The configuration with the accumulation that an earlier start of this training recorded, if one did."""
    if not training.auto_micro_batch:
        return training
    try:
        recorded = int(checkpoints.storage.read(f"{checkpoints.prefix}/{_FILE}"))
    except FileNotFoundError:
        return training
    return training.model_copy(update={"accumulation": max(recorded, training.accumulation)})


def raise_accumulation(error: StepMemoryError, checkpoints: Checkpoints) -> str:
    """Doubles and records the accumulation; returns a sentence about it.

    Raises:
        StepMemoryError: each row is a micro-batch already.
    """
    if error.accumulation >= error.rows:
        raise error
    doubled = min(2 * error.accumulation, error.rows)
    checkpoints.storage.write(f"{checkpoints.prefix}/{_FILE}", str(doubled).encode())
    return f"{error.args[0].partition(';')[0]}: training.accumulation is {doubled} from the newest checkpoint on"


def raised_note(configured: TrainingConfig, used: TrainingConfig) -> str | None:
    """A sentence for the end of the run, if the accumulation was raised."""
    if used.accumulation == configured.accumulation:
        return None
    return (
        f"too little memory for accumulation={configured.accumulation}: it was raised to {used.accumulation} "
        "(training.auto_micro_batch)"
    )
