"""The classification task."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.loading.batch import Batch
from pipeline.preprocessing import Preprocessing
from pipeline.training.classification import Classification, mixed_accuracy, mixed_cross_entropy
from pipeline.training.mixing import draw_mix
from pipeline.training.mixing_config import MixingConfig

PREPROCESSING = Preprocessing(image_size=4, channels=1, mean=(0.5,), std=(0.5,))


def batch(labels: list[int]) -> Batch:
    rows = len(labels)
    images = torch.randint(0, 256, (rows, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(rows)
    return Batch(images, ids, torch.tensor(labels), ids, None, 3, 0, rows)


def test_the_loss_is_cross_entropy_with_smoothed_targets_over_all_rows() -> None:
    logits = torch.randn(4, 5)
    labels, others = torch.tensor([0, 3, -1, 2]), torch.tensor([3, 0, 2, -1])
    loss = mixed_cross_entropy(logits, [labels, others], [0.7, 0.3], smoothing=0.1)

    def targets(which: Tensor) -> Tensor:
        rows = torch.full((4, 5), 0.1 / 5)
        for row, label in enumerate(which.tolist()):
            if label < 0:
                rows[row] = 0
            else:
                rows[row, label] += 0.9
        return rows

    wanted = 0.7 * targets(labels) + 0.3 * targets(others)
    expected = -(wanted * (logits.exp() / logits.exp().sum(1, keepdim=True)).log()).sum() / 4
    torch.testing.assert_close(loss, expected)


def test_a_class_weight_is_that_of_the_true_label_of_each_image_in_a_mixture() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    labels, others = torch.tensor([0, 3, -1, 2]), torch.tensor([3, 0, 2, -1])
    weights = torch.tensor([0.5, 1.0, 3.0, 2.0, 7.0])

    def summed(target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, weight=weights, ignore_index=-1, reduction="sum")

    loss = mixed_cross_entropy(logits, [labels, others], [0.7, 0.3], 0.0, weights)
    torch.testing.assert_close(loss, (0.7 * summed(labels) + 0.3 * summed(others)) / 4)
    # With smoothing, a sample's whole loss is weighted.
    smooth = F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=0.2, reduction="none")
    expected = (0.5 * smooth[0] + 2.0 * smooth[1] + 3.0 * smooth[3]) / 4
    torch.testing.assert_close(mixed_cross_entropy(logits, [labels], [1.0], 0.2, weights), expected)
    plain = mixed_cross_entropy(logits, [labels], [1.0], 0.2)
    torch.testing.assert_close(mixed_cross_entropy(logits, [labels], [1.0], 0.2, torch.ones(5)), plain)


def test_images_reach_the_model_normalised_and_mixed() -> None:
    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return x.flatten(1)[:, :3]

    model, given = Watching(), batch([0, 1, 2, 0])
    Classification(PREPROCESSING).training_step(model, given)
    torch.testing.assert_close(model.seen, (given.images / 255 - 0.5) / 0.5)
    plain = model.seen
    mixing = MixingConfig(mixup=1.0)
    Classification(PREPROCESSING, mixing=mixing, seed=5).training_step(model, given)
    mix = draw_mix(mixing, 5, given.step)
    assert mix is not None
    torch.testing.assert_close(model.seen[0], mix.weight * plain[0] + (1 - mix.weight) * plain[1])


def test_a_mixed_image_is_predicted_right_to_the_fraction_that_has_the_predicted_label() -> None:
    logits = torch.eye(3)[[0, 1, 2, 0]]
    labels, partners = torch.tensor([0, 2, 2, 1]), torch.tensor([2, 1, 2, 2])
    assert mixed_accuracy(logits, [labels], [1.0]).item() == 0.5
    assert mixed_accuracy(logits, [labels, partners], [0.7, 0.3]).item() == pytest.approx((0.7 + 0.3 + 1.0 + 0.0) / 4)

    class Predicting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.eye(3)[[0, 1, 2, 0]]

    mixing, given = MixingConfig(mixup=1.0), batch([0, 1, 1, 2])
    mix = draw_mix(mixing, 5, given.step)
    assert mix is not None
    metrics = Classification(PREPROCESSING, mixing=mixing, seed=5).training_step(Predicting(), given).metrics
    # 2 of 4 predictions are the image's label, and 1 is the partner's.
    assert metrics["accuracy"].item() == pytest.approx(0.5 * mix.weight + 0.25 * (1 - mix.weight))


def test_both_heads_learn_the_label_where_there_is_no_teacher() -> None:
    class TwoHeads(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1)[:, :3], x.flatten(1)[:, 3:6]

    class OneHead(nn.Module):
        def __init__(self, start: int) -> None:
            super().__init__()
            self.start = start

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, self.start : self.start + 3]

    task, given = Classification(PREPROCESSING, smoothing=0.1), batch([0, 1, 2])
    both = task.training_step(TwoHeads(), given).loss
    single = [task.training_step(OneHead(start), given).loss for start in (0, 3)]
    torch.testing.assert_close(both, (single[0] + single[1]) / 2)
