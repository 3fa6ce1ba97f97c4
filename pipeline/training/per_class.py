"""The accuracy of each class in the evaluation of the exported weights: the table per_class.csv of an artifact."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.metrics import class_accuracies

FILE = "per_class.csv"
_COLUMNS = ("label", "images", "correct", "predicted", "accuracy")


def class_columns(counts: Mapping[str, Sequence[int]], labels: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of the table, one row a class; the accuracy of a class without validation images is None.

    Args:
        counts: by class, as in Measurement: "images", "correct", and "predicted", how often it was predicted.
        labels: the names of the classes.
    """
    accuracies = class_accuracies(np.asarray(counts["correct"]), np.asarray(counts["images"]))
    return {
        "label": list(labels),
        **{name: list(counts[name]) for name in ("images", "correct", "predicted")},
        "accuracy": [None if np.isnan(accuracy) else round(float(accuracy), 4) for accuracy in accuracies],
    }


def class_table(columns: Mapping[str, Sequence[Any]]) -> str:
    """The columns as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(zip(*(columns[name] for name in _COLUMNS), strict=True))
    return text.getvalue()
