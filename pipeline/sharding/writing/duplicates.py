"""Removal of exact and near duplicates.

In every configuration an image is in one split only: of equal images, those in the most protected split stay (test
before val before train). Otherwise the first in source order stays.

`conflicts` decides about equal or similar images with DIFFERENT labels: "keep" keeps all of them (a photograph of two
things), "first" keeps only the label of the first in the most protected split, "drop" drops all of them.
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
    """Which duplicates are removed."""

    exact: Literal["remove", "keep"] = Field(
        "remove", description="What becomes of a repeated image in a split, with the same bytes, label and captions."
    )
    near: Literal["keep", "remove"] = Field(
        "keep", description="What becomes of an image that looks like another one: nearly equal difference hashes."
    )
    near_radius: int = Field(3, ge=0, le=8, description="How many of the 64 bits of their hashes may differ.")
    conflicts: Literal["keep", "first", "drop"] = Field(
        "keep", description="Of equal (or alike) images with different labels: keep all, only the first, or none."
    )


@dataclass(frozen=True, eq=False)
class Kept:
    """The split of every sample, and counts of dropped samples.

    Attributes:
        splits: [samples] index into `SPLITS`, or DROPPED.
        equal: the sets of equal images, including dropped ones.
        held_out_copies: samples dropped because the same image is in a more protected split.
        repeats: samples dropped because the same image with the same label and captions is in the same split.
        conflicts: sets of equal images that carry different labels.
        contradicted: samples dropped because an equal or similar image has a different label.
        alike: samples dropped as near duplicates.
        rare: label number of each rare class -> number of its images that were dropped, or are in train only.
        dropped_labels: the rare classes without a stored image: neither index nor model has them.
    """

    splits: NDArray[np.int8]
    equal: EqualSets
    held_out_copies: int = 0
    repeats: int = 0
    conflicts: int = 0
    contradicted: int = 0
    alike: int = 0
    rare: dict[int, int] = field(default_factory=dict)
    dropped_labels: tuple[int, ...] = ()


def without_duplicates(
    splits: NDArray[np.int8],
    *,
    labels: NDArray[np.int32],
    equal: EqualSets,
    meaning: NDArray[np.uint64],
    looks: NDArray[np.uint64],
    config: DuplicatesConfig,
    rank: NDArray[np.int8] | None = None,
) -> Kept:
    """Drops duplicates from an assignment of splits.

    Args:
        splits: [samples] index into `SPLITS`.
        equal: the sets of equal images.
        meaning: [samples] hash of the captions.
        looks: [samples] difference hashes; read only if near duplicates are removed.
        rank: [samples] of repeated samples, the one with the lowest rank stays; None: the first.
    """
    ranks = np.zeros(len(splits), dtype=np.int8) if rank is None else rank
    kept = _without_equal(Kept(splits.copy(), equal), labels, meaning, ranks, config)
    if config.near == "remove":
        kept = _without_alike(kept, labels, looks, config)
    return kept


def _without_equal(
    kept: Kept,
    labels: NDArray[np.int32],
    meaning: NDArray[np.uint64],
    ranks: NDArray[np.int8],
    config: DuplicatesConfig,
) -> Kept:
    rows, starts = kept.equal.rows, kept.equal.starts
    if not rows.size:
        return kept
    splits = kept.splits
    set_of = np.repeat(np.arange(len(starts)), kept.equal.sizes)
    of_row = splits[rows]
    protected = np.maximum.reduceat(of_row, starts)[set_of]
    conflicting = kept.equal.differ(labels)

    drop = of_row < protected
    held_out_copies = int(drop.sum())
    contradicted = np.zeros_like(drop)
    if config.conflicts == "drop":
        contradicted = conflicting[set_of] & ~drop
    elif config.conflicts == "first":
        alive = np.flatnonzero(~drop)
        first = alive[np.unique(set_of[alive], return_index=True)[1]]
        contradicted = (labels[rows] != labels[rows[first]][set_of]) & ~drop
    drop |= contradicted
    repeats = np.zeros_like(drop)
    if config.exact == "remove":
        alive = np.flatnonzero(~drop)
        # Stable: of equal samples with equal rank, the first in source order comes first.
        order = alive[np.lexsort((ranks[rows[alive]], meaning[rows[alive]], labels[rows[alive]], set_of[alive]))]
        one, other = rows[order[:-1]], rows[order[1:]]
        same = (
            (set_of[order[:-1]] == set_of[order[1:]])
            & (labels[one] == labels[other])
            & (meaning[one] == meaning[other])
        )
        repeats[order[1:][same]] = True
    splits[rows[drop | repeats]] = DROPPED
    return replace(
        kept,
        held_out_copies=held_out_copies,
        repeats=int(repeats.sum()),
        conflicts=int(conflicting.sum()),
        contradicted=int(contradicted.sum()),
    )


def _without_alike(kept: Kept, labels: NDArray[np.int32], looks: NDArray[np.uint64], config: DuplicatesConfig) -> Kept:
    """Visits the samples, most protected split first, and drops near duplicates of samples that stay."""
    splits = kept.splits
    alive = np.flatnonzero(splits != DROPPED)
    different, look_of = np.unique(looks[alive], return_inverse=True)
    neighbours = _neighbours(different, config.near_radius)
    shared = np.bincount(look_of, minlength=len(different)) > 1
    involved = np.flatnonzero(shared[look_of] | np.isin(look_of, np.fromiter(neighbours, np.int64, len(neighbours))))
    # Only these few samples are compared one by one.
    members: dict[int, list[int]] = {}
    for place in involved.tolist():
        members.setdefault(int(look_of[place]), []).append(int(alive[place]))

    contradicted: set[int] = set()
    if config.conflicts == "drop":
        for look, rows in members.items():
            seen = {int(labels[row]) for near in (look, *neighbours.get(look, ())) for row in members.get(near, ())}
            if len(seen) > 1:
                contradicted.update(rows)
    stays: dict[int, set[int]] = {}
    alike: set[int] = set()
    order = sorted(involved.tolist(), key=lambda place: (-int(splits[alive[place]]), place))
    for place in order:
        row, look = int(alive[place]), int(look_of[place])
        if row in contradicted:
            continue
        label = int(labels[row])
        found = {one for near in (look, *neighbours.get(look, ())) for one in stays.get(near, ())}
        if label in found:
            alike.add(row)
        elif found and config.conflicts == "first":
            contradicted.add(row)
        else:
            stays.setdefault(look, set()).add(label)
    gone = np.fromiter(alike | contradicted, np.int64, len(alike) + len(contradicted))
    splits[gone] = DROPPED
    return replace(kept, alike=len(alike), contradicted=kept.contradicted + len(contradicted))


def _neighbours(different: NDArray[np.uint64], radius: int) -> dict[int, list[int]]:
    left, right = near_pairs(different, radius)
    found: dict[int, list[int]] = {}
    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        found.setdefault(one, []).append(other)
        found.setdefault(other, []).append(one)
    return found
