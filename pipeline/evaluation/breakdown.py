"""Accuracies over all samples and over subsets of them.

The subsets: samples of concepts (content groups) that are in the training split, samples of concepts that are
not, and each family. Each subset has its accuracy with the interval, chance and majority rate.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import chance_accuracy, majority_accuracy, wilson_interval
from pipeline.sharding.format.index import SampleIndex

SEEN = "_seen_concepts"
UNSEEN = "_unseen_concepts"
_TOP_KS = (1, 5)


def unseen_concepts(index: SampleIndex, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bool [rows]: True where the concept (content group) has no sample in the training split."""
    return ~np.isin(index.groups[rows], index.groups[index.rows("train")])


def subsets_of(index: SampleIndex, rows: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Name suffix -> which rows are in the subset; "" is all rows, "_source/NAME" a family.

    A division that puts all rows into one subset is left out.
    """
    subsets = {"": np.ones(len(rows), dtype=np.bool_)}
    unseen = unseen_concepts(index, rows)
    if unseen.any() and not unseen.all():
        subsets[SEEN] = ~unseen
        subsets[UNSEEN] = unseen
    codes = index.family_codes[rows]
    present = np.unique(codes)
    if len(present) > 1:
        subsets.update({f"_source/{index.family_names[code]}": codes == code for code in present})
    return subsets


def accuracy_breakdown(
    prefix: str,
    ranks: NDArray[np.int64],
    labels: NDArray[np.integer],
    train_labels: NDArray[np.integer],
    num_classes: int,
    subsets: Mapping[str, NDArray[np.bool_]],
) -> dict[str, float]:
    """Accuracies by name: PREFIX/top1, PREFIX/chance, PREFIX/majority, PREFIX/top1_low, ..., for each subset.

    Args:
        prefix: "accuracy" or "zero_shot".
        ranks: [N] rank of the true class, from `label_ranks`.
        labels: [N] true classes.
        train_labels: labels of the training split, -1 for none; without a label the majority rate is left out.
        num_classes: K; top-5 is left out if K is at most 5.
        subsets: from `subsets_of`, restricted to the same N.
    """
    measured: dict[str, float] = {}
    has_majority = bool((train_labels >= 0).any())
    for suffix, members in subsets.items():
        samples = int(np.count_nonzero(members))
        if samples == 0:
            continue
        measured[f"{prefix}/samples{suffix}"] = float(samples)
        for k in _TOP_KS:
            if k > 1 and num_classes <= k:
                continue
            hits = int(np.count_nonzero(ranks[members] <= k))
            low, high = wilson_interval(hits, samples)
            top_k = "" if k == 1 else f"_top{k}"
            measured[f"{prefix}/top{k}{suffix}"] = hits / samples
            measured[f"{prefix}/top{k}_low{suffix}"] = low
            measured[f"{prefix}/top{k}_high{suffix}"] = high
            measured[f"{prefix}/chance{top_k}{suffix}"] = chance_accuracy(num_classes, k)
            if has_majority:
                measured[f"{prefix}/majority{top_k}{suffix}"] = majority_accuracy(train_labels, labels[members], k)
    return measured
