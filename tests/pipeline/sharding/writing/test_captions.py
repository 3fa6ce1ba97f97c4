"""Captions come out as a reader would write them; what says nothing is dropped and counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sharding.writing.captions import BadTextError, CaptionsConfig, clean_captions


@pytest.mark.parametrize(
    ("caption", "clean"),
    [
        ("  a  photo\tof\n a cat ", "a photo of a cat"),
        ("fish &amp; chips &quot;here&quot; &#233;", 'fish & chips "here" é'),
        ("AT&T, R&D; x &unknown; y", "AT&T, R&D; x &unknown; y"),
        ("bell\x07 and\u200b zero width\ufeff", "bell and zero width"),
        ("no\u00a0break", "no break"),
        ("family \U0001f468\u200d\U0001f469\u200d\U0001f467, \u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645", None),
        ("a b", "a b"),
    ],
)
def test_what_a_web_page_left_in_them_goes(caption: str, clean: str | None) -> None:
    clean = caption if clean is None else clean
    kept, counts = clean_captions([caption], CaptionsConfig())
    assert kept == (clean,)
    assert counts == ({"cleaned": 1} if clean != caption else {})


def test_without_cleaning_they_stay_as_they_are() -> None:
    captions = ("  two  spaces ", "  two  spaces ")
    assert clean_captions(captions, CaptionsConfig(clean=False)) == (captions, {})


def test_what_says_nothing_is_dropped_by_reason() -> None:
    captions = ["cat", "a cat on a mat", "x" * 80, "https://a.b/c www.d.e", "see https://a.b/c", "a  cat on a mat", ""]
    kept, counts = clean_captions(captions, CaptionsConfig(min_chars=4, max_chars=60))
    assert kept == ("a cat on a mat", "see https://a.b/c")
    assert counts == {"too short": 2, "too long": 1, "only addresses": 1, "cleaned": 1, "repeated": 1}
    assert "https://a.b/c" in clean_captions(["https://a.b/c"], CaptionsConfig(drop_urls=False))[0]


def test_bytes_of_another_encoding_are_refused_with_their_place() -> None:
    caption = "caf\u00e9".encode("latin-1").decode("utf-8", "surrogateescape")
    with pytest.raises(BadTextError, match=r"caption 2 is not UTF-8 \(character 4 of 4\)"):
        clean_captions(["fine", caption], CaptionsConfig())


def test_bounds_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="max_chars=3 is less than min_chars=4"):
        CaptionsConfig(min_chars=4, max_chars=3)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=5))
def test_cleaning_twice_changes_nothing_more(captions: list[str]) -> None:
    captions = [caption.replace("&", "+") for caption in captions]  # "&amp;amp;" has two layers, and loses one
    once, _ = clean_captions(captions, CaptionsConfig())
    again, counts = clean_captions(once, CaptionsConfig())
    assert (again, counts) == (once, {})
