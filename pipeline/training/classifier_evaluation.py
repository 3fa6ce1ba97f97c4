"""The evaluation of a classifier during its training: accuracy, loss, calibration, and counts by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.evaluation.metrics import calibration_error_of, calibration_sums, mean_class_accuracy
from pipeline.loading.batch import Batch
from pipeline.micro_batches import in_micro_batches
from pipeline.preprocessing import Preprocessing
from pipeline.training.fsdp.equal_passes import finish_passes
from pipeline.training.task import Measurement

_COUNTS = ("images", "correct", "predicted")


class ClassifierEvaluation:
    """Measures a classifier on labelled samples, split over the ranks; every rank gets the same numbers.

    Args:
        batches: this rank's batches; iterated once per call.
        preprocessing: converts uint8 images to the model's input.
        classes: K.
        prefix: prefix of the metric names, e.g. "val".
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        preprocessing: Preprocessing,
        *,
        classes: int,
        device: torch.device,
        world: int,
        prefix: str,
    ) -> None:
        self._batches = batches
        self._preprocessing = preprocessing
        self._classes = classes
        self.device = device
        self.world = world
        self._prefix = prefix

    def __call__(
        self, model: nn.Module, on_batch: Callable[[Batch, Tensor], None] = lambda batch, logits: None
    ) -> Measurement:
        """The metrics by name, and by class the images, those predicted right, and the predictions of that class.

        The metrics: accuracy, top-5 accuracy, mean loss in nats, balanced accuracy (the mean over the classes) and
        expected calibration error (15 bins), as the stage `evaluate` defines them.

        Args:
            on_batch: called with each batch and its logits, [B, K] on the device.
        """
        totals, outcomes = torch.zeros(3, dtype=torch.float64, device=self.device), []
        for batch in self._batches:
            images = batch.images.to(self.device)
            labels = batch.labels.to(self.device)
            logits = in_micro_batches(lambda some: model(self._preprocessing.normalise(some)), images).float()
            on_batch(batch, logits)
            top = logits.topk(min(5, logits.shape[1]), dim=1).indices
            totals[0] += (top == labels[:, None]).sum()
            totals[1] += F.cross_entropy(logits, labels, reduction="sum")
            totals[2] += len(labels)
            outcomes.append((labels, top[:, 0], logits.softmax(dim=1).amax(dim=1)))
        finish_passes(model)
        # Outcomes stay on the device until here, so that a batch does not wait for the one before.
        sums = torch.cat([totals, _outcome_sums(outcomes, self._classes).to(self.device)])
        if self.world > 1:
            dist.all_reduce(sums)
        return self._measurement(sums.cpu().numpy())

    def _measurement(self, sums: NDArray[np.float64]) -> Measurement:
        classes, name = self._classes, self._prefix
        correct_in_5, loss, rows = sums[:3].tolist()
        counts = sums[3 : 3 + 3 * classes].reshape(3, classes).round().astype(np.int64)
        images, correct, _ = counts
        result = Measurement(
            {
                f"{name}/accuracy": int(correct.sum()) / rows,
                f"{name}/accuracy_top5": correct_in_5 / rows,
                f"{name}/balanced_accuracy": mean_class_accuracy(correct, images),
                f"{name}/loss": loss / rows,
                f"{name}/calibration_error": calibration_error_of(sums[3 + 3 * classes :].reshape(2, -1), int(rows)),
            }
        )
        result.per_class = {name: count.tolist() for name, count in zip(_COUNTS, counts, strict=True)}
        return result


def _outcome_sums(outcomes: list[tuple[Tensor, Tensor, Tensor]], classes: int) -> Tensor:
    """The counts by class, [3 K], then the sums of the calibration bins, of (labels, predicted, confidence) batches."""
    if not outcomes:  # a rank without validation rows
        return _outcome_sums([(torch.zeros(0, dtype=torch.int64),) * 2 + (torch.zeros(0),)], classes)
    labels, predicted, confidence = (torch.cat(column).cpu().numpy() for column in zip(*outcomes, strict=True))
    correct = labels == predicted
    counts = [np.bincount(values, minlength=classes) for values in (labels, labels[correct], predicted)]
    return torch.from_numpy(np.concatenate([*counts, calibration_sums(confidence, correct).ravel()]))
