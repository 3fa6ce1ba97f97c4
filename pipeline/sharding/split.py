"""Splits: decided for whole content groups by a hash, so that they hold when data are added.

A group's number in [0, 1) depends on its name and the seed only. Below `test_share` it is test, below
`test_share + val_share` val, else train: a group that was held out yesterday is held out tomorrow.
A class that would miss a split gets its nearest group moved there. Equal images never lie in
different splits: the copy in the less protected one (train before val before test) is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.config import Config
from pipeline.errors import InputError, UnknownNameError
from pipeline.sharding.index import SPLITS

_TRAIN, _VAL, _TEST = range(3)
DROPPED = -1
_ATTEMPTS = 4


class SplitConfig(Config):
    """Which share of the content groups is held out, or which artist family."""

    val_share: float = Field(0.1, ge=0, lt=1, description="share of the content groups for validation")
    test_share: float = Field(
        0.1, ge=0, lt=1, description="share of the content groups for test; unused where the test split is given"
    )
    holdout_family: str | None = Field(None, description="this artist family, whole, is the test split")
    seed: int = Field(0, ge=0, description="another seed holds out other groups")

    @model_validator(mode="after")
    def _something_to_train_on(self) -> SplitConfig:
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share + test_share is {self.val_share + self.test_share:g}: nothing is left to train on"
            )
        return self


@dataclass(frozen=True, slots=True)
class SplitInput:
    """What the split depends on, one entry a sample.

    Attributes:
        groups: names of the content groups.
        labels: [samples] numbers into the label names, -1 for none.
        families: who made it.
        given: the split that the data set prescribes, or None.
        content_hashes: equal for equal bytes.
        captions: two copies with other captions are both kept.
    """

    groups: Sequence[str]
    labels: NDArray[np.int32]
    families: Sequence[str]
    given: Sequence[str | None]
    content_hashes: Sequence[str]
    captions: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The split of every sample, and what was dropped.

    Attributes:
        splits: [samples] number in `SPLITS`, or DROPPED.
        copies: samples whose bytes an earlier sample has too, dropped or not.
        held_out_copies: samples dropped because the same image is in a more protected split.
        repeats: samples dropped because the same image with the same label and captions is in the same split.
        conflicts: groups of equal images that carry different labels; they are kept.
    """

    splits: NDArray[np.int8]
    copies: int
    held_out_copies: int
    repeats: int
    conflicts: int


def assign_splits(samples: SplitInput, config: SplitConfig, label_names: Sequence[str]) -> Assignment:
    """Gives every sample a split.

    Raises:
        InputError: a class is too small to be in every split; the line names it and its count.
    """
    codes, number_of = _group_codes(samples.groups, config.seed)
    fixed = _fixed_splits(samples, config)
    test_share = 0.0 if (fixed == _TEST).any() else config.test_share
    of_group = np.full(len(number_of), _TRAIN, dtype=np.int8)
    of_group[number_of < test_share + config.val_share] = _VAL
    of_group[number_of < test_share] = _TEST
    wanted = [_TRAIN] + [_VAL] * (config.val_share > 0) + [_TEST] * (test_share > 0)

    pool = fixed == DROPPED
    live = pool
    # A group that was moved to fill a split may consist of copies that are then dropped: so it is tried again.
    for attempt in range(_ATTEMPTS):
        members = _groups_of_labels(samples.labels, codes, live, len(label_names))
        for label, groups in members.items():
            if len(groups) < len(wanted):
                images = int((pool & (samples.labels == label)).sum())
                raise _too_small(label_names[label], len(groups), images, wanted, copies=attempt > 0)
        _fill_missing(of_group, number_of, members, wanted)
        assignment = _without_copies(samples, np.where(pool, of_group[codes], fixed).astype(np.int8))
        live = pool & (assignment.splits != DROPPED)
        short = _short_of_a_split(samples.labels[live], assignment.splits[live], wanted, len(label_names))
        if not short:
            break
    else:
        images = int((pool & (samples.labels == short[0])).sum())
        raise _too_small(label_names[short[0]], len(members[short[0]]), images, wanted, copies=True)
    return assignment


def check_class_sizes(images_per_class: Mapping[str, int] | None, config: SplitConfig) -> None:
    """Refuses a class with fewer images than splits, before any work; None: the counts are not known yet.

    Raises:
        InputError: the line names the class and its count.
    """
    wanted = [_TRAIN] + [_VAL] * (config.val_share > 0) + [_TEST] * (config.test_share > 0)
    for name, count in (images_per_class or {}).items():
        if count < len(wanted):
            raise _too_small(name, count, count, wanted, copies=False)


def group_number(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on the group's name and the seed only."""
    digest = hashlib.blake2b(f"{seed}/{group}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def _group_codes(groups: Sequence[str], seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """[samples] code of each sample's group, and [groups] number of each group."""
    code_of = {group: code for code, group in enumerate(sorted(set(groups)))}
    codes = np.array([code_of[group] for group in groups], dtype=np.int64)
    return codes, np.array([group_number(group, seed) for group in code_of], dtype=np.float64)


def _fixed_splits(samples: SplitInput, config: SplitConfig) -> NDArray[np.int8]:
    """[samples] the split that does not depend on the group, or DROPPED where it does."""
    fixed = np.full(len(samples.groups), DROPPED, dtype=np.int8)
    if config.holdout_family is not None:
        families = set(samples.families)
        if config.holdout_family not in families:
            raise UnknownNameError("artist family", config.holdout_family, families)
        fixed[[family == config.holdout_family for family in samples.families]] = _TEST
    for split in (_VAL, _TEST):
        fixed[[given == SPLITS[split] for given in samples.given]] = split
    return fixed


def _groups_of_labels(
    labels: NDArray[np.int32], codes: NDArray[np.int64], pool: NDArray[np.bool_], count: int
) -> dict[int, NDArray[np.int64]]:
    return {label: np.unique(codes[pool & (labels == label)]) for label in range(count)}


def _fill_missing(
    of_group: NDArray[np.int8],
    number_of: NDArray[np.float64],
    members: dict[int, NDArray[np.int64]],
    wanted: Sequence[int],
) -> None:
    """Moves groups until every class is in every split that is wanted; the smallest classes first.

    A group may carry several labels, so a move for one class can take from another: hence the passes.
    """
    order = sorted(members, key=lambda label: (len(members[label]), label))
    for _ in range(len(wanted) + 1):
        moved = False
        for label in order:
            groups = members[label]
            for split in wanted:
                if (of_group[groups] == split).any():
                    continue
                counts = [int((of_group[groups] == other).sum()) for other in range(len(SPLITS))]
                donor = int(np.argmax(counts))
                candidates = groups[of_group[groups] == donor]
                # Near the split's own range of numbers: the smallest for a held-out split, the largest for train.
                pick = np.argmax(number_of[candidates]) if split == _TRAIN else np.argmin(number_of[candidates])
                of_group[candidates[pick]] = split
                moved = True
        if not moved:
            return


def _short_of_a_split(
    labels: NDArray[np.int32], splits: NDArray[np.int8], wanted: Sequence[int], count: int
) -> list[int]:
    """The labels that are not in every split."""
    return [label for label in range(count) if not set(splits[labels == label].tolist()).issuperset(wanted)]


def _too_small(name: str, groups: int, images: int, wanted: Sequence[int], *, copies: bool) -> InputError:
    counted = f"{images} image{'' if images == 1 else 's'}"
    if copies:
        counted += f" (without copies of held-out ones, {groups} content group{'' if groups == 1 else 's'})"
    elif images != groups:
        counted += f" in {groups} content group{'' if groups == 1 else 's'}"
    splits = ", ".join(SPLITS[split] for split in wanted)
    return InputError(
        f"class {name!r} has {counted}, too few for {len(wanted)} splits ({splits}); "
        "add images, remove the class, or set a share in `split` to 0"
    )


def _without_copies(samples: SplitInput, splits: NDArray[np.int8]) -> Assignment:
    same: dict[str, list[int]] = {}
    for row, content in enumerate(samples.content_hashes):
        same.setdefault(content, []).append(row)
    copies = held_out_copies = repeats = conflicts = 0
    for rows in same.values():
        if len(rows) == 1:
            continue
        copies += len(rows) - 1
        conflicts += len({int(samples.labels[row]) for row in rows}) > 1
        kept = max(int(splits[row]) for row in rows)
        seen = set()
        for row in rows:
            meaning = (int(samples.labels[row]), samples.captions[row])
            if splits[row] < kept:
                held_out_copies += 1
                splits[row] = DROPPED
            elif meaning in seen:
                repeats += 1
                splits[row] = DROPPED
            else:
                seen.add(meaning)
    return Assignment(splits, copies, held_out_copies, repeats, conflicts)
