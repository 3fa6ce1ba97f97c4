"""The images of foreign tars as columns: headers, small texts and the first bytes of each image are read."""

from __future__ import annotations

import io
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.pixels.formats import FORMATS
from pipeline.progress import Progress, silent
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.format.index import SPLITS, content_hash
from pipeline.sharding.format.range_file import RangeFile
from pipeline.sharding.inspection.survey.columns import Duplicates, ImageColumns
from pipeline.sharding.inspection.survey.member_roles import member_roles
from pipeline.sharding.sources.given_split import split_of_name
from pipeline.sharding.sources.labels import label_of, sort_labels
from pipeline.sharding.sources.tar_bytes import open_tar
from pipeline.sharding.sources.tar_listing import tar_samples
from pipeline.sharding.sources.tar_members import Read, TarFault
from pipeline.sharding.writing.equal_sets import EqualSets

_HEADER_BUFFER = 4096
_END_PROBLEM = "a tar that goes on after its end mark, has none, or is cut: see data lint"
_PROGRESS_EVERY = 512  # samples


@dataclass
class _ColumnBuilder:
    """Growing columns, with 33 bytes per image."""

    labels: array[int] = field(default_factory=lambda: array("i"))
    splits: array[int] = field(default_factory=lambda: array("b"))
    widths: array[int] = field(default_factory=lambda: array("i"))
    heights: array[int] = field(default_factory=lambda: array("i"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    tars: array[int] = field(default_factory=lambda: array("i"))
    caption_counts: array[int] = field(default_factory=lambda: array("q"))
    caption_chars: array[int] = field(default_factory=lambda: array("q"))


def tar_columns(tars: Sequence[FoundFile], progress: Progress = silent) -> ImageColumns:
    """The images in tars, by column.

    Images of equal length are read completely and compared by their hashes; the others cannot be equal.

    Raises:
        InputError: a tar is damaged or hostile; the message names member and byte.
    """
    roles = member_roles(tars[0])
    builder, formats, problems = _ColumnBuilder(), Counter[str](), Counter[str]()
    codes: dict[str, int] = {}
    size, done = sum(tar.size for tar in tars), 0
    for number, tar in enumerate(tars):
        split = split_of_name(tar.name)
        ends: list[TarFault] = []
        with open_tar(tar) as read:
            for sample in tar_samples(tar, roles, ends):
                if sample.problem is not None:
                    problems[sample.problem.split(" (")[0]] += 1
                    continue
                kind, width, height = _read_header(read, sample.offset, sample.length)
                formats[kind] += 1
                name = label_of(sample.label)
                label = -1 if name is None else codes.setdefault(name, len(codes))
                builder.labels.append(label)
                builder.splits.append(-1 if split is None else SPLITS.index(split))
                builder.widths.append(width)
                builder.heights.append(height)
                builder.lengths.append(sample.length)
                builder.offsets.append(sample.offset)
                builder.tars.append(number)
                builder.caption_counts.append(len(sample.captions))
                builder.caption_chars.extend(len(caption) for caption in sample.captions)
                if len(builder.lengths) % _PROGRESS_EVERY == 0:
                    progress(step=done + sample.offset, total=size, note=f"reading {tar.name}")
        problems.update({_END_PROBLEM: len(ends)})
        done += tar.size
        progress(step=done, total=size, note=f"reading {tar.name}")
    names = sort_labels(codes)
    number_of_name = {name: number for number, name in enumerate(names)}
    number_of = np.array([*(number_of_name[name] for name in codes), -1], dtype=np.int32)
    labels, splits = number_of[_column(builder.labels, np.int32)], _column(builder.splits, np.int8)
    lengths = _column(builder.lengths, np.int64)
    equal = _equal_codes(tars, builder, lengths, progress)
    return ImageColumns(
        splits=splits,
        labels=labels,
        label_names=names,
        widths=_column(builder.widths, np.int32),
        heights=_column(builder.heights, np.int32),
        lengths=lengths,
        caption_counts=_column(builder.caption_counts, np.int64),
        caption_chars=_column(builder.caption_chars, np.int64),
        duplicates=Duplicates.of_sets(EqualSets.of_codes(equal), splits, labels),
        shard_bytes=np.array([tar.size for tar in tars], dtype=np.int64),
        formats=dict(formats.most_common()),
        formats_of=len(lengths),
        problems=dict((+problems).most_common()),
    )


def _column(values: array[int], kind: type[np.generic]) -> NDArray[Any]:
    return np.array(values, dtype=kind)


def _read_header(read: Read, offset: int, length: int) -> tuple[str, int, int]:
    """Format and size of an image, from its first bytes."""
    file = io.BufferedReader(RangeFile(length, lambda start, count: read(offset + start, count)), _HEADER_BUFFER)
    try:
        with Image.open(file, formats=FORMATS) as image:
            return image.format or "unknown", image.width, image.height
    except Exception:  # Pillow's plug-ins raise many exceptions other than OSError
        return "no image", 0, 0


def _equal_codes(
    tars: Sequence[FoundFile], builder: _ColumnBuilder, lengths: NDArray[np.int64], progress: Progress
) -> NDArray[np.int64]:
    """[images] codes that are equal for images with equal bytes; -1 for images with a unique length."""
    codes = np.full(len(lengths), -1, dtype=np.int64)
    _, inverse, counts = np.unique(lengths, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[inverse] > 1)
    known: dict[str, int] = {}
    tar_of_row = np.array(builder.tars, dtype=np.int32)[rows]
    for number in np.unique(tar_of_row).tolist():
        with open_tar(tars[number]) as read:
            for row in rows[tar_of_row == number].tolist():
                hashed = content_hash(read(builder.offsets[row], builder.lengths[row]))
                codes[row] = known.setdefault(hashed, len(known))
        progress(step=number + 1, total=len(tars), note="comparing images of equal length")
    return codes
