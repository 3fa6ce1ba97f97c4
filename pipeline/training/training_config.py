"""The configuration of a training: length, batch size, optimiser, and the schedule of its steps.

Everything here is a pure function of the configuration and the step, so that a resumed run, and a
run with another number of workers, has the same schedule.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.config import Config, added, unkeyed
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.training.optimizer_config import AdamWConfig, OptimizerConfig
from pipeline.training.schedule import (
    CosineConfig,
    Progress,
    ScheduleConfig,
    StepConfig,
    schedule_factor,
    schedule_key,
)

ExportWeights = Literal["ema", "raw", "best"]


class TrainingConfig(Config):
    """Length, batch size, optimiser, schedule and precision of a training."""

    epochs: float | None = Field(
        10, gt=0, le=100_000, description="Number of passes over the training samples. Ignored if steps is set."
    )
    steps: int | None = Field(None, ge=1, description="Number of optimiser steps. null: determined by epochs.")
    global_batch: int = Field(
        256,
        ge=1,
        le=1_048_576,
        description="Batch size of an optimiser step, in total over all workers and micro-batches.",
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Random seed of initial weights, sample order, augmentation and dropout."
    )
    optimizer: OptimizerConfig = Field(
        AdamWConfig(), description="The optimiser, its peak learning rate and weight decay."
    )
    lr_reference_batch: int | None = Field(
        None,
        ge=1,
        description="Batch size that lr is given for: lr is scaled by global_batch / lr_reference_batch (DeiT: "
        "5e-4 for 512). null: do not scale.",
    )
    schedule: ScheduleConfig = Field(
        CosineConfig(), description="Learning-rate schedule after warmup. A kind alone has its default settings."
    )
    warmup: float = Field(
        0.05, ge=0, le=0.9, description="Fraction (0 to 0.9) of all steps with linear learning-rate warmup."
    )
    final_lr: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Final learning rate of a schedule that decays to the end, as a fraction of the peak.",
    )
    clip_norm: float | None = Field(
        1.0,
        gt=0,
        description="Gradient clipping: maximum L2 norm of the gradient of all parameters. null: no clipping.",
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of the exponential moving average (EMA) of the weights. Each evaluation measures both, the "
        "EMA and the raw weights; export_weights says which are exported. null: no EMA.",
    )
    export_weights: ExportWeights = added(
        "ema",
        description="With ema_decay: the weights that early stopping follows and that are exported. ema: the moving "
        "average; raw: the weights of the last step; best: of a classifier, those of both with the higher validation "
        "accuracy in the last evaluation.",
    )
    accumulation: int = Field(
        1,
        ge=1,
        le=4096,
        description="Gradient accumulation: number of micro-batches into which a worker divides its part of the "
        "batch. A higher number needs less memory.",
    )
    auto_micro_batch: bool = added(
        False,
        description="When a step needs more memory than the device has, double accumulation and go on from the last "
        "checkpoint, instead of an error. The loss is the same to rounding, but for batch norm, which sees smaller "
        "micro-batches.",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Precision of the computation. bfloat16: autocast (mixed precision); float16: the same for GPUs "
        "without bfloat16, with a scaled loss, and steps whose gradient overflows are skipped; auto: bfloat16 if the "
        "hardware multiplies in it, else float32.",
    )
    tf32: Literal["auto", "yes", "no"] = added(
        "auto",
        description="Whether float32 products and convolutions on an NVIDIA GPU round their inputs to TF32, several "
        "times as fast. auto: as torch does, which rounds those of convolutions only. yes is refused on devices "
        "without TF32.",
    )
    channels_last: Literal["auto", "yes", "no"] = added(
        "auto",
        description="Layout of images and convolutions in memory. yes: channels_last (NHWC), in which GPUs train "
        "convolutions up to 1.9 times as fast; no: contiguous (NCHW); auto: channels_last for classifiers, and "
        "contiguous weights for dual encoders.",
    )
    compile: bool = added(
        False,
        description="Compile the blocks of the model with torch.compile: the same losses to rounding. The first steps "
        "take up to minutes, later ones less time, on GPUs above all.",
    )
    gradient_checkpointing: bool = unkeyed(
        False,
        description="Compute the activations of each block of the model again in the backward pass instead of keeping "
        "them: less memory, for a third more computation. The result is the same.",
    )
    evaluate_every_epochs: float = Field(
        1, ge=0, description="Number of epochs between evaluations on the validation split. 0: only at the end."
    )
    patience: int | None = added(
        None,
        ge=1,
        le=100_000,
        description="Early stopping of a classifier: number of evaluations in a row without a higher validation "
        "accuracy after which the training ends. The weights of the best evaluation are exported; the initial weights "
        "are evaluated too. null: no early stopping, and the last weights are exported.",
    )
    freeze_batch_norm: bool = added(
        False,
        description="Batch norm of a classifier with pretrained weights keeps their running mean and variance, also in "
        "training, where it otherwise uses those of each batch. For fine-tuning on few images. Without "
        "pretrained weights it has no effect.",
    )
    sync_batch_norm: bool = added(
        False,
        description="With several workers: batch norm uses the mean and variance of the rows of all workers, so that "
        "the result does not depend on their number. It costs two messages between the workers for each layer. "
        "false: each worker uses its own rows.",
    )
    on_nonfinite: Literal["stop", "skip", "rollback"] = added(
        "stop",
        description="What follows a step whose loss or gradient is not finite. stop: an error; skip: the step is done "
        "without an update of weights and optimiser, for which the host waits for the device at every step; rollback: "
        "the training resumes from its last checkpoint, and skips that step then.",
    )
    max_skipped_steps: int = added(
        10,
        ge=1,
        le=100_000,
        description="Maximum number of steps skipped by on_nonfinite; one more ends the training with an error.",
    )
    parallelism: Literal["ddp", "fsdp"] = unkeyed(
        "ddp",
        description="How several workers share the model. ddp: each has all of it (DistributedDataParallel); fsdp: "
        "each has a part of weights, gradients and optimiser state (FSDP2), for models too large for one GPU. The "
        "results are the same to rounding. With one worker it has no effect.",
    )
    log_every_steps: int = unkeyed(10, ge=1, description="Number of steps between log entries in metrics.jsonl.")
    checkpoint_every_steps: int | None = unkeyed(
        None,
        ge=1,
        description="Number of steps between checkpoints, in addition to checkpoint_every_s. null: by time only.",
    )
    hang_timeout_s: float = unkeyed(
        50.0,
        gt=0,
        le=86_400,
        description="With several workers on Ray: number of seconds that the others may wait for one in a step. Then "
        "it is named with its stack, and the workers are replaced as lost ones are (runner.max_failures). The first "
        "step, evaluations and checkpoints may take ten times as long; where steps are long, the limit is three times "
        "the longest part of a step.",
    )
    checkpoint_every_s: float = unkeyed(60.0, gt=0, description="Number of seconds between checkpoints.")

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        # A config that sets steps need not also unset the default of epochs.
        if self.steps is None and self.epochs is None:
            raise ValueError("set epochs or steps")
        if self.compile and self.gradient_checkpointing:
            raise ValueError("compile cannot compile what gradient_checkpointing computes again; set one of them")
        if self.patience is not None and self.evaluate_every_epochs == 0:
            raise ValueError("patience counts evaluations, and evaluate_every_epochs=0 has one only; set it above 0")
        if self.export_weights != "ema" and self.ema_decay is None:
            raise ValueError(
                f"export_weights={self.export_weights}: there is no moving average; set ema_decay, e.g. 0.999"
            )
        if isinstance(self.schedule, StepConfig) and self.steps is None and self.epochs is not None:
            self.schedule.check(self.epochs)
        return self

    @model_validator(mode="after")
    def _divisible(self) -> TrainingConfig:
        if self.parallelism == "fsdp" and self.sync_batch_norm:
            raise ValueError("parallelism=fsdp cannot synchronise batch norm; set sync_batch_norm=false")
        if self.parallelism == "fsdp" and self.optimizer.kind == "muon":
            raise ValueError(
                "parallelism=fsdp: muon needs whole matrices; set optimizer to adamw, sgd, lamb or rmsprop"
            )
        return self

    def key_value(self, name: str) -> Any:
        """The value in the artifact key; kinds of schedules that were once a plain word still are."""
        return schedule_key(self.schedule) if name == "schedule" else super().key_value(name)

    def check_workers(self, workers: int) -> None:
        """Checks that each worker has rows of the global batch.

        Raises:
            InputError: a worker has none, or with sync_batch_norm or FSDP not one for each of its micro-batches.
        """
        rows = self.global_batch // workers
        if rows < 1:
            raise InputError(f"{workers} workers share global_batch={self.global_batch}: one row each at least")
        equal = "sync_batch_norm" if self.sync_batch_norm else "parallelism" if self.parallelism == "fsdp" else None
        if equal is not None and workers > 1 and rows < self.accumulation:
            raise InputError(
                f"training.{equal}: a worker has {counted(rows, 'row')} of global_batch={self.global_batch} "
                f"for accumulation={self.accumulation}, and each micro-batch needs one; set accumulation={rows} or less"
            )

    def total_steps(self, epoch_samples: int) -> int:
        """Optimiser steps of the whole training; `steps` overrides `epochs`."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * self.steps_per_epoch(epoch_samples)))

    def steps_per_epoch(self, epoch_samples: int) -> float:
        """Steps per epoch (not an integer)."""
        return epoch_samples / self.global_batch

    def short_epoch_note(self, epoch_samples: int) -> str | None:
        """A sentence if an epoch is less than a step, so that `epochs` is exceeded; else None."""
        if epoch_samples >= self.global_batch:
            return None
        steps = self.total_steps(epoch_samples)
        passes = steps * self.global_batch / epoch_samples
        return (
            f"an epoch of {epoch_samples:,} samples is less than a step of global_batch={self.global_batch}: "
            f"{counted(steps, 'step')} {'is' if steps == 1 else 'are'} {passes:,.1f} epochs; set global_batch "
            f"to {epoch_samples} or less"
        )

    def undivided_note(self, workers: int) -> str | None:
        """A sentence if FSDP is set and there is one worker; else None."""
        if self.parallelism == "ddp" or workers > 1:
            return None
        return "parallelism=fsdp has no effect with one worker, which has the whole model; set runner.workers"

    def peak_lr(self) -> float:
        """The learning rate after the warm-up, scaled to the global batch if a reference is set."""
        scale = 1.0 if self.lr_reference_batch is None else self.global_batch / self.lr_reference_batch
        return self.optimizer.lr * scale

    def learning_rate(self, step: int, total: int, epoch_samples: int) -> float:
        """The learning rate of `step` (0-based) of `total`."""
        warmup = min(math.ceil(self.warmup * total), total - 1)
        at = Progress(step, total, warmup, step / self.steps_per_epoch(epoch_samples))
        return self.peak_lr() * schedule_factor(self.schedule, at, self.final_lr)

    def evaluation_due(self, done: int, total: int, epoch_samples: int) -> bool:
        """Whether an evaluation follows after `done` steps: at each multiple of the period, and at the end."""
        if done == total:
            return True
        if self.evaluate_every_epochs == 0:
            return False
        period = self.evaluate_every_epochs * self.steps_per_epoch(epoch_samples)
        return math.floor(done / period) > math.floor((done - 1) / period)
