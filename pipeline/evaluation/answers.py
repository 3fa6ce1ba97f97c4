"""Answers: what a model said about each sample, gathered batch by batch, and its worst mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import WorkError
from pipeline.evaluation.metrics import label_ranks
from pipeline.sharding.format.index import SampleIndex


@dataclass(frozen=True)
class Answers:
    """One answer a sample, in the order of `ids`.

    Attributes:
        ids: [N] row numbers of the index.
        labels: [N] true classes; -1 where a sample has none.
        predicted: [N] the class with the highest score.
        scores: [N] the probability given to it.
        ranks: [N] place of the true class, 1 for right; 0 where there is none.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]

    @classmethod
    def gather(cls, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Answers:
        """The answers of (ids [B], labels [B], logits [B, K]) batches; logits are not kept.

        Raises:
            WorkError: the model gave something else than numbers.
        """
        columns: list[tuple[NDArray[Any], ...]] = []
        for ids, labels, logits in batches:
            logits = logits.detach().float()
            if not torch.isfinite(logits).all():
                bad = int(ids[int((~torch.isfinite(logits).all(dim=1)).nonzero()[0, 0])])
                raise WorkError(f"evaluate: the model's output for sample {bad} is not finite; train it again")
            probability, predicted = logits.softmax(dim=1).max(dim=1)
            # Softmax can round two logits to one probability, so the answer comes from the logits.
            predicted = logits.argmax(dim=1)
            true = labels.cpu().numpy()
            ranks = label_ranks(logits.cpu().numpy(), np.maximum(true, 0))
            columns.append(
                (
                    ids.cpu().numpy(),
                    true,
                    predicted.cpu().numpy(),
                    probability.double().cpu().numpy(),
                    np.where(true >= 0, ranks, 0),
                )
            )
        return cls(*(np.concatenate(column) for column in zip(*columns, strict=True)))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """[N] whether the answer is the true class; never for a sample without one."""
        return self.ranks == 1

    def table(self, index: SampleIndex, **columns: NDArray[Any]) -> pa.Table:
        """The rows of predictions.parquet, in the order of the ids."""
        return pa.table(
            {
                "id": self.ids,
                "key": [index.key(id) for id in self.ids],
                "label": self.labels,
                "predicted": self.predicted,
                "score": self.scores,
                "correct": self.correct,
                "label_rank": self.ranks,
                **columns,
            }
        )


def worst_mistakes(
    answers: Answers, index: SampleIndex, label_names: Sequence[str], count: int
) -> list[dict[str, Any]]:
    """The wrong answers that were given with most confidence, the worst first; equal ones by id."""
    wrong = np.flatnonzero((answers.labels >= 0) & ~answers.correct)
    order = wrong[np.lexsort((answers.ids[wrong], -answers.scores[wrong]))][:count]
    return [
        {
            "id": int(answers.ids[place]),
            "key": index.key(int(answers.ids[place])),
            "label": label_names[answers.labels[place]],
            "predicted": label_names[answers.predicted[place]],
            "score": float(answers.scores[place]),
        }
        for place in order
    ]
