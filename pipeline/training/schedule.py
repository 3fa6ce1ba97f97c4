"""The learning rate as a pure function of the step: warm-up, then one of the schedules.

The factor of a step is its fraction of the peak learning rate. The first step after a linear warm-up has the peak, and
the last step of a schedule that decays to the end has `final_lr`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.config import Config

DecayShape = Literal["linear", "cosine", "sqrt"]


@dataclass(frozen=True)
class Progress:
    """The position of a step in its training.

    Attributes:
        step: the step, 0-based.
        total: number of steps of the training.
        warmup_steps: number of its first steps with a rising rate.
        epochs: epochs of the training before the step.
    """

    step: int
    total: int
    warmup_steps: int
    epochs: float

    def since(self, first: int) -> float:
        """The progress from step `first` to the last step, 0 to 1."""
        return min(1.0, (self.step - first) / max(1, self.total - 1 - first))


class CosineConfig(Config):
    """Cosine decay to final_lr (Loshchilov and Hutter 2017, without restarts)."""

    kind: Literal["cosine"] = Field("cosine", description="Cosine decay to final_lr.")

    def factor(self, at: Progress, final_lr: float) -> float:
        return _decay("cosine", at.since(at.warmup_steps), final_lr)


class ConstantConfig(Config):
    """The peak learning rate to the end."""

    kind: Literal["constant"] = Field("constant", description="No decay; final_lr is ignored.")

    def factor(self, at: Progress, final_lr: float) -> float:
        return 1.0


class PolynomialConfig(Config):
    """Polynomial decay to final_lr; of power 1 it is linear."""

    kind: Literal["polynomial"] = Field("polynomial", description="Polynomial decay to final_lr.")
    power: float = Field(1.0, gt=0, le=10, description="Exponent of the remaining fraction of the steps. 1: linear.")

    def factor(self, at: Progress, final_lr: float) -> float:
        return final_lr + (1.0 - final_lr) * (1.0 - at.since(at.warmup_steps)) ** self.power


class StepConfig(Config):
    """Multiplies the learning rate by gamma at some epochs, as the papers on VGG, ResNet and Inception do."""

    kind: Literal["step"] = Field("step", description="Multiply by gamma at some epochs; final_lr is ignored.")
    milestones: tuple[float, ...] = Field(
        (), description="Epochs of the training at which the rate is multiplied by gamma. []: every `every_epochs`."
    )
    every_epochs: float = Field(
        30, gt=0, le=100_000, description="Without milestones: number of epochs between two decays."
    )
    gamma: float = Field(0.1, gt=0, lt=1, description="Factor of each decay.")

    def factor(self, at: Progress, final_lr: float) -> float:
        # An epoch is rarely a whole number of steps; rounding must not delay a decay by a step.
        epochs = at.epochs + 1e-9
        decays = sum(epochs >= epoch for epoch in self.milestones)
        return float(self.gamma ** (decays if self.milestones else epochs // self.every_epochs))

    def check(self, epochs: float) -> None:
        """Checks that the rate decays within a training of this length.

        Raises:
            ValueError: a milestone is not within the training, or the milestones are not in order.
        """
        if list(self.milestones) != sorted({*self.milestones}) or any(epoch <= 0 for epoch in self.milestones):
            raise ValueError(f"schedule.milestones {list(self.milestones)}: give rising epochs above 0")
        name, last = ("milestones", self.milestones[-1]) if self.milestones else ("every_epochs", self.every_epochs)
        if last >= epochs:
            raise ValueError(f"schedule.{name}: epoch {last:g} is not within the training's {epochs:g}, so no decay")


class WarmupStableDecayConfig(Config):
    """The peak learning rate, then a decay to final_lr in the last part (WSD; Hu 2024, MiniCPM; Haegele 2024)."""

    kind: Literal["warmup_stable_decay"] = Field(
        "warmup_stable_decay", description="The peak rate, and a decay to final_lr in the last part of the steps."
    )
    decay: float = Field(0.2, gt=0, le=1, description="Fraction (0 to 1) of all steps in which the rate decays.")
    shape: DecayShape = Field(
        "linear", description="Shape of the decay over its progress p: linear; cosine; sqrt: 1 - sqrt(p)."
    )

    def factor(self, at: Progress, final_lr: float) -> float:
        first = max(at.warmup_steps, at.total - math.ceil(self.decay * at.total))
        # The last step at the peak is the one before the decay.
        return 1.0 if at.step < first else _decay(self.shape, at.since(max(at.warmup_steps, first - 1)), final_lr)


class OneCycleConfig(Config):
    """A cosine rise to the peak over the warm-up, then a cosine decay to final_lr (Smith and Topin 2019).

    As torch's OneCycleLR, with training.warmup as pct_start; the momentum stays constant.
    """

    kind: Literal["one_cycle"] = Field(
        "one_cycle", description="A cosine rise over the warmup (0.3 in the paper), and a cosine decay to final_lr."
    )
    initial_lr: float = Field(
        0.04, gt=0, le=1, description="Learning rate of the first step, as a fraction of the peak."
    )

    def factor(self, at: Progress, final_lr: float) -> float:
        peak = max(0, at.warmup_steps - 1)
        if at.step < peak:
            return _decay("cosine", 1.0 - at.step / peak, self.initial_lr)
        return _decay("cosine", at.since(peak), final_lr)


def _kind_as_object(value: Any) -> Any:
    """`cosine` stands for {kind: cosine}."""
    return {"kind": value} if isinstance(value, str) else value


Schedule = CosineConfig | ConstantConfig | PolynomialConfig | StepConfig | WarmupStableDecayConfig | OneCycleConfig
ScheduleKind = Literal["cosine", "constant", "polynomial", "step", "warmup_stable_decay", "one_cycle"]
_TaggedSchedule = Annotated[Schedule, Field(discriminator="kind")]
ScheduleConfig = Annotated[
    _TaggedSchedule, BeforeValidator(_kind_as_object, json_schema_input_type=_TaggedSchedule | ScheduleKind)
]


def schedule_factor(schedule: Schedule, at: Progress, final_lr: float) -> float:
    """The fraction of the peak learning rate at a step: linear warm-up, then the schedule.

    The first step has 1 / warmup_steps of the peak, so that no step of the warm-up has a rate of zero.
    """
    if at.step < at.warmup_steps and not isinstance(schedule, OneCycleConfig):
        return (at.step + 1) / at.warmup_steps
    return schedule.factor(at, final_lr)


def schedule_key(schedule: Schedule) -> str | Schedule:
    """The value in artifact keys: a schedule without settings of its own is its kind."""
    return schedule.kind if isinstance(schedule, CosineConfig | ConstantConfig) else schedule


def _decay(shape: DecayShape, progress: float, last: float) -> float:
    """From 1 at a progress of 0 to `last` at 1."""
    if shape == "linear":
        left = 1.0 - progress
    elif shape == "cosine":
        left = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        left = 1.0 - math.sqrt(progress)
    return last + (1.0 - last) * left
