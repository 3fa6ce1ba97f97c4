"""lifecycle: from a source of images to champions, as one graph; independent stages run concurrently.

shards -> teacher -> student -> its evaluation -> student registered -> teacher registered   (the better is champion)
  |          '-> its evaluation    |
  |-> linear probe and its evaluation, then leak check, if configured: trainings wait for them
  '-> ontology ------------------> clip -> its evaluation -> dual encoder registered;  report on all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import flow

from flows.imported_weights import import_image_weights, import_text_weights, with_backbone_normalisation
from flows.joined_columns import JoinedInput, ontology_config_for
from flows.leak_check import check_leaks
from flows.parameters import LifecycleParameters
from flows.presets import default_parameters
from flows.shards_of_run import make_shards
from flows.stage_run import TASK_RUNNER, FlowResult, StageHandle, StageRun, stage_run
from flows.trained_models import make_baseline, make_student, make_teacher
from pipeline.contrastive.build_ontology import BuildOntology
from pipeline.contrastive.stage import PretrainClip
from pipeline.evaluation.stage import EvaluateModel
from pipeline.registration.stage import RegisterModel
from pipeline.report.stage import RunReport

_DEFAULT: LifecycleParameters = default_parameters(LifecycleParameters)
_NO_COLUMNS = JoinedInput(None)


@flow(name="lifecycle", task_runner=TASK_RUNNER)
def lifecycle(parameters: LifecycleParameters = _DEFAULT) -> FlowResult:
    """Shard, train, distil, align with text, evaluate, register, report."""
    with stage_run("lifecycle", parameters) as run:
        shards = make_shards(run, parameters.data, parameters.mixture)
        columns = JoinedInput.submit(run, parameters.columns, shards)
        handles: dict[str, StageHandle] = {"shards": shards}
        baseline = make_baseline(run, parameters, shards, columns)
        predecessors: list[StageHandle] = []
        if baseline:
            handles["baseline"] = baseline["probe"]
            handles["baseline-evaluation"] = _evaluate(run, parameters, "baseline", handles)
            # On few cores, concurrent stages would only delay the first accuracy of the run.
            predecessors = [handles["baseline-evaluation"]]
        checked = check_leaks(run, parameters, shards, after=predecessors)
        handles |= checked
        predecessors = [*checked.values()] or predecessors
        teacher = make_teacher(run, parameters.teacher, shards, columns, starts_from=baseline, after=predecessors)
        student = make_student(run, parameters.student, shards, teacher, columns)
        handles |= {"teacher": teacher, "student": student}

        handles["teacher-evaluation"] = _evaluate(run, parameters, "teacher", handles)
        handles["student-evaluation"] = _evaluate(run, parameters, "student", handles)
        _register_classifiers(run, parameters, handles)

        if parameters.clip is not None:
            # A new image backbone with imported weights replaces the student.
            image = import_image_weights(run, parameters.clip) or {"tower": student}
            backbones = {**image, **import_text_weights(run, parameters.clip)}
            clip = with_backbone_normalisation(run, parameters.clip, backbones)
            inputs = columns.added_to({"shards": shards, **backbones}, clip)
            if parameters.clip.policy.kind == "tonics":
                ontology = ontology_config_for(parameters.ontology, parameters.clip)
                handles["ontology"] = run.submit(
                    BuildOntology(), ontology, columns.added_to({"shards": shards}, ontology)
                )
                inputs["ontology"] = handles["ontology"]
            handles["clip"] = run.submit(PretrainClip(), clip, inputs, after=predecessors)
            handles["clip-evaluation"] = _evaluate(run, parameters, "clip", handles, columns)
            handles["clip-registration"] = _register(run, parameters, "clip", handles, lineage=["student", "ontology"])

        run.submit(RunReport(), parameters.report, handles)
    return run.result()


def _register_classifiers(run: StageRun, parameters: LifecycleParameters, handles: dict[str, StageHandle]) -> None:
    """Registers the student, the teacher, or both: first the student, with which the teacher is compared."""
    which = parameters.registration.classifier
    if which != "teacher":
        # The student's registration looks up the teacher's evaluation in the store.
        handles["classifier-registration"] = _register(
            run, parameters, "student", handles, lineage=["teacher"], after=[handles["teacher-evaluation"]]
        )
    if which != "student":
        predecessors = [handles["classifier-registration"]] if which == "better" else []
        handles["teacher-registration"] = _register(run, parameters, "teacher", handles, lineage=[], after=predecessors)


def _evaluate(
    run: StageRun,
    parameters: LifecycleParameters,
    name: str,
    handles: Mapping[str, StageHandle],
    columns: JoinedInput = _NO_COLUMNS,
) -> StageHandle:
    inputs = columns.added_to({"shards": handles["shards"], "model": handles[name]}, parameters.evaluation)
    return run.submit(EvaluateModel(), parameters.evaluation, inputs, label=f"evaluate {name}")


def _register(
    run: StageRun,
    parameters: LifecycleParameters,
    name: str,
    handles: Mapping[str, StageHandle],
    lineage: Sequence[str],
    after: Sequence[StageHandle] = (),
) -> StageHandle:
    inputs = {"model": handles[name], "evaluation": handles[f"{name}-evaluation"], "shards": handles["shards"]}
    inputs |= {parent: handles[parent] for parent in lineage if parent in handles}
    registration = parameters.registration.resolved(run.store)
    return run.submit(RegisterModel(), registration, inputs, label=f"register {name}", after=after)
