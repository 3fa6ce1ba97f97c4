"""Two evaluations on the same samples: measures side by side, the paired test, and the samples on which they differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.evaluation.difference import accuracy_difference, score_difference
from pipeline.evaluation.paired_test import BootstrapResult, McNemarResult, mcnemar, paired_bootstrap
from pipeline.report.comparison_measures import (
    SCORE,
    Answers,
    Measure,
    classifier_measures,
    recall_measures,
    score_measure,
)
from pipeline.report.evaluation_results import EvaluationResults
from pipeline.sharding.format.index import SampleIndex

Group = Literal["only_b", "only_a", "both_wrong"]


@dataclass(frozen=True, slots=True)
class DifferingSample:
    """A sample for which the models have different answers.

    Attributes:
        group: only_a: only A is right; only_b: only B is; both_wrong: they are wrong in different ways.
        id: its number in the shards of A.
        a, b: the answers; a_score, b_score: their probabilities.
    """

    group: Group
    id: int
    label: str
    a: str
    a_score: float
    b: str
    b_score: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two evaluations, and the samples that both have.

    Attributes:
        a_rows, b_rows: [n] rows of the common samples in the predictions of A and of B.
    """

    a: EvaluationResults
    b: EvaluationResults
    a_rows: NDArray[np.int64]
    b_rows: NDArray[np.int64]

    @classmethod
    def of(cls, a: EvaluationResults, b: EvaluationResults) -> Comparison:
        """The comparison on the common samples: those with the same key, bytes and label.

        Raises:
            InputError: there are none, or they have neither labels nor ranks.
        """
        a_names, b_names = _identities(a, b), _identities(b, a)
        positions = {name: row for row, name in enumerate(a_names)}
        pairs = [(positions[name], row) for row, name in enumerate(b_names) if name in positions]
        rows = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
        comparison = cls(a, b, rows[:, 0], rows[:, 1])
        if not len(rows):
            raise InputError(
                f"{a.artifact.name} and {b.artifact.name} have no image in common: {a.data_in_words}; "
                f"{b.data_in_words}. Evaluate both models on the same data: "
                f"tutelage evaluate MODEL --data {a.shards.name}"
            )
        if not comparison.labelled.any() and not comparison.ranked.any():
            raise InputError(
                f"{a.artifact.name} and {b.artifact.name} have no labels or captions in common; nothing to compare"
            )
        return comparison

    @property
    def samples(self) -> int:
        return len(self.a_rows)

    @property
    def has_only_common_samples(self) -> bool:
        """Whether each evaluation has only the common samples."""
        return self.samples == len(self.a.columns["id"]) == len(self.b.columns["id"])

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """[n] whether a common sample has a label."""
        labelled: NDArray[np.bool_] = self.a.columns["label"][self.a_rows] >= 0
        return labelled

    @cached_property
    def ranked(self) -> NDArray[np.bool_]:
        """[n] whether a common sample has ranks of both models among the same candidates."""
        has_ranks = (
            all("text_rank" in evaluation.columns for evaluation in (self.a, self.b)) and self.has_only_common_samples
        )
        if not has_ranks:
            return np.zeros(self.samples, dtype=np.bool_)
        a, b = self._reciprocal_ranks
        return np.isfinite(a) & np.isfinite(b)

    @cached_property
    def accuracy_test(self) -> McNemarResult | None:
        """McNemar's test of B against A; None without labels."""
        if not self.labelled.any():
            return None
        a, b = self._correct
        return mcnemar(b[self.labelled], a[self.labelled])

    @cached_property
    def score_test(self) -> BootstrapResult | None:
        """Paired bootstrap of the reciprocal ranks of B against A; None without them."""
        if not self.ranked.any():
            return None
        a, b = self._reciprocal_ranks
        return paired_bootstrap(b[self.ranked], a[self.ranked])

    def sentences(self, a: str = "A", b: str = "B") -> list[str]:
        """The results of the tests, each in one sentence.

        Args:
            a, b: names of the models.
        """
        sentences = []
        if self.accuracy_test is not None:
            sentences.append(accuracy_difference(self.accuracy_test, b, a))
        if self.score_test is not None:
            sentences.append(score_difference(self.score_test, int(self.ranked.sum()), SCORE, b, a))
        return sentences

    def measures(self) -> list[Measure]:
        """The measures that both have, on the common samples."""
        rows: list[Measure] = []
        if self.labelled.any():
            top_5 = min(len(self.a.labels), len(self.b.labels)) > 5
            rows += classifier_measures(
                self._answers(self.a, self.a_rows), self._answers(self.b, self.b_rows), top_5=top_5
            )
        if self.ranked.any():
            a, b = self._reciprocal_ranks
            rows.append(score_measure(a[self.ranked], b[self.ranked]))
            rows += recall_measures(self.a.metrics, self.b.metrics)
        return rows

    def differing(self) -> list[DifferingSample]:
        """The samples with different answers: first those that only B has right, then A, then none.

        Within each group the most confident mistakes are first.
        """
        samples = []
        (a_labels, b_labels), (a_correct, b_correct) = (self.a.labels, self.b.labels), self._correct
        for n in np.flatnonzero(self.labelled).tolist():
            a_row, b_row = self.a_rows[n], self.b_rows[n]
            a, b = a_labels[self.a.columns["predicted"][a_row]], b_labels[self.b.columns["predicted"][b_row]]
            if a == b:
                continue
            group: Group = "only_a" if a_correct[n] else "only_b" if b_correct[n] else "both_wrong"
            label = a_labels[self.a.columns["label"][a_row]]
            scores = float(self.a.columns["score"][a_row]), float(self.b.columns["score"][b_row])
            samples.append(DifferingSample(group, int(self.a.columns["id"][a_row]), label, a, scores[0], b, scores[1]))
        order = {"only_b": 0, "only_a": 1, "both_wrong": 2}
        return sorted(samples, key=lambda sample: (order[sample.group], -_confidence_of_mistake(sample), sample.id))

    @property
    def _correct(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return self.a.columns["correct"][self.a_rows], self.b.columns["correct"][self.b_rows]

    @property
    def _reciprocal_ranks(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        a, b = (
            (1 / evaluation.columns["text_rank"][rows] + 1 / evaluation.columns["image_rank"][rows]) / 2
            for evaluation, rows in ((self.a, self.a_rows), (self.b, self.b_rows))
        )
        return a, b

    def _answers(self, evaluation: EvaluationResults, rows: NDArray[np.int64]) -> Answers:
        """The answers of A or B on the labelled common samples, with class numbers over the labels of both."""
        names = {name: number for number, name in enumerate(dict.fromkeys((*self.a.labels, *self.b.labels)))}
        numbers = np.array([names[label] for label in evaluation.labels], dtype=np.int64)
        columns = {name: column[rows[self.labelled]] for name, column in evaluation.columns.items()}
        return Answers(
            labels=numbers[columns["label"]],
            predicted=numbers[columns["predicted"]],
            correct=columns["correct"],
            confidence=columns["score"],
            ranks=columns["label_rank"],
            num_classes=len(names),
        )


def _identities(evaluation: EvaluationResults, other: EvaluationResults) -> list[tuple[object, ...]]:
    """For each sample of `evaluation` a tuple that is equal for the same sample of `other`.

    It has the id and the label, or for different shards the key, the content hash and the label.
    """
    labels = [evaluation.labels[label] if label >= 0 else None for label in evaluation.columns["label"].tolist()]
    if evaluation.shards.name == other.shards.name:
        return list(zip(evaluation.columns["id"].tolist(), labels, strict=True))
    index = SampleIndex.open(evaluation.shards)
    hashes = index.content_hashes.take(pa.array(evaluation.columns["id"])).to_pylist()
    return list(zip(evaluation.columns["key"].tolist(), hashes, labels, strict=True))


def _confidence_of_mistake(sample: DifferingSample) -> float:
    return {"only_a": sample.b_score, "only_b": sample.a_score}.get(sample.group, max(sample.a_score, sample.b_score))
