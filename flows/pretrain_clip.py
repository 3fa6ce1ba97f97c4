"""pretrain-clip: aligns the student's backbone and a text backbone on captions, under a curriculum."""

from __future__ import annotations

from prefect import flow

from flows.imported_weights import import_image_weights, import_text_weights, with_backbone_normalisation
from flows.joined_columns import JoinedInput, ontology_config_for
from flows.parameters import PretrainClipParameters
from flows.presets import default_parameters
from flows.shards_of_run import make_shards
from flows.stage_run import TASK_RUNNER, FlowResult, StageHandle, StageRun, stage_run
from flows.trained_models import find_teacher, make_student
from pipeline.contrastive.build_ontology import BuildOntology
from pipeline.contrastive.stage import PretrainClip
from pipeline.evaluation.stage import EvaluateModel

_DEFAULT: PretrainClipParameters = default_parameters(PretrainClipParameters)


@flow(name="pretrain-clip", task_runner=TASK_RUNNER)
def pretrain_clip(parameters: PretrainClipParameters = _DEFAULT) -> FlowResult:
    """Shard the data, get an image backbone, build the ontology, align images with text, evaluate."""
    with stage_run("pretrain-clip", parameters) as run:
        shards = make_shards(run, parameters.data, parameters.mixture, parameters.shards)
        columns = JoinedInput.submit(run, parameters.columns, shards)
        backbones = _backbone_inputs(run, parameters, shards, columns)
        config = with_backbone_normalisation(run, parameters.clip, backbones)
        inputs = columns.added_to({"shards": shards, **backbones}, config)
        if parameters.clip.policy.kind == "tonics":
            ontology_config = ontology_config_for(parameters.ontology, parameters.clip)
            inputs["ontology"] = run.submit(
                BuildOntology(), ontology_config, columns.added_to({"shards": shards}, ontology_config)
            )
        clip = run.submit(PretrainClip(), config, inputs)
        evaluation_inputs = columns.added_to({"shards": shards, "model": clip}, parameters.evaluation)
        run.submit(EvaluateModel(), parameters.evaluation, evaluation_inputs, label="evaluate clip")
    return run.result()


def _backbone_inputs(
    run: StageRun, parameters: PretrainClipParameters, shards: StageHandle, columns: JoinedInput
) -> dict[str, StageHandle]:
    """The inputs of the backbones: an existing classifier, imported weights, or a student trained in this run."""
    existing = run.existing(parameters.tower)
    if existing is not None:
        return {"tower": existing, **import_text_weights(run, parameters.clip)}
    if parameters.clip.new_tower.model.pretrained is not None:
        return {**import_image_weights(run, parameters.clip), **import_text_weights(run, parameters.clip)}
    teacher = find_teacher(run, parameters.teacher_model, parameters, shards, columns)
    student = make_student(run, parameters.student, shards, teacher, columns)
    return {"tower": student, **import_text_weights(run, parameters.clip)}
