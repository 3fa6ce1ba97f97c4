"""Mixup and CutMix."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import canonical_json, parse_config
from pipeline.errors import InputError
from pipeline.loading.batch import Batch, rank_rows
from pipeline.loading.pairs import extend_to_pairs, partner_rows
from pipeline.training.batching import split
from pipeline.training.classification import mix_batch
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.mixing import Mix, draw_mix
from pipeline.training.mixing_config import MixingConfig
from pipeline.training.stage import ClassificationRecipe

STEADY = {"name": "vit_micro", "kwargs": {"patch_size": 4, "width": 32, "depth": 1, "heads": 2}}


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


def test_cutmix_has_its_probability() -> None:
    config = MixingConfig(mixup=0.8, cutmix=1.0, cutmix_probability=0.2)
    cut = [draw_mix(config, 3, step).centre is not None for step in range(1000)]
    assert 0.16 < np.mean(cut) < 0.24


def test_mixing_that_never_happens_is_refused() -> None:
    values = {"mixing": {"mixup": 0.8, "off_epochs": 10}, "training": {"epochs": 10}}
    with pytest.raises(InputError, match="off_epochs 10: the training has only 10 epochs"):
        parse_config(ClassificationConfig, values, "teacher")
    assert "off_epochs" not in canonical_json(ClassificationConfig())


@pytest.mark.parametrize("policy", ["shuffled", "class-balanced"])
@pytest.mark.parametrize(("epochs", "off"), [(3, 1), (3, 0.5)])
def test_the_last_epochs_of_the_training_are_not_mixed(
    store: ArtifactStore,
    digits: Artifact,
    small_config: Callable[..., ClassificationConfig],
    policy: str,
    epochs: int,
    off: float,
) -> None:
    mixing = {"mixup": 1.0, "off_epochs": off}
    config = small_config(policy={"kind": policy}, epochs=epochs, steps=None, mixing=mixing)
    objects = ClassificationRecipe(config, store.storage.url, digits.name).build(torch.device("cpu"), 0, 1)
    steps = config.training.total_steps(objects.epoch_samples)
    mixed_steps = objects.task.mixed_steps
    with closing(objects.loader.batches(0, steps)) as batches:
        mixed = [mix_batch(batch, config.mixing, 0, mixed_steps)[0].is_floating_point() for batch in batches]
    # A step is mixed if more than `off` epochs, an exact fraction, are left before it.
    left = [Fraction((steps - step) * config.training.global_batch, objects.epoch_samples) for step in range(steps)]
    assert mixed == [epochs_left > Fraction(off) for epochs_left in left]
    assert set(mixed) == {True, False}


def test_mixup_blends_partners() -> None:
    images = torch.arange(5.0)[:, None, None, None].expand(5, 3, 2, 2)
    mixed, weight = Mix(0.75).apply(images, images[[1, 0, 3, 2, 4]])
    assert weight == 0.75
    assert mixed[:, 0, 0, 0].tolist() == [0.25, 0.75, 2.25, 2.75, 4.0]


@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.0, 1.0), (0.9, 0.1)])
def test_cutmix_pastes_the_fraction_that_it_returns(centre: tuple[float, float]) -> None:
    images = torch.stack([torch.zeros(1, 40, 40), torch.ones(1, 40, 40)])
    mixed, weight = Mix(0.64, centre).apply(images, images.flip(0))
    assert mixed[0].mean().item() == pytest.approx(1 - weight)
    assert mixed[1].mean().item() == pytest.approx(weight)
    if centre == (0.5, 0.5):
        assert weight == pytest.approx(0.64, abs=0.03)


def batch_of(rows: int) -> Batch:
    ids = torch.arange(rows)
    return Batch(torch.zeros(rows, 1, 2, 2, dtype=torch.uint8), ids, ids, ids, None, 0, 0, rows)


@pytest.mark.parametrize("rows", [1, 2, 7, 8])
def test_a_row_has_the_same_partner_in_every_cut(rows: int) -> None:
    whole, expected = batch_of(rows), [1, 0, 3, 2, 5, 4, 7, 6][:rows]
    if rows % 2:
        expected[-1] = rows - 1
    for world in range(1, min(rows, 4) + 1):
        slices = [rank_rows(rows, rank, world) for rank in range(world)]
        for count in range(1, rows + 1):
            partners: list[int] = []
            for start, stop in slices:
                first, end = extend_to_pairs(start, stop, rows)
                loaded = replace(whole.rows(first, end), cut_from=None)
                for part in split(loaded.rows(start - first, stop - first), count):
                    partners += part.to("cpu").source.ids[partner_rows(part)].tolist()
            assert partners == expected, (world, count)


def test_a_partner_that_was_not_loaded_is_an_error_and_no_other_row() -> None:
    for start, stop in ((1, 4), (2, 5)):
        with pytest.raises(ValueError, match="the loader did not load all"):
            partner_rows(replace(batch_of(8).rows(start, stop), cut_from=None))


@pytest.mark.parametrize(
    ("rows", "change"),
    [
        (7, {"mixing": {"mixup": 0.8}}),
        (7, {"mixing": {"cutmix": 1.0}}),
        (9, {"mixing": {"mixup": 0.8}, "loader": {"copies": 3}}),
    ],
)
def test_any_number_of_workers_and_micro_batches_has_the_same_loss(
    rows: int,
    change: dict[str, Any],
    store: ArtifactStore,
    digits: Artifact,
    small_config: Callable[..., ClassificationConfig],
) -> None:
    config = small_config(model=STEADY, global_batch=rows, **change)
    recipe = ClassificationRecipe(config, store.storage.url, digits.name)
    measured: dict[tuple[int, int], tuple[float, float]] = {}
    for world in range(1, 5):
        totals = np.zeros((rows, 2))
        for rank in range(world):
            objects = recipe.build(torch.device("cpu"), rank, world)
            with closing(objects.loader.batches(0, 1)) as batches:
                batch = next(batches)
            for count in range(1, rows + 1):
                for part in split(batch, count):
                    output = objects.task.training_step(objects.model, part)
                    totals[count - 1] += np.array([output.loss.item(), output.metrics["accuracy"].item()]) * len(part)
        measured |= {(world, count): tuple(totals[count - 1] / rows) for count in range(1, rows + 1)}
    for cut, values in measured.items():
        assert values == pytest.approx(measured[1, 1], rel=1e-6), cut
