"""train-teacher: trains a classifier on shards and evaluates it."""

from __future__ import annotations

from prefect import flow

from flows.joined_columns import JoinedInput
from flows.leak_check import check_leaks
from flows.parameters import TrainTeacherParameters
from flows.presets import default_parameters
from flows.shards_of_run import make_shards
from flows.stage_run import TASK_RUNNER, FlowResult, StageHandle, stage_run
from flows.trained_models import make_baseline, make_teacher
from pipeline.evaluation.stage import EvaluateModel

_DEFAULT: TrainTeacherParameters = default_parameters(TrainTeacherParameters)


@flow(name="train-teacher", task_runner=TASK_RUNNER)
def train_teacher(parameters: TrainTeacherParameters = _DEFAULT) -> FlowResult:
    """Shard the data, train the teacher, evaluate it."""
    with stage_run("train-teacher", parameters) as run:
        shards = make_shards(run, parameters.data, parameters.mixture, parameters.shards)
        columns = JoinedInput.submit(run, parameters.columns, shards)
        baseline = make_baseline(run, parameters, shards, columns)
        predecessors: list[StageHandle] = []
        if baseline:
            inputs = {"shards": shards, "model": baseline["probe"]}
            predecessors = [run.submit(EvaluateModel(), parameters.evaluation, inputs, label="evaluate baseline")]
        checked = check_leaks(run, parameters, shards, after=predecessors)
        predecessors = [*checked.values()] or predecessors
        teacher = make_teacher(run, parameters.teacher, shards, columns, starts_from=baseline, after=predecessors)
        run.submit(EvaluateModel(), parameters.evaluation, {"shards": shards, "model": teacher})
    return run.result()
