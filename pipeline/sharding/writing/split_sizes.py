"""Notes on validation and test splits that are much larger than their shares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.sharding.format.index import SPLITS
from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.duplicates import DROPPED
from pipeline.sharding.writing.split import fixed_splits
from pipeline.sharding.writing.split_config import SplitConfig

_EXCESS = 1.25  # More than a quarter.


def split_size_notes(columns: PlanColumns, splits: NDArray[np.int8], config: SplitConfig) -> Iterator[str]:
    """One sentence for each split drawn by the hash that exceeds its share by more than a quarter.

    The reason is the one image of each class that a split must have, or, if that explains less than half of the excess,
    chance: few images or content groups.

    Args:
        splits: [samples] index into `SPLITS`, or DROPPED.
    """
    fixed = fixed_splits(columns, config)
    drawn = (fixed == DROPPED) & (splits != DROPPED)
    total = int(np.count_nonzero(drawn))
    labels = columns.label[drawn]
    class_sizes = np.bincount(labels[labels >= 0])
    for split, share in (("val", config.val_share), ("test", config.test_share)):
        number = SPLITS.index(split)
        count = int(np.count_nonzero(splits[drawn] == number))
        # An excess of less than one image is rounding.
        if (fixed == number).any() or count <= max(_EXCESS * share * total, share * total + 1):
            continue
        missing = np.maximum(0.0, 1.0 - share * class_sizes[class_sizes > 0])
        if missing.sum() >= (count - share * total) / 2:
            classes = np.unique(labels[(labels >= 0) & (splits[drawn] == number)])
            reason = f"each of {counted(len(classes), 'class', 'classes')} has at least one"
        else:
            groups = total if config.rule == "image" else len(np.unique(columns.group_hash[drawn]))
            units = counted(total, "image") if groups == total else f"{counted(groups, 'group')} of the same content"
            reason = f"by chance, in the draw of {units}"
        yield (
            f"{split} has {count:,} of {counted(total, 'image')} ({count / total:.0%}), more than the "
            f"{100 * share:g}% asked for: {reason}"
        )
