"""The configuration of a training: length, batch size, optimiser, and the schedule of its steps.

Everything here is a pure function of the configuration and the step, so that a resumed run, and a
run with another number of workers, has the same schedule.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config import Config, unkeyed
from pipeline.training.optim import AdamWConfig, OptimizerConfig, schedule_factor


class TrainingConfig(Config):
    """The configuration that is common to all objectives."""

    epochs: float | None = Field(10, gt=0, le=100_000, description="Passes over the training rows; or set steps.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps, instead of epochs.")
    global_batch: int = Field(256, ge=1, le=1_048_576, description="Samples in a step, over all workers.")
    seed: int = Field(0, ge=0, lt=2**31, description="Of initial weights, order, augmentation and dropout.")
    optimizer: OptimizerConfig = Field(AdamWConfig(), description="Optimiser and its peak learning rate.")
    lr_reference_batch: int | None = Field(
        None,
        ge=1,
        description="If set, lr is meant for this batch and is scaled by global_batch / lr_reference_batch "
        "(DeiT: 5e-4 for 512). If not, lr is used as it is.",
    )
    schedule: Literal["cosine", "constant"] = Field("cosine", description="Learning rate after the warm-up.")
    warmup: float = Field(0.05, ge=0, le=0.9, description="Share of the steps in which the learning rate rises.")
    final_lr: float = Field(0.01, ge=0, le=1, description="Share of the peak learning rate at the last step.")
    clip_norm: float | None = Field(1.0, gt=0, description="Largest norm of the whole gradient; null: no clipping.")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Decay of the moving average of weights that is exported; null: none."
    )
    accumulation: int = Field(1, ge=1, le=4096, description="Micro-batches into which a worker splits its rows.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Numbers to compute in; auto: bfloat16 autocast on GPUs and CPUs that multiply it in "
        "hardware, float32 elsewhere.",
    )
    evaluate_every_epochs: float = Field(1, ge=0, description="Epochs between evaluations; 0: only at the end.")
    log_every_steps: int = unkeyed(10, ge=1, description="Steps between two rows of metrics.jsonl.")
    checkpoint_every_steps: int | None = unkeyed(
        None, ge=1, description="Steps between checkpoints; null: by time only."
    )
    checkpoint_every_s: float = unkeyed(60.0, gt=0, description="Seconds between checkpoints.")

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        # A config that sets steps need not also unset the default of epochs.
        if self.steps is None and self.epochs is None:
            raise ValueError("set epochs or steps")
        return self

    def total_steps(self, rows: int) -> int:
        """Optimiser steps of the whole training over `rows` samples; `steps` overrides `epochs`."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * self.steps_per_epoch(rows)))

    def steps_per_epoch(self, rows: int) -> float:
        """Steps per pass over `rows` samples (not an integer)."""
        return rows / self.global_batch

    def peak_lr(self) -> float:
        """The learning rate after the warm-up, scaled to the global batch if a reference is set."""
        scale = 1.0 if self.lr_reference_batch is None else self.global_batch / self.lr_reference_batch
        return self.optimizer.lr * scale

    def learning_rate(self, step: int, total: int) -> float:
        """The learning rate of `step` (0-based) of `total`."""
        warmup = min(math.ceil(self.warmup * total), total - 1)
        factor = schedule_factor(step, total, warmup_steps=warmup, kind=self.schedule, final_share=self.final_lr)
        return self.peak_lr() * factor

    def evaluation_due(self, done: int, total: int, rows: int) -> bool:
        """Whether an evaluation follows after `done` steps: at each multiple of the period, and at the end."""
        if done == total:
            return True
        if self.evaluate_every_epochs == 0:
            return False
        period = self.evaluate_every_epochs * self.steps_per_epoch(rows)
        return math.floor(done / period) > math.floor((done - 1) / period)
