"""A caption reads as words, with the article of the label as it was written."""

from __future__ import annotations

import pytest

from pipeline.sharding.sources.caption_template import caption_of


@pytest.mark.parametrize(
    ("label", "caption"),
    [
        ("ankle_boot", "a photo of an ankle boot"),
        ("A-line skirt", "a photo of an A line skirt"),
        ("A-line_skirt", "a photo of an A line skirt"),
        ("e-reader", "a photo of an e reader"),
        ("X-ray", "a photo of an X ray"),
        ("U-boat", "a photo of a U boat"),
        ("T-shirt", "a photo of a T shirt"),
        ("hour-glass", "a photo of an hour glass"),
        ("the-moon", "a photo of the moon"),
    ],
)
def test_the_article_is_that_of_the_label_with_its_hyphens(label: str, caption: str) -> None:
    assert caption_of("a photo of {a_label}", label) == (caption,)


def test_a_name_without_article_and_its_copies_read_as_words() -> None:
    assert caption_of("{label}, a kind of {label}", "A-line_skirt") == ("A line skirt, a kind of A line skirt",)
    assert caption_of(None, "A-line_skirt") == caption_of("{label}", None) == ()
