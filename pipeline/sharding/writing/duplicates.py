"""Removal of exact and near duplicates.

An image is never in two splits, whatever the config: of equal images in several splits, those in the most protected one
stay (test before val before train). Of duplicates in one split, the first in source order stays.

Duplicates with different labels conflict. `conflicts` is "keep": all stay (a photograph of two things); "first": those
with the label of the first one in the most protected split stay; "drop": none stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.config import Config
from pipeline.sharding.format.perceptual import near_pairs
from pipeline.sharding.writing.equal_sets import EqualSets

DROPPED = -1


class DuplicatesConfig(Config):
    """How duplicate images are handled. In any case, an image is in one split only: test before val before train."""

    exact: Literal["remove", "keep"] = Field(
        "remove",
        description="What to do with repetitions of an image in a split, with the same bytes, label and captions.",
    )
    near: Literal["keep", "remove"] = Field(
        "keep", description="What to do with near duplicates: images with similar perceptual hashes, in any split."
    )
    near_radius: int = Field(
        3, ge=0, le=8, description="Maximum Hamming distance of the 64-bit perceptual hashes of near duplicates."
    )
    conflicts: Literal["keep", "first", "drop"] = Field(
        "keep",
        description="What to do with duplicates that have different labels. keep: keep all; first: keep only "
        "those with the label of the first; drop: remove all.",
    )


@dataclass(frozen=True, eq=False)
class SplitAssignment:
    """The split of every sample, and counts of dropped samples.

    Attributes:
        splits: [samples] index into `SPLITS`, or DROPPED.
        equal_sets: the sets of equal images, including dropped ones.
        held_out_copies: samples dropped because the same image is in a more protected split.
        repeats: samples dropped because the same image with the same label and captions is in the same split.
        conflicting_sets: sets of equal images that have different labels.
        conflicting: samples dropped because an equal or similar image has a different label.
        near_duplicates: samples dropped as near duplicates.
        rare_classes: number of a rare label -> number of its images that were dropped or, with
            rare_classes=train_only, are in train.
        dropped_labels: numbers of the rare labels without a stored image, which the index does not have.
    """

    splits: NDArray[np.int8]
    equal_sets: EqualSets
    held_out_copies: int = 0
    repeats: int = 0
    conflicting_sets: int = 0
    conflicting: int = 0
    near_duplicates: int = 0
    rare_classes: dict[int, int] = field(default_factory=dict)
    dropped_labels: tuple[int, ...] = ()


def without_duplicates(
    splits: NDArray[np.int8],
    *,
    labels: NDArray[np.int32],
    equal_sets: EqualSets,
    captions_hashes: NDArray[np.uint64],
    difference_hashes: NDArray[np.uint64],
    config: DuplicatesConfig,
    rank: NDArray[np.int8] | None = None,
) -> SplitAssignment:
    """Drops duplicates from an assignment of splits.

    Args:
        splits: [samples] index into `SPLITS`.
        equal_sets: the sets of equal images.
        captions_hashes: [samples] hash of the captions.
        difference_hashes: [samples] read only if near duplicates are removed.
        rank: [samples] of repeats, the one with the lowest rank stays, of equal ranks the first; None: the first.
    """
    ranks = np.zeros(len(splits), dtype=np.int8) if rank is None else rank
    assignment = _without_equal(SplitAssignment(splits.copy(), equal_sets), labels, captions_hashes, ranks, config)
    if config.near == "remove":
        assignment = _without_near(assignment, labels, difference_hashes, config)
    return assignment


def _without_equal(
    assignment: SplitAssignment,
    labels: NDArray[np.int32],
    captions_hashes: NDArray[np.uint64],
    ranks: NDArray[np.int8],
    config: DuplicatesConfig,
) -> SplitAssignment:
    rows, starts = assignment.equal_sets.rows, assignment.equal_sets.starts
    if not rows.size:
        return assignment
    splits = assignment.splits
    set_of = np.repeat(np.arange(len(starts)), assignment.equal_sets.sizes)
    row_splits = splits[rows]
    protected = np.maximum.reduceat(row_splits, starts)[set_of]
    in_conflict = assignment.equal_sets.have_different(labels)

    drop = row_splits < protected
    held_out_copies = int(drop.sum())
    conflicting = np.zeros_like(drop)
    if config.conflicts == "drop":
        conflicting = in_conflict[set_of] & ~drop
    elif config.conflicts == "first":
        remaining = np.flatnonzero(~drop)
        first = remaining[np.unique(set_of[remaining], return_index=True)[1]]
        conflicting = (labels[rows] != labels[rows[first]][set_of]) & ~drop
    drop |= conflicting
    repeats = np.zeros_like(drop)
    if config.exact == "remove":
        remaining = np.flatnonzero(~drop)
        # Stable: of equal samples with equal rank, the first in source order comes first.
        order = remaining[
            np.lexsort(
                (ranks[rows[remaining]], captions_hashes[rows[remaining]], labels[rows[remaining]], set_of[remaining])
            )
        ]
        first, second = rows[order[:-1]], rows[order[1:]]
        same = (
            (set_of[order[:-1]] == set_of[order[1:]])
            & (labels[first] == labels[second])
            & (captions_hashes[first] == captions_hashes[second])
        )
        repeats[order[1:][same]] = True
    splits[rows[drop | repeats]] = DROPPED
    return replace(
        assignment,
        held_out_copies=held_out_copies,
        repeats=int(repeats.sum()),
        conflicting_sets=int(in_conflict.sum()),
        conflicting=int(conflicting.sum()),
    )


def _without_near(
    assignment: SplitAssignment,
    labels: NDArray[np.int32],
    difference_hashes: NDArray[np.uint64],
    config: DuplicatesConfig,
) -> SplitAssignment:
    """Visits the samples, most protected split first, and drops near duplicates of samples that stay."""
    splits = assignment.splits
    remaining = np.flatnonzero(splits != DROPPED)
    distinct, hash_index_of = np.unique(difference_hashes[remaining], return_inverse=True)
    neighbours = _neighbours(distinct, config.near_radius)
    shared = np.bincount(hash_index_of, minlength=len(distinct)) > 1
    with_neighbours = np.fromiter(neighbours, np.int64, len(neighbours))
    involved = np.flatnonzero(shared[hash_index_of] | np.isin(hash_index_of, with_neighbours))
    # Only these few samples are compared one by one.
    members: dict[int, list[int]] = {}
    for position in involved.tolist():
        members.setdefault(int(hash_index_of[position]), []).append(int(remaining[position]))

    conflicting: set[int] = set()
    if config.conflicts == "drop":
        for hash_index, rows in members.items():
            near_rows = [row for near in (hash_index, *neighbours.get(hash_index, ())) for row in members.get(near, ())]
            labels_near = {int(labels[row]) for row in near_rows}
            if len(labels_near) > 1:
                conflicting.update(rows)
    staying_labels: dict[int, set[int]] = {}
    near_duplicates: set[int] = set()
    order = sorted(involved.tolist(), key=lambda position: (-int(splits[remaining[position]]), position))
    for position in order:
        row, hash_index = int(remaining[position]), int(hash_index_of[position])
        if row in conflicting:
            continue
        label = int(labels[row])
        near_labels = {
            other for near in (hash_index, *neighbours.get(hash_index, ())) for other in staying_labels.get(near, ())
        }
        if label in near_labels:
            near_duplicates.add(row)
        elif near_labels and config.conflicts == "first":
            conflicting.add(row)
        else:
            staying_labels.setdefault(hash_index, set()).add(label)
    dropped = np.fromiter(near_duplicates | conflicting, np.int64, len(near_duplicates) + len(conflicting))
    splits[dropped] = DROPPED
    return replace(
        assignment, near_duplicates=len(near_duplicates), conflicting=assignment.conflicting + len(conflicting)
    )


def _neighbours(distinct: NDArray[np.uint64], radius: int) -> dict[int, list[int]]:
    left, right = near_pairs(distinct, radius)
    neighbours: dict[int, list[int]] = {}
    for first, second in zip(left.tolist(), right.tolist(), strict=True):
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    return neighbours
