"""The evaluation of a classifier during its training, against the definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.evaluation.metrics import (
    balanced_accuracy,
    confusion_matrix,
    expected_calibration_error,
    per_class_accuracy,
)
from pipeline.loading.batch import Batch
from pipeline.preprocessing import Preprocessing
from pipeline.training.classifier_evaluation import ClassifierEvaluation
from pipeline.training.per_class import class_columns, class_table
from pipeline.training.task import Measurement

PREPROCESSING = Preprocessing(image_size=4, channels=1, mean=(0.5,), std=(0.5,))
CLASSES = 16


class Brightest(nn.Module):
    """The class is the pixel that is brightest."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * 3


def batch(labels: list[int], seed: int) -> Batch:
    rows, numbers = len(labels), torch.Generator().manual_seed(seed)
    # Different pixels, so that no two classes are equally likely.
    pixels = torch.stack([torch.randperm(256, generator=numbers)[:16] for _ in labels])
    images = pixels.to(torch.uint8).reshape(rows, 1, 4, 4)
    ids = torch.arange(rows)
    return Batch(images, ids, torch.tensor(labels), ids, None, 3, 0, rows)


PARTS = [batch([1, 2, 3], 0), batch([4], 1), batch(list(range(16)) * 4, 2)]


def measure(parts: list[Batch]) -> Measurement:
    evaluation = ClassifierEvaluation(
        parts, PREPROCESSING, classes=CLASSES, device=torch.device("cpu"), world=1, prefix="val"
    )
    return evaluation(Brightest())


def outputs(parts: list[Batch]) -> tuple[Tensor, Tensor]:
    images = torch.cat([part.images for part in parts])
    return Brightest()((images / 255 - 0.5) / 0.5), torch.cat([part.labels for part in parts])


def test_evaluation_counts_over_batches_of_any_size() -> None:
    measured = measure(PARTS)
    logits, labels = outputs(PARTS)
    assert measured["val/accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    ranks = (logits.argsort(dim=1, descending=True) == labels[:, None]).float().argmax(dim=1)
    assert measured["val/accuracy_top5"] == pytest.approx((ranks < 5).double().mean().item())
    losses = -logits.log_softmax(dim=1)[torch.arange(len(labels)), labels]
    assert measured["val/loss"] == pytest.approx(losses.mean().item(), rel=1e-6)


def test_calibration_and_accuracies_of_classes_are_those_of_the_stage_evaluate() -> None:
    measured = measure(PARTS)
    logits, labels = outputs(PARTS)
    confidence, predicted = (values.numpy() for values in logits.softmax(1).max(1))
    correct = predicted == labels.numpy()
    assert 0 < measured["val/calibration_error"] == pytest.approx(expected_calibration_error(confidence, correct))
    confusion = confusion_matrix(labels.numpy(), predicted, CLASSES)
    assert measured["val/balanced_accuracy"] == pytest.approx(balanced_accuracy(confusion))
    assert measured.per_class["predicted"] == confusion.sum(axis=0).tolist()
    table = class_columns(measured.per_class, [f"class {number}" for number in range(CLASSES)])
    np.testing.assert_allclose(np.array(table["accuracy"], float), per_class_accuracy(confusion), atol=5e-5)


def test_a_class_without_images_has_no_accuracy_in_the_table() -> None:
    columns = class_columns({"images": [4, 0], "correct": [3, 0], "predicted": [3, 1]}, ["cat, tabby", "dog"])
    assert columns["accuracy"] == [0.75, None]
    assert class_table(columns) == 'label,images,correct,predicted,accuracy\n"cat, tabby",4,3,3,0.75\ndog,0,0,1,\n'
