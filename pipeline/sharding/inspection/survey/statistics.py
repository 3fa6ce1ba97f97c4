"""Statistics of a data set from its columns, as plain JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.sharding.format.index import SPLITS
from pipeline.sharding.inspection.survey.columns import ImageColumns

_QUANTILES = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}


def statistics(columns: ImageColumns) -> dict[str, Any]:
    """The counts, spreads and duplicates of the columns."""
    images = len(columns.lengths)
    known = columns.widths > 0
    duplicates = columns.duplicates
    return {
        "images": images,
        "image_bytes": int(columns.lengths.sum()),
        "shards": {
            "number": len(columns.shard_bytes),
            "total_bytes": int(columns.shard_bytes.sum()),
            "bytes": spread(columns.shard_bytes),
        },
        "splits": {
            **{split: int((columns.splits == code).sum()) for code, split in enumerate(SPLITS)},
            **({"(none)": int((columns.splits < 0).sum())} if (columns.splits < 0).any() else {}),
        },
        "labels": {
            "number": len(columns.label_names),
            "without": int((columns.labels < 0).sum()),
            "per_label": _per_label(columns),
        },
        "formats": columns.formats,
        "formats_of": columns.formats_of,
        "width": spread(columns.widths[known]),
        "height": spread(columns.heights[known]),
        "bytes": spread(columns.lengths),
        "captions": {
            "number": len(columns.caption_chars),
            "images_without": int((columns.caption_counts == 0).sum()),
            "per_image": spread(columns.caption_counts),
            "characters": spread(columns.caption_chars),
        },
        "duplicates": {
            "sets": duplicates.sets,
            "copies": duplicates.copies,
            "sets_in_two_splits": duplicates.in_two_splits,
            "sets_with_two_labels": duplicates.with_two_labels,
        },
        "problems": columns.problems,
    }


def spread(values: NDArray[Any]) -> dict[str, int]:
    """Minimum, 5% quantile, median, 95% quantile and maximum, all of them values that occur; {} without values."""
    if not len(values):
        return {}
    quantiles = np.quantile(values, list(_QUANTILES.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(_QUANTILES, quantiles, strict=True)}


def _per_label(columns: ImageColumns) -> list[dict[str, Any]]:
    """One entry per label, in the order of the label numbers."""
    width = len(SPLITS) + 1
    labelled = columns.labels >= 0
    cells = columns.labels[labelled].astype(np.int64) * width + columns.splits[labelled] % width
    counts = np.bincount(cells, minlength=len(columns.label_names) * width).reshape(-1, width)
    return [
        {"label": name, "images": int(of.sum()), **dict(zip(SPLITS, of[: len(SPLITS)].tolist(), strict=True))}
        for name, of in zip(columns.label_names, counts, strict=True)
    ]
