"""The training stages of teacher and student, which several flows submit, with their inputs."""

from __future__ import annotations

from collections.abc import Sequence

from flows.imported_weights import weights_of
from flows.joined_columns import JoinedInput
from flows.stage_run import StageHandle, StageRun
from pipeline.distillation.stage import DistillationConfig, DistillStudent
from pipeline.distillation.teacher_outputs import ComputeTeacherOutputs, TeacherOutputsConfig
from pipeline.import_weights.expected_normalisation import with_normalisation
from pipeline.sharding.format.column_options import reads_teacher_outputs
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import TrainTeacher


def make_teacher(
    run: StageRun,
    config: ClassificationConfig,
    shards: StageHandle,
    columns: JoinedInput,
    *,
    after: Sequence[StageHandle] = (),
) -> StageHandle:
    """A teacher trained on these shards, after the stages `after`."""
    config = with_normalisation(config, run.store)
    inputs = columns.added_to({"shards": shards, **weights_of(run, config.model, "teacher")}, config)
    return run.submit(TrainTeacher(), config, inputs, after=after)


def find_teacher(
    run: StageRun,
    existing: str | None,
    teacher: ClassificationConfig,
    student: DistillationConfig,
    shards: StageHandle,
    columns: JoinedInput,
) -> StageHandle | None:
    """The teacher that a student needs: existing, or trained now; None if its outputs are given as a column.

    Args:
        existing: STAGE/KEY of the existing teacher.
    """
    found = run.existing(existing)
    if found is not None or (reads_teacher_outputs(student) and columns.handle is not None):
        return found
    return make_teacher(run, teacher, shards, columns)


def make_student(
    run: StageRun, config: DistillationConfig, shards: StageHandle, teacher: StageHandle | None, columns: JoinedInput
) -> StageHandle:
    """A student of this teacher, or of its stored outputs: a joined column, or outputs computed once by a stage."""
    config = with_normalisation(config, run.store)
    inputs: dict[str, StageHandle] = {"shards": shards, **weights_of(run, config.model, "student")}
    column = config.distillation.teacher_column
    if teacher is not None and column is None:
        inputs["teacher"] = teacher
    elif teacher is not None and columns.handle is None:
        asked = TeacherOutputsConfig(column=column or "", threads=config.loader.threads)
        columns = JoinedInput(run.submit(ComputeTeacherOutputs(), asked, {"shards": shards, "teacher": teacher}))
    return run.submit(DistillStudent(), config, columns.added_to(inputs, config))
