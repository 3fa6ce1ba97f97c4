"""Mixup and CutMix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.loading.batch import Batch
from pipeline.training.batching import split
from pipeline.training.mixing import Mix, draw_mix, partners
from pipeline.training.mixing_config import MixingConfig


def test_a_step_is_mixed_the_same_whenever_it_is_asked_for() -> None:
    config = MixingConfig(mixup=0.8, cutmix=1.0)
    assert [draw_mix(config, 3, step) for step in range(50)] == [draw_mix(config, 3, step) for step in range(50)]
    assert len({draw_mix(config, 3, step).weight for step in range(50)}) == 50
    kinds = [draw_mix(config, 3, step).centre is None for step in range(400)]
    assert 0.4 < np.mean(kinds) < 0.6


def test_nothing_is_mixed_by_default_and_seldom_by_a_small_probability() -> None:
    assert draw_mix(MixingConfig(), 0, 0) is None
    drawn = [draw_mix(MixingConfig(mixup=1.0, probability=0.25), 0, step) for step in range(400)]
    assert 0.15 < np.mean([mix is not None for mix in drawn]) < 0.35


def test_mixup_blends_neighbours() -> None:
    images = torch.arange(5.0)[:, None, None, None].expand(5, 3, 2, 2)
    mixed, weight = Mix(0.75).apply(images)
    assert weight == 0.75
    assert mixed[:, 0, 0, 0].tolist() == [0.25, 0.75, 2.25, 2.75, 4.0]


@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.0, 1.0), (0.9, 0.1)])
def test_cutmix_pastes_the_fraction_that_it_returns(centre: tuple[float, float]) -> None:
    images = torch.stack([torch.zeros(1, 40, 40), torch.ones(1, 40, 40)])
    mixed, weight = Mix(0.64, centre).apply(images)
    assert mixed[0].mean().item() == pytest.approx(1 - weight)
    assert mixed[1].mean().item() == pytest.approx(weight)
    if centre == (0.5, 0.5):
        assert weight == pytest.approx(0.64, abs=0.03)


def test_parts_and_slices_keep_pairs_together() -> None:
    ids = torch.arange(20)
    batch = Batch(torch.zeros(20, 1, 2, 2, dtype=torch.uint8), ids, ids, ids, None, 0, 0, 20)
    whole = ids[partners(20)].tolist()
    parts = list(split(batch, 3))
    assert [len(part) for part in parts] == [6, 6, 8]
    assert [i for part in parts for i in part.ids[partners(len(part))].tolist()] == whole
    assert [len(part) for part in split(batch, 64)] == [1] * 20
