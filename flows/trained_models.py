"""Teacher and student as several flows make them: with what they start from."""

from __future__ import annotations

from flows.imported_weights import weights_of
from flows.stage_run import Made, StageRun
from pipeline.distillation.stage import DistillationConfig, DistillStudent
from pipeline.training.stage import ClassificationConfig, TrainTeacher


def make_teacher(run: StageRun, config: ClassificationConfig, shards: Made) -> Made:
    """A teacher of these shards."""
    return run.make(TrainTeacher(), config, {"shards": shards, **weights_of(run, config.model, "teacher")})


def make_student(run: StageRun, config: DistillationConfig, shards: Made, teacher: Made) -> Made:
    """A student of this teacher."""
    inputs = {"shards": shards, "teacher": teacher, **weights_of(run, config.model, "student")}
    return run.make(DistillStudent(), config, inputs)
