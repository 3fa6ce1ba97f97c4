"""Checks of the index against the tars: every row must match the image to which it points."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.format.shard_locations import is_own
from pipeline.sharding.format.tar_layout import BLOCK
from pipeline.sharding.inspection.lint.findings import Code, Finding, Findings, code
from pipeline.sharding.inspection.lint.images import DecodedImage
from pipeline.sharding.inspection.lint.samples import Sample
from pipeline.sharding.writing.intake import safe_key

RANGE = code("index-range", "error", "An invalid number: a shard, label, split, node, offset or size.")
KEY_REPEATED = code("index-key-repeated", "error", "Two rows with one key: joined columns cannot distinguish them.")
OFFSET = code("index-offset", "error", "No image begins at the offset in a row of the index: a read returns garbage.")
LENGTH = code(
    "index-length", "error", "The image is longer or shorter than its row says: a read gets too few or too many bytes."
)
KEY = code("index-key", "error", "The offset in a row of the index leads to another sample.")
HASH = code("index-hash", "error", "The image's bytes are not those that were indexed: their content hash differs.")
SIZE = code("index-size", "error", "Width or height in the index are not the image's.")
LABEL = code("index-label", "error", "The label in the index is not that of the sample's `.json`.")
CAPTIONS = code("index-captions", "error", "The captions in the index are not those of the sample's `.json`.")
SPLIT = code("index-split", "error", "The split in the index is not that of the shard's name.")
UNINDEXED = code(
    "index-lacks", "error", "A sample in a shard of this artifact has no row in the index: it is never read."
)

_OWN_SHARD = re.compile(rf"shards/({'|'.join(SPLITS)})-\d+\.tar")


class IndexRows:
    """Compares an index with the content of its shards, one shard after another.

    Args:
        written_with_index: the shards were written with the index. Otherwise they are foreign tars that were indexed in
            place: they may have samples without a row, and an index key may be a cleaned form of the tar's key.
    """

    def __init__(self, index: SampleIndex, findings: Findings, *, written_with_index: bool) -> None:
        self._index = index
        self._findings = findings
        self._written_with_index = written_with_index
        # Rows sorted by shard, then by offset.
        self._order: NDArray[np.int64] = np.lexsort((index.offsets, index.shards))
        self._shards = index.shards[self._order]
        self._rows: NDArray[np.int64] = self._order[:0]
        self._offsets: NDArray[np.int64] = index.offsets[:0]
        self._matched: NDArray[np.bool_] = np.zeros(0, dtype=bool)

    def check_columns(self) -> None:
        """Checks for values out of range and for repeated keys."""
        index = self._index
        bounds: list[tuple[str, NDArray[Any], int, int | None]] = [
            ("shard", index.shards, 0, len(index.shard_names)),
            ("label", index.labels, -1, len(index.label_names)),
            ("split", index.splits, 0, len(SPLITS)),
            ("node", index.nodes, -1, len(index.taxonomy)),
            ("offset", index.offsets, 0, None),
            ("length", index.lengths, 1, None),
            ("width", index.widths, 1, None),
            ("height", index.heights, 1, None),
            ("group", index.groups, 0, None),
        ]
        for name, values, low, high in bounds:
            wrong = (values < low) if high is None else (values < low) | (values >= high)
            ids = np.flatnonzero(wrong)
            limit = "" if high is None else f" and below {high}"
            for id in ids[: self._findings.max_stored].tolist():
                self._report(RANGE, id, f"row {id}: {name} {int(values[id])}, which must be at least {low}{limit}")
            self._findings.count_without_storing(RANGE, len(ids) - min(len(ids), self._findings.max_stored))
        counts = pc.value_counts(index.keys)
        repeated = counts.filter(pc.greater(counts.field("counts"), 1))
        for entry in repeated.slice(0, self._findings.max_stored).to_pylist():
            id = pc.index(index.keys, entry["values"]).as_py()
            self._report(KEY_REPEATED, id, f"{entry['counts']} rows have this key")
        self._findings.count_without_storing(
            KEY_REPEATED, len(repeated) - min(len(repeated), self._findings.max_stored)
        )

    def begin(self, shard: int) -> None:
        """Selects the rows of the shard with this number, before its samples are checked."""
        low, high = np.searchsorted(self._shards, [shard, shard + 1]).tolist()
        self._rows = self._order[low:high]
        self._offsets = self._index.offsets[self._rows]
        self._matched = np.zeros(len(self._rows), dtype=bool)

    def check_headers(self, shard: str, sample: Sample) -> int | None:
        """Compares the row that points to a sample with the tar's headers.

        Returns:
            The row's number; None if no row points to the sample.
        """
        image = sample.image
        if image is None:
            return None
        position = int(np.searchsorted(self._offsets, image.offset))
        if position == len(self._rows) or int(self._offsets[position]) != image.offset:
            # Only in a shard of this artifact: one of the base may contain samples that the delta removed.
            if self._written_with_index and is_own(shard):
                message = "no row of the index leads here"
                self._findings.add(Finding(UNINDEXED, shard, message, sample.key, image.name, image.offset - BLOCK))
            return None
        id = int(self._rows[position])
        self._matched[position] = True
        index = self._index
        if int(index.lengths[id]) != image.length:
            message = f"row {id} says {int(index.lengths[id])} bytes, the tar {image.length}"
            self._report(LENGTH, id, message, image.name)
        if not self._is_key(index.key(id), sample.key):
            self._report(KEY, id, f"row {id} is {index.key(id)!r}, the sample here {sample.key!r}", image.name)
        name = _OWN_SHARD.fullmatch(index.shard_names[int(index.shards[id])])
        split = int(index.splits[id])
        if (
            self._written_with_index
            and name is not None
            and 0 <= split < len(SPLITS)
            and name.group(1) != SPLITS[split]
        ):
            self._report(SPLIT, id, f"row {id} says {SPLITS[split]}, the shard {name.group(1)}", image.name)
        return id

    def check_content(self, id: int, name: str, decoded: DecodedImage, metadata: Any) -> None:
        """Compares a row with the sample's content.

        Args:
            name: name of the image's member.
            metadata: the value of the sample's .json, if it has one.
        """
        index = self._index
        if decoded.content != index.content_hash(id):
            message = f"row {id} has content hash {index.content_hash(id)[:12]}..., the bytes {decoded.content[:12]}..."
            self._report(HASH, id, message, name)
        elif decoded.fault is None and (decoded.width, decoded.height) != (index.widths[id], index.heights[id]):
            size = f"{int(index.widths[id])}x{int(index.heights[id])}"
            self._report(SIZE, id, f"row {id} says {size} pixels, the image has {decoded.width}x{decoded.height}", name)
        if self._written_with_index and isinstance(metadata, Mapping):
            self._check_metadata(id, name, metadata)

    def _check_metadata(self, id: int, name: str, metadata: Mapping[str, Any]) -> None:
        index = self._index
        number = int(index.labels[id])
        if "label" in metadata and -1 <= number < len(index.label_names):
            label = index.label_names[number] if number >= 0 else None
            if metadata["label"] != label:
                self._report(LABEL, id, f"row {id} says {label!r}, the .json {str(metadata['label'])[:80]!r}", name)
        if "captions" in metadata and metadata["captions"] != index.captions(id):
            self._report(
                CAPTIONS, id, f"row {id} has {counted(len(index.captions(id)), 'caption')} unlike the .json's", name
            )

    def end(self) -> None:
        """Reports the rows of the shard that point to no sample, after its samples are checked."""
        for id in self._rows[~self._matched].tolist():
            self._report(OFFSET, id, f"row {id}: no image of a sample begins there")

    def _is_key(self, index_key: str, tar_key: str) -> bool:
        if index_key == tar_key:
            return True
        if self._index.data_sets and "/" in index_key:  # A mixture has DATA-SET/KEY, the tars of its inputs KEY.
            return self._is_key(index_key.partition("/")[2], tar_key)
        return (
            not self._written_with_index
            and re.fullmatch(re.escape(safe_key(tar_key)) + r"(-\d+)?", index_key) is not None
        )

    def _report(self, code: Code, id: int, message: str, member: str = "") -> None:
        index = self._index
        number = int(index.shards[id])
        shard = index.shard_names[number] if 0 <= number < len(index.shard_names) else "index.arrow"
        self._findings.add(Finding(code, shard, message, index.key(id), member, int(index.offsets[id])))
