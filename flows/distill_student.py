"""distill-student: trains a small model on the labels and on the outputs of a frozen teacher."""

from __future__ import annotations

from prefect import flow

from flows.joined_columns import JoinedInput
from flows.parameters import DistillStudentParameters
from flows.presets import default_parameters
from flows.shards_of_run import make_shards
from flows.stage_run import TASK_RUNNER, FlowResult, stage_run
from flows.trained_models import find_teacher, make_student
from pipeline.evaluation.stage import EvaluateModel

_DEFAULT: DistillStudentParameters = default_parameters(DistillStudentParameters)


@flow(name="distill-student", task_runner=TASK_RUNNER)
def distill_student(parameters: DistillStudentParameters = _DEFAULT) -> FlowResult:
    """Shard the data, train the teacher, distil the student, evaluate both."""
    with stage_run("distill-student", parameters) as run:
        shards = make_shards(run, parameters.data, parameters.mixture, parameters.shards)
        columns = JoinedInput.submit(run, parameters.columns, shards)
        teacher = find_teacher(run, parameters.teacher_model, parameters, shards, columns)
        student = make_student(run, parameters.student, shards, teacher, columns)
        for name, model in {"teacher": teacher, "student": student}.items():
            if model is not None:  # There is no teacher if its outputs are a joined column.
                inputs = {"shards": shards, "model": model}
                run.submit(EvaluateModel(), parameters.evaluation, inputs, label=f"evaluate {name}")
    return run.result()
