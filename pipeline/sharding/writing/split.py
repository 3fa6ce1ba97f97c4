"""Splits: assigned to whole content groups by a hash, so that they stay the same when data are added.

A group's draw, a number in [0, 1), depends on its name and the seed only. A group with a draw below `test_share` is in
test, below `test_share + val_share` in val, else in train: a group that is held out stays held out in later runs. If a
class would miss a split, its group with the nearest draw is moved there; a class with fewer groups than splits is rare
(rare_classes.py). Duplicates are dropped in the same step (duplicates.py), because a class must be in every split
without them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.counter_rng import text_hash
from pipeline.errors import InputError, UnknownNameError
from pipeline.sharding.format.index import SPLITS
from pipeline.sharding.writing.chunks import PlanColumns
from pipeline.sharding.writing.duplicates import DROPPED, DuplicatesConfig, SplitAssignment, without_duplicates
from pipeline.sharding.writing.equal_sets import EqualSets
from pipeline.sharding.writing.rare_classes import too_small_error, wanted_splits
from pipeline.sharding.writing.split_config import SplitConfig

_TRAIN, _VAL, _TEST = range(3)
_MAX_ATTEMPTS = 4


@dataclass(frozen=True, eq=False)
class InheritedSplits:
    """The splits that an earlier artifact determines.

    Attributes:
        splits: [samples] the split that the sample or its group has there; DROPPED: none.
        barred: [samples] the sample may be in no split, because there its image is in one and its group in another.
        rank: [samples] of repeats, the one with the lowest rank stays.
        labels: number of its labels, which come first. Such a class may have shrunk, and then may miss a split.
    """

    splits: NDArray[np.int8]
    barred: NDArray[np.bool_]
    rank: NDArray[np.int8]
    labels: int


def assign_splits(
    columns: PlanColumns,
    config: SplitConfig,
    duplicates: DuplicatesConfig,
    label_names: Sequence[str],
    inherited: InheritedSplits | None = None,
) -> SplitAssignment:
    """Assigns a split to every sample, and drops duplicates.

    Raises:
        InputError: classes are too small for every split and refused; the message names them and their counts.
    """
    fixed = fixed_splits(columns, config)
    wanted, group_splits, codes, draws = _draw_splits(columns, config, fixed)
    labels, count = columns.label, len(label_names)
    # Samples whose split neither the data set nor the config determines, and those of them that nothing inherits.
    drawn = fixed == DROPPED
    pool = drawn
    # [labels, splits] whether a class has samples with an inherited split.
    present = np.zeros((count, len(SPLITS)), dtype=bool)
    if inherited is not None:
        fixed = np.where(drawn, inherited.splits, fixed)
        fixed[drawn & inherited.barred] = DROPPED
        pool = drawn & (inherited.splits == DROPPED) & ~inherited.barred
        has_label = drawn & (fixed != DROPPED) & (labels >= 0)
        present[labels[has_label], fixed[has_label]] = True
    inherited_labels: NDArray[np.bool_] = np.asarray(present.any(axis=1))
    inherited_labels[: inherited.labels if inherited is not None else 0] = True

    # Under every split rule, a class without an image is rare.
    listed = np.bincount(labels[labels >= 0], minlength=count) > 0
    rare = ~listed & ~inherited_labels if config.rare_classes != "refuse" else np.zeros(count, dtype=np.bool_)
    to_train = np.zeros(len(group_splits), dtype=np.bool_)  # [groups] those of rare classes that are put into train
    live = pool  # The pool without dropped duplicates.
    if config.rare_classes == "train_only" and inherited is not None:
        # A class of the base that is still rare together with the new samples.
        all_groups = _groups_of_labels(labels, codes, pool | (drawn & (fixed != DROPPED)), count)
        for label in np.flatnonzero(inherited_labels).tolist():
            if len(all_groups[label]) < len(wanted):
                rare[label] = True
                to_train[codes[pool & (labels == label)]] = True
    equal_sets = EqualSets.of_hashes(columns.hash_high, columns.hash_low)
    attempt = 0
    while True:
        members = _groups_of_labels(labels, codes, live, count)
        small = [
            label
            for label, groups in enumerate(members)
            if len(groups) < len(wanted) and not inherited_labels[label] and not rare[label]
        ]
        # A group moved to fill a split may consist of copies that are then dropped, hence the attempts.
        if not small:
            group_splits[to_train] = _TRAIN
            _fill_missing(group_splits, draws, members, wanted, present, inherited_labels, rare, to_train)
            assignment = without_duplicates(
                np.where(pool, group_splits[codes], fixed).astype(np.int8),
                labels=labels,
                equal_sets=equal_sets,
                captions_hashes=columns.captions_hash,
                difference_hashes=columns.difference_hash,
                config=duplicates,
                rank=None if inherited is None else inherited.rank,
            )
            stays = assignment.splits != DROPPED
            live = pool & stays
            counted = drawn & stays
            short = _labels_missing_a_split(labels[counted], assignment.splits[counted], wanted, count)
            short = [label for label in short if not inherited_labels[label] and not rare[label]]
            attempt += 1
            if not short:
                break
            small = short if attempt >= _MAX_ATTEMPTS else []
        if small and config.rare_classes == "refuse":
            images = np.bincount(labels[pool & (labels >= 0)], minlength=count)
            classes = {label_names[label]: (len(members[label]), int(images[label])) for label in small}
            raise too_small_error(classes, wanted, copies=attempt > 0)
        if small:
            rare[small] = True
            attempt, live = 0, pool
            has_rare_label = (labels >= 0) & rare[labels]
            if config.rare_classes == "drop":
                pool = live = pool & ~has_rare_label
                fixed = np.where(has_rare_label, np.int8(DROPPED), fixed)
                drawn = drawn & ~has_rare_label
            else:
                to_train[codes[pool & has_rare_label]] = True
    stored = np.bincount(labels[(labels >= 0) & (assignment.splits != DROPPED)], minlength=count) > 0
    return replace(
        assignment,
        rare_classes=_rare_images(rare, labels, assignment.splits, config),
        dropped_labels=tuple(np.flatnonzero(rare & ~stored & ~inherited_labels).tolist()),
    )


def _rare_images(
    rare: NDArray[np.bool_], labels: NDArray[np.int32], splits: NDArray[np.int8], config: SplitConfig
) -> dict[int, int]:
    """Rare label -> number of its images that were dropped, or that are in train."""
    counted = labels >= 0 if config.rare_classes == "drop" else (labels >= 0) & (splits == _TRAIN)
    images = np.bincount(labels[counted], minlength=len(rare))
    return {label: int(images[label]) for label in np.flatnonzero(rare).tolist()}


def split_draw(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on the group's name and the seed only."""
    return (text_hash(f"{seed}/{group}", digest_bytes=8) >> 11) * 2.0**-53


def fixed_splits(columns: PlanColumns, config: SplitConfig) -> NDArray[np.int8]:
    """[samples] the split if the data set or the config determines it, DROPPED where the hash decides."""
    if config.rule == "given":
        without = int((columns.given_split < 0).sum())
        if without:
            raise InputError(
                f"split.rule=given, but the data set gives no split for {without} of {len(columns)} images; "
                "set split.rule=group"
            )
        return columns.given_split
    fixed = np.full(len(columns), DROPPED, dtype=np.int8)
    if config.holdout_family is not None:
        families = columns.family_names
        if config.holdout_family not in families:
            raise UnknownNameError("family", config.holdout_family, families)
        fixed[columns.family == families.index(config.holdout_family)] = _TEST
    held_out = columns.given_split > _TRAIN
    fixed[held_out] = columns.given_split[held_out]
    return fixed


def _draw_splits(
    columns: PlanColumns, config: SplitConfig, fixed: NDArray[np.int8]
) -> tuple[list[int], NDArray[np.int8], NDArray[np.int64], NDArray[np.float64]]:
    """(splits that every class must be in, [groups] splits, [samples] group codes, [groups] draws in [0, 1))."""
    unit = columns.hash_high if config.rule == "image" else columns.group_hash
    _, first, codes = np.unique(unit, return_index=True, return_inverse=True)
    draws = columns.split_draw[first]
    test_share = 0.0 if (fixed == _TEST).any() else config.test_share
    val_share = 0.0 if (columns.given_split == _VAL).any() else config.val_share
    group_splits = np.full(len(draws), _TRAIN, dtype=np.int8)
    group_splits[draws < test_share + val_share] = _VAL
    group_splits[draws < test_share] = _TEST
    wanted = wanted_splits(val_share, test_share)
    return [] if config.rule == "given" else wanted, group_splits, codes.astype(np.int64, copy=False), draws


def _groups_of_labels(
    labels: NDArray[np.int32], codes: NDArray[np.int64], pool: NDArray[np.bool_], count: int
) -> list[NDArray[np.int64]]:
    """The groups of each label, ascending."""
    rows = np.flatnonzero(pool & (labels >= 0))
    groups = int(codes.max()) + 1 if len(codes) else 1
    pairs = np.sort(labels[rows].astype(np.int64) * groups + codes[rows])
    # Not np.unique, which hashes: for millions of distinct values, sorting is several times as fast.
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]]
    edges = np.searchsorted(pairs, np.arange(count + 1, dtype=np.int64) * groups)
    return [pairs[start:end] % groups for start, end in itertools.pairwise(edges)]


def _fill_missing(
    group_splits: NDArray[np.int8],
    draws: NDArray[np.float64],
    members: Sequence[NDArray[np.int64]],
    wanted: Sequence[int],
    present: NDArray[np.bool_],
    inherited_labels: NDArray[np.bool_],
    rare: NDArray[np.bool_],
    immovable: NDArray[np.bool_],
) -> None:
    """Moves groups until every class is in every wanted split; the smallest classes first.

    A group may have several labels, so a move for one class can remove another from a split: hence several passes.

    Args:
        present: [labels, splits] whether a class has samples in the split that an earlier artifact determines.
        inherited_labels: [labels] classes of an earlier artifact: the last group of a split is not moved away.
        rare: [labels] classes that need not be in every split.
        immovable: [groups] groups that must not be moved.
    """
    order = sorted(range(len(members)), key=lambda label: (len(members[label]), label))
    for _ in range(len(wanted) + 1):
        moved = False
        for label in order:
            if rare[label]:
                continue
            groups = members[label]
            for split in wanted:
                if present[label, split] or (group_splits[groups] == split).any():
                    continue
                free = groups[~immovable[groups]]
                counts = [int((group_splits[free] == other).sum()) for other in range(len(SPLITS))]
                if inherited_labels[label]:
                    counts = [n if n > 1 or present[label, other] else 0 for other, n in enumerate(counts)]
                if not any(counts):
                    continue
                donor = int(np.argmax(counts))
                candidates = free[group_splits[free] == donor]
                # The number nearest to the split's range: the smallest for a held-out split, the largest for train.
                pick = np.argmax(draws[candidates]) if split == _TRAIN else np.argmin(draws[candidates])
                group_splits[candidates[pick]] = split
                moved = True
        if not moved:
            return


def _labels_missing_a_split(
    labels: NDArray[np.int32], splits: NDArray[np.int8], wanted: Sequence[int], count: int
) -> list[int]:
    """The labels that are missing from a wanted split."""
    present = np.zeros((count, len(SPLITS)), dtype=bool)
    labelled = labels >= 0
    present[labels[labelled], splits[labelled]] = True
    return [int(label) for label in np.flatnonzero(~present[:, list(wanted)].all(axis=1))]
