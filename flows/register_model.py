"""register-model: evaluates and registers a model, which becomes the champion if it is better."""

from __future__ import annotations

from prefect import flow

from flows.joined_columns import JoinedInput
from flows.parameters import RegisterModelParameters
from flows.presets import default_parameters
from flows.shards_of_run import make_shards
from flows.stage_run import TASK_RUNNER, FlowResult, StageHandle, stage_run
from flows.trained_models import find_teacher, make_student
from pipeline.evaluation.stage import EvaluateModel
from pipeline.registration.stage import RegisterModel

_DEFAULT: RegisterModelParameters = default_parameters(RegisterModelParameters)


@flow(name="register-model", task_runner=TASK_RUNNER)
def register_model(parameters: RegisterModelParameters = _DEFAULT) -> FlowResult:
    """Take the named model, or train the student; evaluate it, register it, apply the gate."""
    with stage_run("register-model", parameters) as run:
        existing = run.existing(parameters.model)
        # An existing model is evaluated on the shards that it was trained on, and its lineage includes its teacher.
        shards_of_model = parameters.shards or run.input_of(existing, "shards")
        shards = make_shards(run, parameters.data, parameters.mixture, shards_of_model)
        columns = JoinedInput.submit(run, parameters.columns, shards)
        inputs: dict[str, StageHandle] = {"shards": shards}
        teacher: StageHandle | None = run.existing(parameters.teacher_model or run.input_of(existing, "teacher"))
        if existing is None:
            teacher = teacher or find_teacher(run, None, parameters, shards, columns)
            inputs["model"] = make_student(run, parameters.student, shards, teacher, columns)
        else:
            inputs["model"] = existing
        inputs["evaluation"] = run.submit(
            EvaluateModel(), parameters.evaluation, columns.added_to(inputs, parameters.evaluation)
        )
        if teacher is not None:
            inputs["teacher"] = teacher
        run.submit(RegisterModel(), parameters.registration.resolved(run.store), inputs)
    return run.result()
