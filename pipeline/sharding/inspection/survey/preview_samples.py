"""Selects the samples of a preview: always the same ones, spread over the whole data set."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.counted import counted
from pipeline.errors import InputError, TutelageError, UnknownNameError
from pipeline.pixels.decode import ImageError, open_image
from pipeline.progress import Progress, silent
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.inspection.survey.member_roles import member_roles
from pipeline.sharding.sources.given_split import split_of_name
from pipeline.sharding.sources.tar_listing import TarSample, tar_samples

# Number of tars, evenly spread over all, that are read if neither keys nor a label are requested.
_MAX_TARS = 12
_MAX_IMAGE_BYTES = 256 << 20  # a larger image is not read


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """The requested samples.

    Attributes:
        rows: maximum number of samples.
        split, label: only samples with this value; None: any.
        keys: only samples with these keys; (): any.
    """

    rows: int
    split: str | None = None
    label: str | None = None
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.split is not None and self.split not in SPLITS:
            raise UnknownNameError("split", self.split, SPLITS)


@dataclass(frozen=True, slots=True)
class PreviewSample:
    """A sample of a preview.

    Attributes:
        data: the encoded image; b"" if there is none.
        name: its name in the source, e.g. the path of its file; "" if it is not recorded.
        problem: the reason why it cannot be shown; "" if it can.
        byte: offset of its image in the shard.
        kind: the image's format, e.g. "JPEG"; "" if it cannot be opened.
    """

    key: str
    shard: str
    byte: int
    split: str
    label: str
    captions: tuple[str, ...]
    data: bytes
    kind: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""
    name: str = ""


def samples_of_index(
    index: SampleIndex,
    read: Callable[[int], bytes],
    names_of: Callable[[Iterable[int]], Mapping[int, str]],
    request: PreviewRequest,
) -> list[PreviewSample]:
    """Samples of an artifact.

    Args:
        read: returns the encoded image of a row.
        names_of: returns the names of rows in their source; called once, for the shown rows.
    Raises:
        InputError: a key, label or split does not exist, or no sample has all of them.
    """
    ids = index.rows(request.split)
    if request.label is not None:
        if request.label not in index.label_names:
            raise UnknownNameError("label", request.label, index.label_names)
        ids = ids[index.labels[ids] == index.label_names.index(request.label)]
    if request.keys:
        ids_of_keys = pc.index_in(pa.array(request.keys, pa.large_string()), index.keys).to_pylist()
        for key, id in zip(request.keys, ids_of_keys, strict=True):
            if id is None:
                raise InputError(f"preview: no sample has key {key!r}; omit --key to see some samples with their keys")
        ids = np.array([id for id in ids_of_keys if id in set(ids.tolist())], dtype=np.int64)
    elif len(ids) > request.rows:
        ids = np.sort(np.random.default_rng(0).choice(ids, request.rows, replace=False))
    if not len(ids):
        raise InputError("preview: no sample has the requested split, label and key")
    shown = ids[: request.rows].tolist()
    names = names_of(shown)
    return [replace(_of_row(index, read, id), name=names.get(id, "")) for id in shown]


def samples_of_tars(
    tars: Sequence[FoundFile], request: PreviewRequest, progress: Progress = silent
) -> list[PreviewSample]:
    """Samples of foreign tars.

    Raises:
        InputError: a tar is damaged, or there is no such sample.
    """
    tars_of_split = [tar for tar in tars if request.split in (None, split_of_name(tar.name))]
    if not tars_of_split:
        raise InputError(f"preview: no tar has the split {request.split} in its name")
    roles = member_roles(tars[0])
    all_tars = bool(request.keys) or request.label is not None
    positions = np.linspace(0, len(tars_of_split) - 1, min(len(tars_of_split), _MAX_TARS)).round().astype(int)
    chosen_tars = (
        tars_of_split if all_tars else [tars_of_split[position] for position in sorted(set(positions.tolist()))]
    )

    def candidates() -> Iterator[tuple[FoundFile, TarSample]]:
        for number, tar in enumerate(chosen_tars):
            progress(step=number, total=len(chosen_tars), note=f"reading {tar.name}")
            for sample in tar_samples(tar, roles):
                fits = request.label in (None, sample.label) and (not request.keys or sample.key in request.keys)
                if fits:
                    yield tar, sample

    if all_tars:
        chosen = []
        for candidate in candidates():
            chosen.append(candidate)
            if len(chosen) == (min(request.rows, len(request.keys)) if request.keys else request.rows):
                break
    else:
        chosen = _reservoir_sample(candidates(), request.rows)
    if not chosen:
        label = "image" if request.label is None else f"label {request.label!r}"
        what = f"key {request.keys[0]!r}" if request.keys else label
        raise InputError(f"preview: no sample with {what} in {counted(len(chosen_tars), 'tar')}")
    return [_of_tar(tar, sample) for tar, sample in chosen]


def _reservoir_sample(
    candidates: Iterator[tuple[FoundFile, TarSample]], rows: int
) -> list[tuple[FoundFile, TarSample]]:
    """A uniform random sample of `rows` candidates, in order; deterministic."""
    draw = random.Random(0)
    chosen: list[tuple[int, tuple[FoundFile, TarSample]]] = []
    for number, candidate in enumerate(candidates):
        if number < rows:
            chosen.append((number, candidate))
        elif (position := draw.randrange(number + 1)) < rows:
            chosen[position] = (number, candidate)
    return [candidate for _, candidate in sorted(chosen, key=lambda entry: entry[0])]


def _of_row(index: SampleIndex, read: Callable[[int], bytes], id: int) -> PreviewSample:
    row = index.row(id)
    data, problem = b"", ""
    try:
        data = read(id)
    except (OSError, TutelageError) as error:
        problem = str(error)
    label = index.label_names[row.label] if row.label >= 0 else ""
    shard = index.shard_names[row.shard]
    return _preview_sample(row.key, shard, row.offset, SPLITS[row.split], label, row.captions, data, problem)


def _of_tar(tar: FoundFile, sample: TarSample) -> PreviewSample:
    data, problem = b"", sample.problem or ""
    if not problem and sample.length > _MAX_IMAGE_BYTES:
        problem = f"{sample.length} bytes, more than an image has"
    if not problem:
        try:
            data = addresses.read(tar.url, sample.offset, sample.length)
        except OSError as error:
            problem = str(error)
    split = split_of_name(tar.name) or ""
    return _preview_sample(
        sample.key, tar.name, sample.offset, split, sample.label or "", sample.captions, data, problem
    )


def _preview_sample(
    key: str, shard: str, byte: int, split: str, label: str, captions: tuple[str, ...], data: bytes, problem: str
) -> PreviewSample:
    kind, width, height = "", 0, 0
    if not problem:
        try:
            with open_image(data) as image:
                kind, (width, height) = image.format or "", image.size
        except ImageError as error:
            problem = str(error)
    return PreviewSample(key, shard, byte, split, label, captions, data, kind, width, height, problem)
