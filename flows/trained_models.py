"""The training stages of teacher and student, which several flows submit, with their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from flows.imported_weights import import_model_weights
from flows.joined_columns import JoinedInput
from flows.parameters import StudentParameters, TeacherParameters
from flows.stage_run import StageHandle, StageRun
from pipeline.distillation.config import DistillationConfig
from pipeline.distillation.stage import DistillStudent
from pipeline.distillation.teacher_outputs import ComputeTeacherOutputs, TeacherOutputsConfig
from pipeline.import_weights.expected_normalisation import with_normalisation
from pipeline.sharding.format.column_options import reads_teacher_outputs
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.linear_probe.config import ProbedModelConfig
from pipeline.training.linear_probe.stage import LinearProbe
from pipeline.training.stage import TrainTeacher


def make_teacher(
    run: StageRun,
    config: ClassificationConfig,
    shards: StageHandle,
    columns: JoinedInput,
    *,
    starts_from: Mapping[str, StageHandle] = MappingProxyType({}),
    after: Sequence[StageHandle] = (),
) -> StageHandle:
    """Submits the training of a teacher on these shards.

    Args:
        starts_from: the inputs "weights" and "probe" from `make_baseline`; empty: the config's weights are imported.
        after: stages that must succeed before it begins.
    """
    config = with_normalisation(config, run.store)
    starts_from = starts_from or import_model_weights(run, config.model, "teacher")
    inputs = columns.added_to({"shards": shards, **starts_from}, config)
    return run.submit(TrainTeacher(), config, inputs, after=after)


def make_baseline(
    run: StageRun, parameters: TeacherParameters, shards: StageHandle, columns: JoinedInput
) -> dict[str, StageHandle]:
    """Submits a linear probe of the teacher's pretrained model.

    Returns:
        {"weights": the imported weights, "probe": the linear probe}; empty if there is none.
    """
    teacher, config = parameters.teacher, parameters.baseline
    if config is None:
        return {}
    if teacher.model.pretrained is None:
        run.leave_out(LinearProbe.name, "the teacher has no pretrained weights; set teacher.model.pretrained")
        return {}
    probed = with_normalisation(ProbedModelConfig.of(teacher, config), run.store)
    weights = import_model_weights(run, probed.model, "teacher")
    inputs = columns.added_to({"shards": shards, **weights}, probed)
    return {**weights, "probe": run.submit(LinearProbe(), probed, inputs)}


def find_teacher(
    run: StageRun, existing: str | None, parameters: StudentParameters, shards: StageHandle, columns: JoinedInput
) -> StageHandle | None:
    """The teacher that a student needs: existing, or trained now; None if its outputs are given as a column.

    Args:
        existing: STAGE/KEY of the existing teacher.
    """
    teacher = run.existing(existing)
    if teacher is not None or (reads_teacher_outputs(parameters.student) and columns.handle is not None):
        return teacher
    baseline = make_baseline(run, parameters, shards, columns)
    return make_teacher(run, parameters.teacher, shards, columns, starts_from=baseline)


def make_student(
    run: StageRun, config: DistillationConfig, shards: StageHandle, teacher: StageHandle | None, columns: JoinedInput
) -> StageHandle:
    """Submits the training of a student on a teacher's outputs: computed in each step, once by a stage, or joined."""
    config = with_normalisation(config, run.store)
    inputs: dict[str, StageHandle] = {"shards": shards, **import_model_weights(run, config.model, "student")}
    column = config.distillation.teacher_column
    if teacher is not None and column is None:
        inputs["teacher"] = teacher
    elif teacher is not None and columns.handle is None:
        asked = TeacherOutputsConfig(column=column or "", threads=config.loader.threads)
        columns = JoinedInput(run.submit(ComputeTeacherOutputs(), asked, {"shards": shards, "teacher": teacher}))
    return run.submit(DistillStudent(), config, columns.added_to(inputs, config))
