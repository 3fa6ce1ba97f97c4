"""The stage register-model: an evaluated model -> a registry version, and the champion if it is better.

register the model, or find its version
  -> evaluate the champion on the same samples, if there is one
  -> under the promotion lease: is it still the champion? the gate decides whether the alias moves
  -> decision, reason and lineage become tags of the version, and its description is the model card
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

import numpy as np

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import digest
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.registration.against_teacher import against_teacher
from pipeline.registration.config import RegistrationConfig
from pipeline.registration.cost import image_cost
from pipeline.registration.gate import Decision, Outcomes, decide
from pipeline.registration.mlflow_registry import (
    CHAMPION,
    MODEL_TAG,
    RegisteredVersion,
    Registry,
)
from pipeline.registration.model_card import licences, model_card
from pipeline.registration.outcomes import champion_outcomes, read_metrics, read_outcomes
from pipeline.registration.promotion_lease import promotion_lease
from pipeline.stage import Workspace
from pipeline.training.starting_weights import STAGE
from pipeline.training.tracking import mlflow_failures

_STAGES_WITH_WEIGHTS = (STAGE, "linear-probe", "train-teacher", "distill-student", "pretrain-clip")


class RegisterModel:
    """model + evaluation + shards -> a version, perhaps the champion; registration.json, model_card.md."""

    name: ClassVar[str] = "register-model"
    version: ClassVar[int] = 2

    def run(self, config: RegistrationConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Registers `inputs["model"]`.

        Args:
            config: resolved.
            inputs: "model", its "evaluation", the "shards" of the evaluation; further ones are recorded as lineage.
        """
        model, evaluation, shards = inputs["model"], inputs["evaluation"], inputs["shards"]
        _check_inputs(model, evaluation, shards)
        registry = Registry.open(work.store, in_a_run=True)
        if config.registry_id != registry.identity():
            raise InputError("register-model: the config is not of this registry; pass config.resolved(store)")
        exported = ExportedModel.open(model)
        name = config.name_for(exported)
        challenger = read_outcomes(evaluation)
        metrics = read_metrics(evaluation)
        data = json.loads(shards.read("data_card.json"))
        lineage = {**_lineage(inputs, data), **imported_weights(model, work.store)}
        card = partial(
            model_card, name, exported, split=evaluation.config["split"], metrics=metrics, data=data, lineage=lineage
        )
        with mlflow_failures(f"{name} is not registered, or not promoted"):
            version = registry.find(name, model.name)
            if version is None:
                work.progress(note=f"exporting and registering {name}")
                tags = {f"tutelage.{key}": value for key, value in lineage.items()}
                # The promotion lease also guards registration: it is held for a moment only, after the export.
                lock = promotion_lease(work.store.storage, name, length_s=120.0)
                # Replaced below, when the version is known.
                description = card(model_uri=f"models:/{name}@{CHAMPION}")
                version = registry.register(
                    name, exported, tags=tags, metrics=metrics, description=description, lock=lock
                )
            decision, compared_with = _settle(config, registry, version, challenger, inputs, work)
            champion = registry.champion(name)
            is_champion = champion is not None and champion.version == version.version
            model_uri = f"models:/{name}@{CHAMPION}" if is_champion else f"models:/{name}/{version.version}"
            # Its own version, not the champion's alias, which will point at another version one day.
            description = card(model_uri=f"models:/{name}/{version.version}", decision=decision)
            registry.describe(version, description)
        cost = image_cost(exported)
        compared = against_teacher(cost, challenger, inputs, work.store)
        summary = {
            "name": name,
            "version": version.version,
            "promoted": decision.promote,
            "reason": decision.reason,
            "champion": champion.version if champion is not None else None,
            "lookup": f'mlflow.pyfunc.load_model("{model_uri}")',
            "tracking_uri": registry.shown_uri,
            **cost,
            **({"against_teacher": compared} if compared is not None else {}),
        }
        record = {**summary, "gate": asdict(decision), "compared_with": compared_with, "lineage": lineage}
        (work.output / "registration.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        (work.output / "model_card.md").write_text(description, encoding="utf-8")
        standing = "champion" if is_champion else "not promoted"
        words = f"{name} version {version.version}, {standing}: {decision.reason}"
        return {**summary, "headline": words}


def _settle(
    config: RegistrationConfig,
    registry: Registry,
    version: RegisteredVersion,
    challenger: Outcomes,
    inputs: Mapping[str, Artifact],
    work: Workspace,
) -> tuple[Decision, int | None]:
    """Compares with the current champion and promotes or not; returns the decision and the champion's version, if any.

    Evaluating a champion can take long, so it is done before the lease is taken; if another version has become
    champion meanwhile, that one is evaluated.
    """
    while True:
        champion = registry.champion(version.name)
        decision = _judge(config, registry, version, champion, challenger, inputs, work)
        with promotion_lease(
            work.store.storage, version.name, on_wait=lambda: work.progress(note="waiting for another promotion")
        ) as lease:
            current = registry.champion(version.name)
            if (current and current.version) != (champion and champion.version):
                continue
            if champion is None or champion.version != version.version:
                lease.check()
                if decision.promote:
                    registry.promote(version)
                other = champion if decision.promote else version
                if other is not None:
                    registry.name_challenger(other)
            compared_with = champion.version if champion is not None else None
            registry.set_tags(version, _decision_tags(decision, compared_with))
            return decision, compared_with


def _judge(
    config: RegistrationConfig,
    registry: Registry,
    version: RegisteredVersion,
    champion: RegisteredVersion | None,
    challenger: Outcomes,
    inputs: Mapping[str, Artifact],
    work: Workspace,
) -> Decision:
    if champion is None:
        return decide(challenger, None, config.gate)
    if champion.version == version.version:
        return Decision(True, f"it is the champion already; {challenger.measure} {challenger.mean:.4f}")
    try:
        defender = champion_outcomes(champion, registry, inputs["evaluation"], inputs["shards"], work)
        if not np.array_equal(defender.ids, challenger.ids):  # with evaluation.unknown_labels=leave_out
            raise InputError("it does not know all labels of the data")
    except InputError as error:
        if config.if_incomparable == "promote":
            without_champion = decide(challenger, None, config.gate)
            return Decision(
                without_champion.promote, f"the champion cannot be compared ({error}); {without_champion.reason}"
            )
        return Decision(False, f"the champion cannot be compared ({error}); set if_incomparable=promote to replace it")
    return decide(challenger, defender, config.gate)


def _check_inputs(model: Artifact, evaluation: Artifact, shards: Artifact) -> None:
    evaluated = evaluation.manifest["inputs"]
    for name, artifact in (("model", model), ("shards", shards)):
        if evaluated.get(name) != artifact.name:
            raise InputError(
                f"register-model: {evaluation.name} evaluated {name} {evaluated.get(name)}, not {artifact.name};"
                " give the evaluation of this model on these shards"
            )


def _lineage(inputs: Mapping[str, Artifact], data: Mapping[str, Any]) -> dict[str, str]:
    model = inputs["model"]
    origin = model.manifest["origin"]
    return {
        **{name: artifact.name for name, artifact in inputs.items()},
        MODEL_TAG.removeprefix("tutelage."): model.name,
        "config": digest(model.config),
        "code": origin.get("tutelage", "unknown"),
        "commit": origin.get("commit", "unknown"),
        "data_licences": "; ".join(licences(data)) or "not stated",
    }


def imported_weights(model: Artifact, store: ArtifactStore) -> dict[str, str]:
    """Imported weights in the ancestry of the model, with their licences; {} if there are none.

    The licences behind a model that was removed from the store are stated as not known.
    """
    licence_lines: dict[str, str] = {}
    waiting, seen = [model], {model.name}
    while waiting:
        artifact = waiting.pop()
        if artifact.stage == STAGE:
            licence_lines[artifact.name] = f"{artifact.summary['name']}: {artifact.summary['licence']}"
        for artifact_name in artifact.manifest["inputs"].values():
            if artifact_name in seen:
                continue
            seen.add(artifact_name)
            ancestor = store.find(artifact_name)
            if ancestor is not None:
                waiting.append(ancestor)
            elif artifact_name.partition("/")[0] in _STAGES_WITH_WEIGHTS:
                licence_lines[artifact_name] = f"{artifact_name}: not known, since it was removed"
    if not licence_lines:
        return {}
    lines = (line for _, line in sorted(licence_lines.items()))
    return {"pretrained": "; ".join(sorted(licence_lines)), "pretrained_licences": "; ".join(lines)}


def _decision_tags(decision: Decision, compared_with: int | None) -> dict[str, str]:
    tags = {"promoted": "yes" if decision.promote else "no", "reason": decision.reason}
    if compared_with is not None:
        tags["compared_with"] = str(compared_with)
    if decision.p_value is not None:
        tags["p_value"] = f"{decision.p_value:.6g}"
    return {f"tutelage.{key}": value for key, value in tags.items()}
