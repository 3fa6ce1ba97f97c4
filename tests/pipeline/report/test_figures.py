"""Figures keep every class and every spike, take the page's colours, and stay small."""

from __future__ import annotations

import re

import numpy as np

from pipeline.html.pictures import picture_uri
from pipeline.report.confusion import MAX_CLASSES, confused_pairs, confusion_figure, shown_classes
from pipeline.report.figures import Series, line_figure, stack_figure, thin_out


def test_long_series_is_thinned_and_keeps_its_mean() -> None:
    points = [(float(step), float(step % 7)) for step in range(5000)]
    few = thin_out(points, limit=100)
    assert len(few) == 100
    assert np.isclose(np.mean([y for _, y in few]), np.mean([y for _, y in points]), atol=0.01)
    assert [x for x, _ in few] == sorted(x for x, _ in few)
    assert thin_out(points[:50], limit=100) == points[:50]


def test_figures_take_colours_from_the_page_and_have_ids_of_their_own() -> None:
    series = [Series("teacher <b>", [(0, 0.1), (1, 0.5), (2, 0.7)], 0), Series("$x$ student", [(2, 0.6)], 1)]
    one = line_figure("one", 'Accuracy "a"', series, x_label="epoch", share=True, levels=[0.2])
    two = stack_figure("two", "Mass", [0, 10, 20], [("all", [1, 0.5, 0.1]), ("leaf", [0, 0.5, 0.9])], x_label="step")
    assert "var(--s1)" in one
    assert "var(--s2)" in two
    assert "#a1000" not in one + two
    assert "http" not in one + two
    assert "teacher &lt;b&gt;" in one
    assert "$x$ student" in one
    first, second = (set(re.findall(r' id="([^"]+)"', figure)) for figure in (one, two))
    assert not first & second
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', one)) <= first
    assert len(one) < 40_000


def test_confusion_figure_names_every_class_and_counts_every_cell() -> None:
    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 3, (51, 51)) * (rng.random((51, 51)) < 0.1) + np.diag(rng.integers(0, 20, 51))
    names = [f"class-{number}" for number in range(51)]
    figure = confusion_figure(confusion, names)
    assert figure.count("<rect") == np.count_nonzero(confusion)
    assert all(figure.count(f">{name}</text>") == 2 for name in names)
    assert len(figure) < 120_000


def test_too_many_classes_leave_those_with_most_mistakes() -> None:
    confusion = np.eye(100, dtype=np.int64) * 5
    confusion[7, 93] = 4
    shown = shown_classes(confusion)
    assert len(shown) == MAX_CLASSES
    assert {7, 93} <= set(shown)
    assert shown == sorted(shown)


def test_confused_pairs_are_sorted_by_count() -> None:
    confusion = np.array([[5, 1, 2], [3, 9, 0], [0, 0, 4]])
    pairs = confused_pairs(confusion, limit=2)
    assert [(pair.true, pair.predicted, pair.count, pair.total) for pair in pairs] == [(1, 0, 3, 12), (0, 2, 2, 8)]


def test_a_training_of_one_epoch_has_distinct_ticks() -> None:
    svg = line_figure("k", "Loss", [Series("a", [(0.96, 2.0), (0.98, 1.5), (1.0, 1.0)], 0)], x_label="epoch")
    shown = [float(text) for text in re.findall(r">([0-9.]+)</text>", svg)]
    ticks = [value for value in shown if 0.9 < value < 1]
    assert len(ticks) >= 2
    assert len(ticks) == len(set(ticks))


def test_heavy_picture_is_made_small_and_a_broken_one_is_left_out() -> None:
    import io

    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    uri = picture_uri(buffer.getvalue(), max_px=128, max_bytes=12_000)
    assert uri is not None
    assert uri.startswith("data:image/webp;base64,")
    assert len(uri) < 17_000
    assert picture_uri(b"\x89PNG broken", max_px=128, max_bytes=12_000) is None
    assert picture_uri(b"", max_px=128, max_bytes=12_000) is None
