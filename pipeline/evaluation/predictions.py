"""A model's predictions for each sample, gathered batch by batch, and its worst mistakes."""

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
class Predictions:
    """One prediction per sample, in the order of `ids`.

    Attributes:
        ids: [N] row numbers of the index.
        labels: [N] true classes; -1 for samples without a label.
        predicted: [N] the class with the highest score.
        scores: [N] the probability of this class.
        ranks: [N] rank of the true class, 1 if predicted right; 0 for samples without a label.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]

    @classmethod
    def gather(cls, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Predictions:
        """The predictions of (ids [B], labels [B], logits [B, K]) batches; logits are not stored.

        Raises:
            WorkError: a logit is not finite.
        """
        columns: list[tuple[NDArray[Any], ...]] = []
        for ids, labels, logits in batches:
            logits = logits.detach().float()
            if not torch.isfinite(logits).all():
                first = int(ids[int((~torch.isfinite(logits).all(dim=1)).nonzero()[0, 0])])
                raise WorkError(f"evaluate: the model's output for sample {first} is not finite; train it again")
            probability, predicted = logits.softmax(dim=1).max(dim=1)
            # Softmax can round two logits to the same probability, so argmax is taken over the logits.
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
        """[N] whether the prediction is the true class; False for samples without a label."""
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
    predictions: Predictions, index: SampleIndex, label_names: Sequence[str], count: int
) -> list[dict[str, Any]]:
    """The wrong predictions with the highest confidence, the worst first; ties by id."""
    wrong = np.flatnonzero((predictions.labels >= 0) & ~predictions.correct)
    order = wrong[np.lexsort((predictions.ids[wrong], -predictions.scores[wrong]))][:count]
    return [
        {
            "id": int(predictions.ids[n]),
            "key": index.key(int(predictions.ids[n])),
            "label": label_names[predictions.labels[n]],
            "predicted": label_names[predictions.predicted[n]],
            "score": float(predictions.scores[n]),
        }
        for n in order
    ]
