"""The samples of a linear probe: bounded, balanced, the same twice."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.training.linear_probe.draw import draw_samples

LABELS = np.repeat([0, 1, 2], [100, 5, 20])
ROWS = np.arange(125) * 3
VALIDATION = np.arange(1000, 1050)


def counts(ids: np.ndarray) -> list[int]:
    return np.bincount(LABELS[ids // 3], minlength=3).tolist()


def test_a_draw_is_even_over_the_classes_as_far_as_they_have_samples() -> None:
    drawn = draw_samples(ROWS, LABELS, VALIDATION, 30, seed=0)
    assert counts(drawn.train)[1] == 5
    assert sorted(counts(drawn.train)) == [5, 12, 13]
    assert (np.diff(drawn.train) > 0).all()
    assert len(drawn.validation) == 30
    assert set(drawn.validation) <= set(VALIDATION)
    assert not drawn.held_out


def test_a_draw_depends_on_its_seed_only() -> None:
    first, same, other = (draw_samples(ROWS, LABELS, VALIDATION, 30, seed=seed) for seed in (0, 0, 1))
    assert (first.train == same.train).all()
    assert (first.validation == same.validation).all()
    assert first.train.tolist() != other.train.tolist()


def test_fewer_samples_than_classes_leave_classes_out() -> None:
    assert sorted(counts(draw_samples(ROWS, LABELS, VALIDATION, 2, seed=0).train)) == [0, 1, 1]


def test_without_a_limit_every_sample_is_drawn() -> None:
    drawn = draw_samples(ROWS, LABELS, VALIDATION, None, seed=0)
    assert (drawn.train == ROWS).all()
    assert (drawn.validation == VALIDATION).all()


def test_without_a_val_split_a_fifth_is_held_out_and_every_class_stays() -> None:
    drawn = draw_samples(ROWS, LABELS, VALIDATION[:0], 50, seed=0)
    assert drawn.held_out
    assert (len(drawn.train), len(drawn.validation)) == (40, 10)
    assert not set(drawn.train) & set(drawn.validation)
    assert min(counts(drawn.train)) >= 1


def test_nothing_to_hold_out_is_refused() -> None:
    with pytest.raises(InputError, match=r"have no val split.*split\.val_share"):
        draw_samples(np.arange(3), np.arange(3), VALIDATION[:0], None, seed=0)
