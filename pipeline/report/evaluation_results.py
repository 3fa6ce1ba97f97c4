"""An evaluation with the names that people need: those of its classes, and of its images in their source."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.artifacts import Artifact
from pipeline.errors import InputError
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.item_names import item_names


@dataclass(frozen=True)
class ClassResult:
    """The number of the images of a class that were predicted correctly."""

    label: str
    right: int
    images: int

    @property
    def accuracy(self) -> float:
        return self.right / self.images


@dataclass(frozen=True, eq=False)
class EvaluationResults:
    """An evaluation, read from its artifact.

    Attributes:
        artifact: the evaluation.
        shards: the images.
        labels: names of the classes, by their numbers in the predictions.
        columns: predictions.parquet by column, one row per image.
        confusion: [K, K], row is the true class; None without labelled images.
    """

    artifact: Artifact
    shards: Artifact
    labels: tuple[str, ...]
    metrics: dict[str, float]
    columns: dict[str, NDArray[Any]]
    confusion: NDArray[np.int64] | None
    mistakes: list[dict[str, Any]]

    @classmethod
    def read(cls, artifact: Artifact) -> EvaluationResults:
        """The evaluation in an artifact.

        Raises:
            InputError: it is no evaluation.
            DamagedError: a file is damaged, or its shards are no longer in the store.
        """
        if artifact.stage != "evaluate":
            raise InputError(f"{artifact.name}: is no evaluation; evaluate a model by `tutelage evaluate`")
        shards = artifact.in_same_store(artifact.manifest["inputs"]["shards"])
        files = artifact.files
        table = pq.read_table(artifact.path("predictions.parquet"))
        return cls(
            artifact=artifact,
            shards=shards,
            labels=tuple(json.loads(artifact.read("labels.json")))
            if "labels.json" in files
            else SampleIndex.open(shards).label_names,
            metrics=json.loads(artifact.read("metrics.json")),
            columns={name: table.column(name).to_numpy() for name in table.column_names},
            confusion=np.load(io.BytesIO(artifact.read("confusion.npy")), allow_pickle=False)
            if "confusion.npy" in files
            else None,
            mistakes=json.loads(artifact.read("mistakes.json")) if "mistakes.json" in files else [],
        )

    @property
    def model(self) -> str:
        """STAGE/KEY of the model."""
        return str(self.artifact.manifest["inputs"]["model"])

    @property
    def split(self) -> str:
        return str(self.artifact.config["split"])

    @property
    def data_in_words(self) -> str:
        """The source of the images and the split, e.g. "photos/new, all splits"."""
        source = str(self.shards.summary.get("source", self.shards.name))
        return f"{source}, {'all splits' if self.split == 'all' else f'{self.split} split'}"

    def names(self, ids: Iterable[int]) -> dict[int, str]:
        """The name of each image in its source; its key where the source has no names."""
        wanted = {int(id) for id in ids}
        rows = np.flatnonzero(np.isin(self.columns["id"], list(wanted)))
        keys = {int(self.columns["id"][row]): str(self.columns["key"][row]) for row in rows}
        return {**keys, **item_names(self.shards, wanted)}

    def classes(self) -> list[ClassResult]:
        """The classes that have images, the worst first; of equally bad ones the largest first."""
        if self.confusion is None:
            return []
        totals, right = self.confusion.sum(axis=1), np.diag(self.confusion)
        results = [ClassResult(self.labels[c], int(right[c]), int(totals[c])) for c in np.flatnonzero(totals).tolist()]
        return sorted(results, key=lambda result: (result.accuracy, -result.images, result.label))
