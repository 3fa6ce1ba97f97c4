"""Sets of equal images are those of the plain reading: by their hashes, and by numbers that stand for their bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sharding.writing.equal_sets import EqualSets

IMAGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=30)


def plainly(contents: list[object]) -> set[tuple[int, ...]]:
    sets = {tuple(row for row, other in enumerate(contents) if other == content) for content in contents}
    return {members for members in sets if len(members) > 1}


def members(equal: EqualSets) -> list[tuple[int, ...]]:
    return [tuple(rows.tolist()) for rows in np.split(equal.rows, equal.starts[1:])] if len(equal) else []


@given(IMAGES)
def test_sets_by_hash_are_the_images_with_equal_hashes(images: list[tuple[int, int, int]]) -> None:
    high, low, labels = (np.array(column, dtype=np.uint64) for column in zip(*images, strict=True)) if images else (
        np.empty(0, dtype=np.uint64) for _ in range(3)
    )  # fmt: skip
    equal = EqualSets.of_hashes(high, low)
    sets = members(equal)
    assert set(sets) == plainly([image[:2] for image in images])
    assert equal.sizes.tolist() == [len(rows) for rows in sets]
    assert equal.copies == sum(len(rows) - 1 for rows in sets)
    assert equal.have_different(labels).tolist() == [len({images[row][2] for row in rows}) > 1 for rows in sets]


@given(st.lists(st.integers(-1, 4), max_size=30))
def test_an_image_without_a_code_is_in_no_set(codes: list[int]) -> None:
    equal = EqualSets.of_codes(np.array(codes, dtype=np.int64))
    assert set(members(equal)) == plainly([row - 99 if code < 0 else code for row, code in enumerate(codes)])
