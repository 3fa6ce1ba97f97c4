"""The data of a report, read from the artifacts of a run: trainings, evaluations, registrations, data card.

Any artifact may be absent, and so may any of its files except the manifest: the report shows what exists.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.artifacts import Artifact

# The order in which a run's artifacts are listed; others follow by name.
ORDER = (
    "shards",
    "baseline",
    "baseline-evaluation",
    "leaks",
    "teacher",
    "teacher-evaluation",
    "student",
    "student-evaluation",
    "classifier-registration",
    "teacher-registration",
    "ontology",
    "clip",
    "clip-evaluation",
    "clip-registration",
)


@dataclass(frozen=True)
class Training:
    """A trained model: the rows of metrics.jsonl, the content of training.json, the curriculum's refreshes."""

    name: str
    artifact: Artifact
    rows: list[dict[str, Any]]
    statistics: dict[str, Any]
    curriculum: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one model.

    Attributes:
        subject: the name of the model's artifact in the run, e.g. "student".
        confusion: [K, K], row is the true class.
        outcomes: id -> whether the prediction was correct, for the labelled samples.
    """

    subject: str
    artifact: Artifact
    metrics: dict[str, float]
    mistakes: list[dict[str, Any]]
    examples: dict[str, list[dict[str, Any]]]
    confusion: NDArray[np.int64] | None
    outcomes: dict[int, bool] = field(default_factory=dict)

    @property
    def split(self) -> str:
        return str(self.artifact.config.get("split", self.artifact.summary.get("split", "")))


@dataclass(frozen=True)
class RunData:
    """The data of the report."""

    artifacts: dict[str, Artifact]
    trainings: list[Training]
    evaluations: list[Evaluation]
    registrations: dict[str, Artifact]
    data_card: dict[str, Any]
    ontology: list[dict[str, Any]]
    leaks: dict[str, Any]

    @property
    def shards(self) -> Artifact | None:
        return self.artifacts.get("shards")

    @property
    def seconds(self) -> float:
        """The total time for building all artifacts."""
        return sum(artifact.seconds for artifact in self.artifacts.values())

    @property
    def finished(self) -> str:
        """When the last artifact was committed, e.g. "2026-03-14 15:09 UTC"; "" if no manifest says so.

        From the manifests, so that the same run has the same report.
        """
        times = [artifact.manifest.get("origin", {}).get("committed") for artifact in self.artifacts.values()]
        known = [float(time) for time in times if time is not None]
        return datetime.fromtimestamp(max(known), UTC).strftime("%Y-%m-%d %H:%M UTC") if known else ""

    @property
    def has_concepts(self) -> bool:
        """Whether the data distinguish concepts seen in training from unseen ones, or have an ontology."""
        measured = (name for evaluation in self.evaluations for name in evaluation.metrics)
        return bool(self.ontology) or any("unseen_concepts" in name for name in measured)

    def label_names(self, count: int) -> list[str]:
        """The names of the first `count` labels; "class 7" for one that the data card lacks."""
        names = [str(entry["label"]) for entry in self.data_card.get("per_label", [])][:count]
        return [*names, *[f"class {number}" for number in range(len(names), count)]]

    def training(self, name: str) -> Training | None:
        return next((training for training in self.trainings if training.name == name), None)


def read_run(inputs: Mapping[str, Artifact]) -> RunData:
    """Reads the data of a run from its artifacts by name."""
    rank = {name: position for position, name in enumerate(ORDER)}
    artifacts = dict(sorted(inputs.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))
    trainings, evaluations, registrations = [], [], {}
    for name, artifact in artifacts.items():
        if "metrics.jsonl" in artifact.files:
            trainings.append(
                Training(
                    name,
                    artifact,
                    _lines(artifact, "metrics.jsonl"),
                    _json(artifact, "training.json", {}),
                    _lines(artifact, "curriculum.jsonl"),
                )
            )
        elif "metrics.json" in artifact.files:
            evaluations.append(
                Evaluation(
                    name.removesuffix("-evaluation"),
                    artifact,
                    _json(artifact, "metrics.json", {}),
                    _json(artifact, "mistakes.json", []),
                    _json(artifact, "retrieval_examples.json", {}),
                    _array(artifact, "confusion.npy"),
                    _outcomes(artifact),
                )
            )
        elif artifact.stage == "register-model":
            registrations[name] = artifact
    shards, ontology = artifacts.get("shards"), artifacts.get("ontology")
    return RunData(
        artifacts,
        trainings,
        evaluations,
        registrations,
        _json(shards, "data_card.json", {}),
        _json(ontology, "ontology.json", {}).get("nodes", []),
        _json(artifacts.get("leaks"), "leaks.json", {}),
    )


def _json(artifact: Artifact | None, name: str, default: Any) -> Any:
    if artifact is None or name not in artifact.files:
        return default
    return json.loads(artifact.read(name))


def _lines(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    if name not in artifact.files:
        return []
    return [json.loads(line) for line in artifact.read(name).splitlines() if line.strip()]


def _array(artifact: Artifact, name: str) -> NDArray[np.int64] | None:
    if name not in artifact.files:
        return None
    array: NDArray[np.int64] = np.load(io.BytesIO(artifact.read(name)), allow_pickle=False)
    return array


def _outcomes(artifact: Artifact) -> dict[int, bool]:
    if "predictions.parquet" not in artifact.files:
        return {}
    table = pq.read_table(artifact.path("predictions.parquet"), columns=["id", "label", "correct"])
    rows = zip(*(table.column(name).to_pylist() for name in ("id", "label", "correct")), strict=True)
    return {id: correct for id, label, correct in rows if label >= 0}
