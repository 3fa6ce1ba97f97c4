"""Binary cross-entropy of mixed images: the formula of ResNet strikes back, and the words of the configuration."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from timm.loss import BinaryCrossEntropy

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import canonical_json, parse_config
from pipeline.distillation.config import DistillationConfig
from pipeline.errors import InputError
from pipeline.training.binary_cross_entropy import mixed_binary_cross_entropy
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import ClassificationRecipe

LOGITS = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)) * 2
LABELS, OTHERS = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 4, 2, 0])


def by_definition(targets: list[list[float]], weights: list[float]) -> float:
    """The loss, one row and class after the other."""
    total = 0.0
    for row, target, weight in zip(LOGITS.double().tolist(), targets, weights, strict=True):
        questions = [
            -t * math.log(1 / (1 + math.exp(-x))) - (1 - t) * math.log(1 / (1 + math.exp(x)))
            for x, t in zip(row, target, strict=True)
        ]
        total += weight * sum(questions) / len(questions)
    return total / len(targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_unmixed_it_is_timms(smoothing: float) -> None:
    ours = mixed_binary_cross_entropy(LOGITS, [LABELS], [1.0], smoothing)
    torch.testing.assert_close(ours, BinaryCrossEntropy(smoothing)(LOGITS, LABELS))


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_mixed_it_is_timms(threshold: float | None) -> None:
    one_hot = torch.nn.functional.one_hot
    for weight in (0.9, 0.7):
        ours = mixed_binary_cross_entropy(LOGITS, [LABELS, OTHERS], [weight, 1 - weight], 0.0, threshold=threshold)
        dense = weight * one_hot(LABELS, 5) + (1 - weight) * one_hot(OTHERS, 5)
        timms = BinaryCrossEntropy(0.0, target_threshold=threshold)(LOGITS, dense)
        torch.testing.assert_close(ours, timms)


def test_both_classes_are_present_above_the_threshold_and_smoothing_comes_after_it() -> None:
    ours = mixed_binary_cross_entropy(LOGITS, [LABELS, OTHERS], [0.7, 0.3], 0.1, threshold=0.2)
    present = [{0, 1}, {1, 4}, {2}, {3, 0}]
    targets = [[0.92 if k in row else 0.02 for k in range(5)] for row in present]
    assert ours.item() == pytest.approx(by_definition(targets, [1] * 4), rel=1e-5)


def test_a_part_without_a_label_is_left_out_and_a_row_without_labels_contributes_nothing() -> None:
    labels, others = torch.tensor([0, -1, -1, 3]), torch.tensor([1, 4, -1, -1])
    ours = mixed_binary_cross_entropy(LOGITS, [labels, others], [0.7, 0.3], 0.0)
    targets = [[0.7, 0.3, 0, 0, 0], [0, 0, 0, 0, 1], [0] * 5, [0, 0, 0, 1, 0]]
    assert ours.item() == pytest.approx(by_definition(targets, [1, 0.3, 0, 0.7]), rel=1e-5)


def test_a_mixed_row_has_the_mean_weight_of_its_classes() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    ours = mixed_binary_cross_entropy(LOGITS, [LABELS, OTHERS], [0.75, 0.25], 0.0, weights)
    targets = [[0.75, 0.25, 0, 0, 0], [0, 0.75, 0, 0, 0.25], [0, 0, 1, 0, 0], [0.25, 0, 0, 0.75, 0]]
    assert ours.item() == pytest.approx(by_definition(targets, [1.25, 2.75, 3, 3.25]), rel=1e-5)


def test_the_losses_of_parts_of_a_batch_add_up() -> None:
    whole = mixed_binary_cross_entropy(LOGITS, [LABELS, OTHERS], [0.7, 0.3], 0.1, threshold=0.2)
    parts = [
        mixed_binary_cross_entropy(LOGITS[cut], [LABELS[cut], OTHERS[cut]], [0.7, 0.3], 0.1, threshold=0.2) * size / 4
        for cut, size in ((slice(0, 1), 1), (slice(1, 4), 3))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_a_training_minimises_it_where_the_config_says_so(
    store: ArtifactStore, digits: Artifact, small_config: Callable[..., ClassificationConfig]
) -> None:
    config = small_config(loss="binary_cross_entropy", mixing={"mixup": 1.0}, label_smoothing=0.0)
    objects = ClassificationRecipe(config, store.storage.url, digits.name).build(torch.device("cpu"), 0, 1)
    batch = next(iter(objects.loader.batches(0, 1)))
    objects.model.eval()
    loss = objects.task.training_step(objects.model, batch).loss
    # An untrained network answers every question with about one half: ln 2 a class, and not ln 10.
    assert loss.item() == pytest.approx(math.log(2), abs=0.25)


def test_old_keys_stay_and_a_student_refuses_it() -> None:
    assert "threshold" not in canonical_json(ClassificationConfig())
    assert '"loss":"binary_cross_entropy"' in canonical_json(ClassificationConfig(loss="binary_cross_entropy"))
    with pytest.raises(InputError, match="a student learns the labels by cross_entropy"):
        parse_config(DistillationConfig, {"loss": "binary_cross_entropy"}, "student")
