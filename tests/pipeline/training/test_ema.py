"""The moving average of weights."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.training.ema import WeightAverage, ramped_decay


def test_the_average_is_the_recurrence_written_out() -> None:
    model = nn.Linear(2, 1)
    average = WeightAverage(model, decay=0.6)
    expected = model.weight.detach().clone()
    for update in range(12):
        with torch.no_grad():
            model.weight.add_(1.0)
        average.update(update)
        decay = min(0.6, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.module.weight, expected)


def test_the_ramp_ends_at_the_decay() -> None:
    assert ramped_decay(0.99, 0) == 0.1
    assert ramped_decay(0.99, 10_000) == 0.99


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, decay=0.5)
    model.train()(torch.randn(8, 2) + 5)
    average.update(100)
    assert average.module.num_batches_tracked == 1
    torch.testing.assert_close(average.module.running_mean, model.running_mean / 2)
    assert not average.module.training
