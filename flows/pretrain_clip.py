"""pretrain-clip: the student's body and a text tower are aligned on captions, under a curriculum."""

from __future__ import annotations

from prefect import flow

from flows.parameters import PretrainClipParameters
from flows.presets import default_parameters
from flows.stage_run import SIDE_BY_SIDE, Made, RunSummary, StageRun, stages_of
from pipeline.contrastive.build_ontology import BuildOntology
from pipeline.contrastive.stage import PretrainClip
from pipeline.distillation.stage import DistillStudent
from pipeline.evaluation.stage import EvaluateModel
from pipeline.sharding.stage import ShardDataset
from pipeline.training.stage import TrainTeacher

_DEFAULT: PretrainClipParameters = default_parameters(PretrainClipParameters)


@flow(name="pretrain-clip", task_runner=SIDE_BY_SIDE)
def pretrain_clip(parameters: PretrainClipParameters = _DEFAULT) -> RunSummary:
    """Shard the data, get an image tower, build the ontology, align images with text, measure."""
    with stages_of("pretrain-clip", parameters) as run:
        shards = run.named(parameters.shards) or run.make(ShardDataset(), parameters.data.resolved())
        tower = run.named(parameters.tower) or _student(run, parameters, shards)
        inputs: dict[str, Made] = {"shards": shards, "tower": tower}
        if parameters.clip.policy.kind == "tonics":
            inputs["ontology"] = run.make(BuildOntology(), parameters.ontology, {"shards": shards})
        clip = run.make(PretrainClip(), parameters.clip, inputs)
        run.make(EvaluateModel(), parameters.evaluation, {"shards": shards, "model": clip}, label="evaluate clip")
    return run.summary()


def _student(run: StageRun, parameters: PretrainClipParameters, shards: Made) -> Made:
    teacher = run.named(parameters.teacher_model) or run.make(TrainTeacher(), parameters.teacher, {"shards": shards})
    return run.make(DistillStudent(), parameters.student, {"shards": shards, "teacher": teacher})
