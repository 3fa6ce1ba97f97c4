"""The sentences on what fails are those of the confusion matrix."""

from __future__ import annotations

import numpy as np

from pipeline.report.weak_points import weak_sentences


def test_the_worst_class_the_hopeless_ones_and_the_most_confused_pair_are_named() -> None:
    confusion = np.array([[8, 2, 0, 0], [3, 7, 0, 0], [0, 4, 0, 0], [1, 0, 0, 0]])
    assert weak_sentences(confusion, ("cat", "dog", "owl", "elk")) == [
        "The worst class is owl: 0 of 4 images (0.0%) right.",
        "2 classes are never right: owl, elk.",
        "The most confused pair: 4 of 4 images (100.0%) of owl predicted as dog.",
    ]


def test_one_class_at_zero_is_named_once() -> None:
    assert weak_sentences(np.array([[3, 0], [1, 0]]), ("cat", "dog")) == [
        "The worst class is dog: 0 of 1 image (0.0%) right.",
        "The most confused pair: 1 of 1 image (100.0%) of dog predicted as cat.",
    ]


def test_classes_without_images_are_not_judged() -> None:
    assert weak_sentences(np.diag([3, 0]), ("cat", "dog")) == ["Every image is predicted correctly."]
    assert weak_sentences(np.zeros((2, 2), dtype=np.int64), ("cat", "dog")) == []
