"""A held-out split that is much larger than its share is reported with the reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.duplicates import DuplicatesConfig
from pipeline.sharding.writing.split import assign_splits, split_draw
from pipeline.sharding.writing.split_config import SplitConfig
from pipeline.sharding.writing.split_sizes import split_size_notes

Notes = Callable[..., list[str]]


@pytest.fixture
def notes(columns_of: Callable[..., PlanColumns]) -> Notes:
    """notes(classes, images_per_class, config): the notes on a data set in which every image is its own group."""

    def found(classes: int, images: int, config: SplitConfig, given: str | None = None) -> list[str]:
        keys = [(label, f"{label}-{number}") for label in range(classes) for number in range(images)]
        columns = columns_of(
            [
                {
                    "group": key,
                    "label": label,
                    "family": "",
                    "content": key,
                    "given": given if key.endswith("-0") else None,
                    "place": split_draw(key, config.seed),
                }
                for label, key in keys
            ]
        )
        labels = [f"class-{number}" for number in range(classes)]
        assigned = assign_splits(columns, config, DuplicatesConfig(), labels)
        test = int(np.count_nonzero(assigned.splits == 2))
        return [note.replace(f" {test} of", " T of") for note in split_size_notes(columns, assigned.splits, config)]

    return found


def test_many_small_classes_are_the_reason(notes: Notes) -> None:
    val, test = notes(60, 4, SplitConfig(val_share=0.1, test_share=0.15))
    assert val.startswith("val has ")
    assert "more than the 10% asked for" in val
    assert test.startswith("test has T of 240 images (")
    assert test.endswith("more than the 15% asked for: each of 60 classes has at least one")


def test_chance_is_the_reason_in_a_small_data_set(notes: Notes) -> None:
    found = [notes(1, 20, SplitConfig(val_share=0, test_share=0.2, seed=seed)) for seed in range(20)]
    assert [] in found
    (note,) = next(one for one in found if one)
    assert note.startswith("test has T of 20 images (")
    assert note.endswith("more than the 20% asked for: by chance, in the draw of 20 images")


def test_nothing_is_said_of_shares_that_are_met_or_that_the_data_set_determines(notes: Notes) -> None:
    assert notes(2, 1000, SplitConfig()) == []
    assert notes(60, 4, SplitConfig(val_share=0), given="test") == []
