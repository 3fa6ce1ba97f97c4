"""What is counted of images, as columns: the same for an artifact's index and for foreign tars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.sharding.format.index import SampleIndex


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Images with equal bytes.

    Attributes:
        sets: how many different images are there more than once.
        copies: how many images could go without an image being lost.
        in_two_splits: sets with images in more than one split.
        with_two_labels: sets with more than one label.
    """

    sets: int = 0
    copies: int = 0
    in_two_splits: int = 0
    with_two_labels: int = 0


@dataclass(frozen=True, eq=False)
class ImageColumns:
    """The images of a data set, by column.

    Attributes:
        splits: [images] number in `SPLITS`, -1 for none.
        labels: [images] number in `label_names`, -1 for none.
        widths, heights: [images] in pixels; 0 where the header cannot be read.
        lengths: [images] in bytes.
        caption_counts: [images].
        caption_chars: [captions] how long each caption is.
        formats: images by format; a sample of `formats_of` images.
        shard_bytes: [shards] size of each.
        problems: samples without an image that can be read, by reason.
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


def index_columns(
    index: SampleIndex, shard_bytes: NDArray[np.int64], formats: dict[str, int] | None = None
) -> ImageColumns:
    """The columns of an index; nothing is read but it.

    Args:
        shard_bytes: [shards] the sizes of its shards.
        formats: images by format, of some.
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
        duplicates=equal_images(equal_codes(index), index.splits, index.labels),
        shard_bytes=shard_bytes,
        formats=formats or {},
        formats_of=sum((formats or {}).values()),
    )


def equal_codes(index: SampleIndex) -> NDArray[np.int64]:
    """[rows] equal for images with equal bytes."""
    codes: NDArray[np.int64] = index.content_hashes.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return codes.astype(np.int64, copy=False)


def equal_images(codes: NDArray[np.int64], splits: NDArray[np.int8], labels: NDArray[np.int32]) -> Duplicates:
    """Counts the sets of images that have one code.

    Args:
        codes: [images] from 0; -1 for an image that is known to be the only one.
    """
    counts = np.bincount(codes[codes >= 0]) if (codes >= 0).any() else np.zeros(0, dtype=np.int64)
    repeated = counts > 1
    if not repeated.any():
        return Duplicates()
    rows = np.flatnonzero((codes >= 0) & repeated[codes])
    order = rows[np.argsort(codes[rows], kind="stable")]
    starts = np.flatnonzero(np.append(True, np.diff(codes[order]) != 0))

    def differ(values: NDArray[np.int8] | NDArray[np.int32]) -> int:
        of_rows = values[order]
        return int((np.minimum.reduceat(of_rows, starts) != np.maximum.reduceat(of_rows, starts)).sum())

    return Duplicates(int(repeated.sum()), int((counts[repeated] - 1).sum()), differ(splits), differ(labels))
