"""The columns from which statistics are computed: the same for an artifact's index and for foreign tars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.writing.equal_sets import EqualSets


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Images with equal bytes.

    Attributes:
        sets: number of distinct images that occur more than once.
        copies: number of images that could be removed without losing a distinct one.
        in_two_splits: number of sets with images in more than one split.
        with_two_labels: number of sets with more than one label.
    """

    sets: int = 0
    copies: int = 0
    in_two_splits: int = 0
    with_two_labels: int = 0

    @classmethod
    def of_sets(cls, equal: EqualSets, splits: NDArray[np.int8], labels: NDArray[np.int32]) -> Duplicates:
        """The counts for sets of equal images; `splits` and `labels` are [images]."""
        return cls(
            len(equal), equal.copies, int(equal.have_different(splits).sum()), int(equal.have_different(labels).sum())
        )


@dataclass(frozen=True, eq=False)
class ImageColumns:
    """The images of a data set, by column.

    Attributes:
        splits: [images] position in `SPLITS`, -1 for none.
        labels: [images] position in `label_names`, -1 for none.
        widths, heights: [images] in pixels; 0 if the header cannot be read.
        lengths: [images] in bytes.
        caption_counts: [images].
        caption_chars: [captions] length in characters.
        formats: number of images by format, in a sample of `formats_of` images.
        shard_bytes: [shards] size in bytes.
        problems: number of samples without a readable image, by reason.
    """

    splits: NDArray[np.int8]
    labels: NDArray[np.int32]
    label_names: Sequence[str]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    lengths: NDArray[np.int64]
    caption_counts: NDArray[np.int64]
    caption_chars: NDArray[np.int64]
    duplicates: Duplicates
    shard_bytes: NDArray[np.int64]
    formats: dict[str, int] = field(default_factory=dict)
    formats_of: int = 0
    problems: dict[str, int] = field(default_factory=dict)


def index_columns(index: SampleIndex, shard_bytes: NDArray[np.int64], formats: dict[str, int]) -> ImageColumns:
    """The images of an index, by column; no shard is read.

    Args:
        shard_bytes: [shards] sizes of the shards.
        formats: number of images by format, in a sample of images.
    """
    return ImageColumns(
        splits=index.splits,
        labels=index.labels,
        label_names=index.label_names,
        widths=index.widths,
        heights=index.heights,
        lengths=index.lengths.astype(np.int64),
        caption_counts=pc.list_value_length(index.caption_lists).to_numpy(zero_copy_only=False).astype(np.int64),
        caption_chars=pc.utf8_length(index.caption_lists.flatten()).to_numpy(zero_copy_only=False).astype(np.int64),
        duplicates=Duplicates.of_sets(EqualSets.of_codes(equal_codes(index)), index.splits, index.labels),
        shard_bytes=shard_bytes,
        formats=formats,
        formats_of=sum(formats.values()),
    )


def equal_codes(index: SampleIndex) -> NDArray[np.int64]:
    """[rows] codes that are equal for images with equal bytes."""
    codes: NDArray[np.int64] = index.content_hashes.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return codes.astype(np.int64, copy=False)
