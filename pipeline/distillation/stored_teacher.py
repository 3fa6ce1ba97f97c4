"""A teacher with precomputed outputs, read from a column joined to the shards; the model is not run during training.

The targets were computed from the stored images, while the student sees augmented views of them. They cost nothing
during training, but are less accurate than the outputs of a teacher that sees the same view (Beyer 2022, "Knowledge
distillation: A good teacher is patient and consistent").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.distillation.loss_config import DistillationLossConfig, Outputs
from pipeline.errors import InputError
from pipeline.loading.batch import Batch
from pipeline.loading.pairs import partner_rows
from pipeline.loading.policies.row_runs import RowRuns
from pipeline.sharding.format.joined_columns import JoinedColumns

if TYPE_CHECKING:
    from pipeline.sharding.format.index import SampleIndex

_MIN_PROBABILITY = 1e-30
_MAX_CHECKED_ROWS = 2000  # evenly spaced over the training samples


class StoredTeacher:
    """A Teacher that reads its outputs from a joined column.

    Args:
        columns: the columns that are joined to the shards.
        column: name of the column with K numbers per sample.
        outputs: whether the numbers are logits or probabilities.
    """

    def __init__(self, columns: JoinedColumns, column: str, outputs: Outputs) -> None:
        self._columns = columns
        self._column = column
        self._outputs = outputs

    def batch_logits(self, batch: Batch, pixels: Tensor, mixing_weights: list[float]) -> Tensor:
        """Logits [B, K]. For a mixed image the probabilities of its two images are mixed, as the labels are."""
        logits = self._logits(batch.columns[self._column])
        if len(mixing_weights) == 1:
            return logits
        partners = self._logits(batch.source.columns[self._column][partner_rows(batch)])
        own, other = (outputs.float().softmax(dim=-1) for outputs in (logits, partners))
        mixed = mixing_weights[0] * own + mixing_weights[1] * other
        return mixed.clamp_min(_MIN_PROBABILITY).log()

    def predictions(self, batch: Batch, device: torch.device) -> Tensor:
        """See `Teacher.predictions`; every sample of the batch must have a value."""
        values = self._columns.numbers(self._column)[batch.ids.numpy()].astype(np.float32)
        return torch.from_numpy(values).argmax(dim=-1).to(device)

    def covers(self, rows: RowRuns) -> bool:
        """Whether each of these samples has a value."""
        return len(_missing(self._columns, self._column, rows)) == 0

    def _logits(self, values: Tensor) -> Tensor:
        return values.clamp_min(_MIN_PROBABILITY).log() if self._outputs == "probabilities" else values


def check_outputs(config: DistillationLossConfig, columns: JoinedColumns, index: SampleIndex, rows: RowRuns) -> float:
    """Checks that the column has a teacher's outputs for these samples; returns their accuracy on some samples.

    Args:
        rows: the training samples.
    Raises:
        InputError: there is no such column, it does not have one float per label, a sample has no value, or the values
            are not what `teacher_outputs` says.
    """
    name = config.teacher_column
    assert name is not None
    values = columns.numbers(name)
    where, classes = f"distillation.teacher_column: {name}", len(index.label_names)
    kind = columns.summaries[name].kind
    if not kind.is_float or values.ndim != 2 or values.shape[1] != classes:
        raise InputError(
            f"{where}: has {kind} per sample; a teacher for these shards has {classes} floats, one per label"
        )
    missing = _missing(columns, name, rows)
    if len(missing):
        key = index.key(int(missing.starts[0]))
        raise InputError(f"{where}: {len(missing):,} of {len(rows):,} training samples have no value, e.g. {key!r}")
    checked = rows.ids(np.linspace(0, len(rows) - 1, min(_MAX_CHECKED_ROWS, len(rows))).astype(np.int64))
    outputs = values[checked].astype(np.float32)
    if config.teacher_outputs == "probabilities" and not _are_probabilities(outputs):
        raise InputError(f"{where}: its values are not probabilities; set distillation.teacher_outputs=logits")
    if config.teacher_outputs == "logits" and _are_probabilities(outputs):
        raise InputError(f"{where}: its values are probabilities; set distillation.teacher_outputs=probabilities")
    return float((outputs.argmax(axis=1) == index.labels[checked]).mean())


def _missing(columns: JoinedColumns, column: str, rows: RowRuns) -> RowRuns:
    """The samples without a value."""
    valid = columns.valid(column)
    return rows.filter(lambda first, last: ~valid[first:last])


def _are_probabilities(values: NDArray[np.float32]) -> bool:
    # float16 probabilities of 1,000 classes sum to 1 within 1 %.
    return bool((values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=0.01))
