"""A number and its noun agree."""

from __future__ import annotations

from pipeline.counted import counted


def test_only_one_is_singular() -> None:
    assert [counted(number, "image") for number in (0, 1, 2, 2000)] == [
        "0 images",
        "1 image",
        "2 images",
        "2,000 images",
    ]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]
