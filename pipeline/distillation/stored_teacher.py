"""A teacher that answered before: its outputs are a joined column, and it is not run.

It saw the images as they are stored. The student sees crops of them in other colours, and learns the answer to the
whole picture: less than a teacher gives that looks at the same view (Beyer 2022, "Knowledge distillation: A good
teacher is patient and consistent"), at no cost in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.distillation.losses import DistillationLossConfig, Outputs
from pipeline.errors import InputError
from pipeline.loading.batch import Batch
from pipeline.loading.policies.row_runs import RowRuns
from pipeline.sharding.format.joined_columns import JoinedColumns
from pipeline.training.mixing import partners

if TYPE_CHECKING:
    from pipeline.sharding.format.index import SampleIndex

_LEAST = 1e-30
# Rows whose outputs are looked at before the training: all of a small data set, some of a large one.
_LOOKED_AT = 2000


class StoredTeacher:
    """Answers with what a column holds.

    Args:
        columns: joined to the shards.
        column: its name; K numbers a sample.
        outputs: what they are.
    """

    def __init__(self, columns: JoinedColumns, column: str, outputs: Outputs) -> None:
        self._columns = columns
        self._column = column
        self._outputs = outputs

    def answers(self, batch: Batch, pixels: Tensor, shares: list[float]) -> Tensor:
        """Logits [B, K]. The answer to two mixed images is the mixture of both, in probabilities, as of the labels."""
        answers = self._logits(batch.columns[self._column])
        if len(shares) == 1:
            return answers
        chances = answers.float().softmax(dim=-1)
        mixed = shares[0] * chances + shares[1] * chances[partners(len(batch), chances.device)]
        return mixed.clamp_min(_LEAST).log()

    def decisions(self, batch: Batch, device: torch.device) -> Tensor:
        """As of a teacher; for samples that have a value."""
        values = self._columns.numbers(self._column)[batch.ids.numpy()].astype(np.float32)
        return torch.from_numpy(values).argmax(dim=-1).to(device)

    def knows(self, rows: RowRuns) -> bool:
        """Whether every one of these samples has a value."""
        return len(_missing(self._columns, self._column, rows)) == 0

    def _logits(self, values: Tensor) -> Tensor:
        return values.clamp_min(_LEAST).log() if self._outputs == "probabilities" else values


def check_outputs(config: DistillationLossConfig, columns: JoinedColumns, index: SampleIndex, rows: RowRuns) -> float:
    """Refuses a column that is not a teacher's outputs for these samples; its accuracy on some of them otherwise.

    Args:
        rows: that are trained on.
    Raises:
        InputError: there is no such column, it is not of K floats, a sample has no value, or the values are not what
            `teacher_outputs` says.
    """
    name = config.teacher_column
    assert name is not None
    values = columns.numbers(name)
    where, classes = f"distillation.teacher_column: {name}", len(index.label_names)
    kind = columns.facts[name].kind
    if not kind.is_float or values.ndim != 2 or values.shape[1] != classes:
        raise InputError(
            f"{where}: holds {kind} a sample; a teacher of these shards gives {classes} floats, one a label"
        )
    missing = _missing(columns, name, rows)
    if len(missing):
        key = index.key(int(missing.starts[0]))
        raise InputError(f"{where}: {len(missing):,} of {len(rows):,} training samples have no value, e.g. {key!r}")
    looked_at = rows.ids(np.linspace(0, len(rows) - 1, min(_LOOKED_AT, len(rows))).astype(np.int64))
    some = values[looked_at].astype(np.float32)
    if config.teacher_outputs == "probabilities" and not _are_probabilities(some):
        raise InputError(f"{where}: its values are not probabilities; set distillation.teacher_outputs=logits")
    if config.teacher_outputs == "logits" and _are_probabilities(some):
        raise InputError(f"{where}: its values are probabilities; set distillation.teacher_outputs=probabilities")
    return float((some.argmax(axis=1) == index.labels[looked_at]).mean())


def _missing(columns: JoinedColumns, column: str, rows: RowRuns) -> RowRuns:
    """The samples without a value."""
    valid = columns.valid(column)
    return rows.narrowed(lambda first, last: ~valid[first:last])


def _are_probabilities(values: NDArray[np.float32]) -> bool:
    # float16 outputs of 1,000 classes add up to 1 within 1 %.
    return bool((values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=0.01))
