"""Numbers are formatted for readers."""

from __future__ import annotations

import pytest

from model_defs import ModelInfo
from pipeline.evaluation.difference import p_value
from pipeline.html.markup import Markup, join, tag
from pipeline.report.wording import display_name, duration, magnitude, paper_errors, percent, points


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (89.94, "89.9 s"), (90, "1 min 30 s"), (3599.6, "60 min 0 s"), (5400, "1 h 30 min")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_shares_differences_and_p_values() -> None:
    assert (percent(0.5), percent(0.0083), percent(0.0)) == ("50.0%", "0.83%", "0.0%")
    assert (points(0.034), points(-0.2984)) == ("+3.4", "−29.8")
    assert (p_value(0.0213), p_value(9.5e-76)) == ("p = 0.021", "p < 0.0001")


def test_an_artifact_of_a_run_is_named_in_words() -> None:
    assert display_name("clip-evaluation") == "dual encoder evaluation"


def test_only_tag_creates_markup_and_never_escaped_twice() -> None:
    inner = tag("b", "<i>", title='"&"')
    assert inner == '<b title="&quot;&amp;&quot;">&lt;i&gt;</b>'
    assert tag("p", inner, None, 3, ["<", inner]) == f"<p>{inner}3&lt;{inner}</p>"
    assert isinstance(join("a", inner), Markup)
    assert tag("img", alt="", hidden=True, src=None) == '<img alt="" hidden>'


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (None, ""),
        (999, "999"),
        (61_706, "61.7k"),
        (1_857_016, "1.86M"),
        (25_557_032, "25.6M"),
        (4_089_184_256, "4.09G"),
    ],
)
def test_counts_have_three_digits(count: int | None, expected: str) -> None:
    assert magnitude(count) == expected


@pytest.mark.parametrize(
    ("top1", "top5", "expected"),
    [
        (None, None, ""),
        (27.0, 8.8, "27.0/8.8"),
        (21.43, 5.71, "21.43/5.71"),
        (22.2, None, "22.2"),
        (None, 10.07, "–/10.07"),
    ],
)
def test_errors_keep_the_digits_of_the_paper(top1: float | None, top5: float | None, expected: str) -> None:
    assert paper_errors(ModelInfo("a", "image", 2014, "b", top1_error=top1, top5_error=top5)) == expected
