"""The arguments of `tutelage compare`: runs, evaluations or models, and the evaluations by which they are compared."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flows.cli.artifact_commands import commit_time
from flows.cli.model_argument import names_of_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError, UnknownNameError

EVALUATE, REPORT = "evaluate", "run-report"
_REGISTRATION = "register-model"
_CLASSIFIER_REGISTRATIONS = ("classifier-registration", "teacher-registration")
_SUFFIX = "-evaluation"
_REPORT_FILE = re.compile(rf"(?:(?:.*/)?artifacts/)?({REPORT}/[0-9a-f]+)/(?:.*/)?report\.html")
"""The path of a report as a run prints it: in a folder, in a bucket, or of its copy in the cache."""


@dataclass(frozen=True)
class Side:
    """A or B: one of the two arguments.

    Attributes:
        argument: as the user wrote it.
        evaluations: of a model all its evaluations, the latest first; of an evaluation or a run exactly one.
        models: STAGE/KEY of each artifact that may be the model; empty if the argument is an evaluation or a run.
    """

    argument: str
    evaluations: tuple[Artifact, ...]
    models: tuple[str, ...] = ()


def evaluations_of(a: str, b: str, store: ArtifactStore) -> tuple[Artifact, Artifact]:
    """An evaluation of A and one of B: the latest pair on the same shards and split.

    If there is none and neither argument names a model, the two evaluations that the arguments name. Of a run, that of
    the model that it promoted; of a run that promoted none, that of the model with the same name in the other run, so
    that a student is not compared with a teacher.

    Args:
        a, b: run-report/KEY (with :NAME for another model than the promoted classifier), evaluate/KEY, an artifact of
            a model, models:/NAME@ALIAS or models:/NAME/VERSION, or the folder of an exported model.
    Raises:
        InputError: an argument names nothing, both name the same, or a model was not evaluated on the data of the
            other; then the message has the command that evaluates it.
    """
    evaluations = sorted(store.list(EVALUATE), key=commit_time, reverse=True)
    models = _promoted_model(a, store), _promoted_model(b, store)
    sides = _side(a, evaluations, store, models[0] or models[1]), _side(b, evaluations, store, models[1] or models[0])
    if set(sides[0].models) & set(sides[1].models):
        raise InputError(f"{a} and {b} are the same model, {sides[0].models[0]}; give two")
    alike = [
        (x, y) for x in sides[0].evaluations for y in sides[1].evaluations if _evaluation_data(x) == _evaluation_data(y)
    ]
    pairs = [(x, y) for x, y in alike if x.name != y.name]
    if pairs:
        return max(pairs, key=lambda pair: (commit_time(pair[0]), commit_time(pair[1])))
    if alike:
        raise InputError(f"{a} and {b} are the same evaluation, {alike[0][0].name}; give two")
    if not sides[0].models and not sides[1].models:
        return sides[0].evaluations[0], sides[1].evaluations[0]
    raise InputError(_missing_evaluation_line(sides, store))


def _side(argument: str, evaluations: list[Artifact], store: ArtifactStore, default_model: str | None) -> Side:
    """
    Args:
        default_model: the model of a run for which the argument names none, e.g. "student"; None: the first that it has
            of student and teacher.
    """
    reference, name = _reference(argument, store)
    stage = reference.partition("/")[0]
    if stage == EVALUATE and not name:
        return Side(argument, (store.resolve(reference),))
    if stage == REPORT:
        return Side(argument, (_of_run(argument, store.resolve(reference), name, default_model, store),))
    models = names_of_model(argument, store)
    return Side(
        argument,
        tuple(evaluation for evaluation in evaluations if evaluation.manifest["inputs"].get("model") in models),
        models,
    )


def _reference(argument: str, store: ArtifactStore) -> tuple[str, str]:
    """STAGE/KEY of an argument, from the path or the URL of an artifact too, and NAME if it ends with :NAME."""
    report = _REPORT_FILE.fullmatch(argument)
    if report is not None:
        return report[1], ""
    reference, _, name = argument.removeprefix(f"{store.storage.url}/artifacts/").partition(":")
    return reference, name


def _of_run(argument: str, report: Artifact, name: str, default_model: str | None, store: ArtifactStore) -> Artifact:
    """The evaluation of a run's model `name`; without a name, see `_side`."""
    known = _evaluations_of_run(report)
    if not known:
        raise InputError(f"{argument}: this run has evaluated no model; give a run of the lifecycle")
    if name and name not in known:
        raise UnknownNameError(f"model of {report.name}", name, known)
    order = (name, default_model, "student", "teacher", *known)
    return store.get(next(known[model] for model in order if model in known))


def _evaluations_of_run(report: Artifact) -> dict[str, str]:
    """STAGE/KEY of the evaluation of each model of a run, by the model's name, e.g. "student"."""
    inputs = report.manifest["inputs"]
    return {key.removesuffix(_SUFFIX): value for key, value in inputs.items() if key.endswith(_SUFFIX)}


def _promoted_model(argument: str, store: ArtifactStore) -> str | None:
    """The name of the classifier that a run promoted last; None if it promoted none, or the argument is no run."""
    reference, _ = _reference(argument, store)
    if reference.partition("/")[0] != REPORT:
        return None
    report = store.resolve(reference)
    inputs = report.manifest["inputs"]
    registrations = [store.find(inputs[key]) for key in _CLASSIFIER_REGISTRATIONS if key in inputs]
    promoted = [artifact for artifact in registrations if artifact is not None and artifact.summary.get("promoted")]
    evaluation = max(promoted, key=commit_time).manifest["inputs"]["evaluation"] if promoted else None
    return next((name for name, value in _evaluations_of_run(report).items() if value == evaluation), None)


def _evaluation_data(evaluation: Artifact) -> tuple[str, str]:
    """The shards and the split that were evaluated; equal ones mean equal samples, unless labels were left out."""
    return evaluation.manifest["inputs"]["shards"], str(evaluation.config["split"])


def _missing_evaluation_line(sides: tuple[Side, Side], store: ArtifactStore) -> str:
    """The error line: which model was not evaluated on which data, with the command that does it."""
    measured = next((side for side in sides if side.evaluations), None)
    if measured is None:
        shards = _training_data(sides[0].models, store) or "STAGE/KEY"
        commands = [f"`tutelage evaluate {side.argument} --data {shards}`" for side in sides]
        return f"neither {sides[0].argument} nor {sides[1].argument} was evaluated; run {' and '.join(commands)}"
    # The side to evaluate: the one without evaluations; if both have some, a model rather than a run.
    other = sides[1] if measured is sides[0] else sides[0]
    if not other.models:
        measured, other = other, measured
    shards, split = _evaluation_data(measured.evaluations[0])
    return (
        f"{other.argument} was not evaluated on the data of {measured.argument}; run "
        f"`tutelage evaluate {other.argument} --data {shards} --split {split}`, then compare again"
    )


def _training_data(models: tuple[str, ...], store: ArtifactStore) -> str | None:
    model = next(filter(None, (store.find(name) for name in models)), None)
    return None if model is None else model.manifest["inputs"].get("shards")


def cost_of(model: str, store: ArtifactStore) -> dict[str, float] | None:
    """Parameters, megabytes and latency_ms that a registration of the model measured; None if it has none."""
    for registration in sorted(store.list(_REGISTRATION), key=commit_time, reverse=True):
        if registration.manifest["inputs"].get("model") == model and "latency_ms" in registration.summary:
            return {name: registration.summary[name] for name in ("parameters", "megabytes", "latency_ms")}
    return None
