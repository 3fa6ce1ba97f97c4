"""Teacher and student as several flows make them: with what they start from."""

from __future__ import annotations

from collections.abc import Sequence

from flows.imported_weights import weights_of
from flows.joined_columns import JoinedInput
from flows.stage_run import Made, StageRun
from pipeline.distillation.stage import DistillationConfig, DistillStudent
from pipeline.training.stage import ClassificationConfig, TrainTeacher


def make_teacher(
    run: StageRun, config: ClassificationConfig, shards: Made, columns: JoinedInput, *, after: Sequence[Made] = ()
) -> Made:
    """A teacher of these shards, trained after the stages `after`."""
    inputs = columns.beside({"shards": shards, **weights_of(run, config.model, "teacher")}, config)
    return run.make(TrainTeacher(), config, inputs, after=after)


def make_student(run: StageRun, config: DistillationConfig, shards: Made, teacher: Made, columns: JoinedInput) -> Made:
    """A student of this teacher."""
    inputs = {"shards": shards, "teacher": teacher, **weights_of(run, config.model, "student")}
    return run.make(DistillStudent(), config, columns.beside(inputs, config))
