"""The configuration of the distillation loss; losses.py has its formulas."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config import Config, added

Method = Literal["soft", "hard", "token"]
Outputs = Literal["logits", "probabilities"]


class DistillationLossConfig(Config):
    """The distillation loss: the kind of targets, and their weight."""

    method: Method = Field(
        "token",
        description="What is learned from the teacher. soft: its probabilities (Hinton 2015); hard: its predicted"
        " class; token: either, by a second head with a distillation token (DeiT).",
    )
    token_target: Literal["hard", "soft"] = Field(
        "hard",
        description="With method=token: the targets of the distillation head, i.e. the teacher's class (hard) or "
        "probabilities (soft).",
    )
    temperature: float = Field(3.0, gt=0, le=100, description="Softmax temperature of soft targets; DeiT uses 3.")
    weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of soft targets in the loss; the label loss has 1 - weight. DeiT uses 0.1. Hard "
        "targets always have 0.5.",
    )
    teacher_column: str | None = added(
        None,
        min_length=1,
        description="Joined column with the teacher's outputs for the stored images; the stage teacher-outputs "
        "computes it if columns.source is not set. null: run the teacher on each augmented image.",
    )
    teacher_outputs: Outputs = added("logits", description="Whether teacher_column contains logits or probabilities.")
