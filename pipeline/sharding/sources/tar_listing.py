"""Lists the samples of a foreign tar from its headers, as a table in a cache; an unchanged tar is not listed again.

Members are grouped into samples by WebDataset's rule: the key is the name up to the first dot of its base name, and the
members of a sample are adjacent. A key that occurs again later, or an extension that is repeated within a key, starts
another sample.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.atomic_files import atomic_write
from pipeline.config import Config, digest
from pipeline.errors import InputError, listed, shortened
from pipeline.pixels.extensions import IMAGE_SUFFIXES, OTHER_SUFFIXES, RAW_SUFFIXES
from pipeline.pixels.formats import HEAD_BYTES, format_of
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.format.valid_text import valid_text
from pipeline.sharding.sources.foreign_json import parse_json
from pipeline.sharding.sources.labels import MAX_LABELS, label_of, label_text, missing_label
from pipeline.sharding.sources.skipped_files import (
    HIDDEN,
    NO_SKIPPED_FILES,
    SkipCounter,
    SkippedFiles,
    kind_of_name,
)
from pipeline.sharding.sources.tar_bytes import open_tar
from pipeline.sharding.sources.tar_members import Member, Read, TarFault, tar_members

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
EVERY_IMAGE_EXTENSION = (
    *IMAGE_EXTENSIONS,
    *sorted(suffix[1:] for suffix in IMAGE_SUFFIXES if suffix[1:] not in IMAGE_EXTENSIONS),
)
MEMBER_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
# "__index__.json" and the like, which WebDataset skips too.
META_NAME = re.compile(r"__[^/]*__($|/)")
# Longer members are not read as captions, labels or metadata.
MAX_TEXT_BYTES = 1 << 20
_BATCH_ROWS = 4096
# To be increased when this module lists an unchanged tar differently.
_LISTING_VERSION = 5

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("captions", pa.list_(pa.string())),
        ("label", pa.string()),
        ("problem", pa.string()),
    ]
)


class MemberRoles(Config):
    """Which members of a sample hold its image, captions and label; a cached listing is valid for one value.

    Attributes:
        images: extensions of images; of several in a sample, the first in this order is its image.
        captions: txt: a member is one caption; lines: each line of a member is one; json: they are in a member's field
            `caption_field`; none: no captions.
        labels: cls: a member is the label; json: the label is in a member's field `label_field`; none: no labels.
        caption_member, label_member: extension of the member with the captions, the label; None: json if a field is
            read, else txt for captions and cls for labels.
        ends: refuse or read a tar that is cut, has no end mark, or has data after it.
        max_bytes: size of the largest permitted member in bytes; a larger one is an error.
    """

    images: tuple[str, ...] = IMAGE_EXTENSIONS
    captions: Literal["txt", "lines", "json", "none"] = "txt"
    caption_field: str = "caption"
    labels: Literal["cls", "json", "none"] = "cls"
    label_field: str = "label"
    caption_member: str | None = None
    label_member: str | None = None
    ends: Literal["refuse", "read"] = "refuse"
    max_bytes: int = 256 << 20

    @property
    def caption_extension(self) -> str:
        return self.caption_member or ("json" if self.captions == "json" else "txt")

    @property
    def label_extension(self) -> str:
        return self.label_member or ("json" if self.labels == "json" else "cls")


@dataclass(frozen=True, slots=True)
class TarSample:
    """A sample of a tar; `problem` is the reason why it cannot be used, or None."""

    key: str
    offset: int
    length: int
    captions: tuple[str, ...]
    label: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class TarListing:
    """The listing of a tar.

    Attributes:
        samples: number of samples.
        labels: the distinct labels as written, including words for a missing value.
        path: the file with the samples, one row each.
        end: the fault at the end of the tar, or None.
        missing: number of samples without a label, by what is written instead of it, see `missing_label`.
        skipped: members that belong to no sample, since their names have no extension.
    """

    samples: int
    labels: tuple[str, ...]
    path: Path
    end: str | None = None
    missing: Mapping[str, int] = field(default_factory=dict)
    skipped: SkippedFiles = NO_SKIPPED_FILES

    def rows(self) -> Iterator[TarSample]:
        """The samples, in the order of the tar."""
        with closing(pq.ParquetFile(self.path)) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    yield TarSample(**{**row, "captions": tuple(row["captions"])})

    def has_captions(self) -> bool:
        """Whether any sample has a caption."""
        with closing(pq.ParquetFile(self.path)) as file:
            batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=["captions"])
            return any(len(batch.column(0).flatten()) for batch in batches)


def list_tar(tar: FoundFile, roles: MemberRoles, folder: Path) -> TarListing:
    """The listing of a tar; created if it is not in the cache.

    Args:
        folder: the cache.
    Raises:
        InputError: the tar is damaged or hostile; the message names member and byte.
    """
    path = (
        folder / f"{digest([_LISTING_VERSION, tar.url, tar.size, tar.mtime_or_etag, roles.model_dump()], 40)}.parquet"
    )
    if not path.is_file():
        with atomic_write(path, durable=False) as temporary:
            ends: list[TarFault] = []
            skipped = SkipCounter()
            _write(temporary, tar_samples(tar, roles, ends, skipped), ends, skipped)
    with closing(pq.ParquetFile(path)) as file:
        metadata = file.schema_arrow.metadata
        labels = tuple(json.loads(metadata[b"labels"]))
        kinds, names = json.loads(metadata[b"passed_over"])
        return TarListing(
            file.metadata.num_rows,
            labels,
            path,
            json.loads(metadata[b"end"]),
            json.loads(metadata[b"missing"]),
            SkippedFiles(kinds, tuple(names)),
        )


def tar_samples(
    tar: FoundFile, roles: MemberRoles, ends: list[TarFault] | None = None, skipped: SkipCounter | None = None
) -> Iterator[TarSample]:
    """The samples of a tar, from its headers and its small members.

    Args:
        ends: receives the faults at the end of the tar if `roles.ends` is "read".
        skipped: receives the members that belong to no sample.
    Raises:
        InputError: the tar is damaged or hostile; the message names member and byte.
    """
    ends = [] if ends is None else ends
    skipped = SkipCounter() if skipped is None else skipped
    with open_tar(tar) as read:
        members: dict[str, Member] = {}
        current = ""
        on_end = ends.append if roles.ends == "read" else None
        for member in tar_members(tar.url, tar.size, read, max_bytes=roles.max_bytes, on_end=on_end):
            match = None if META_NAME.match(member.name) else MEMBER_NAME.fullmatch(member.name)
            if match is None:
                name = member.name.rpartition("/")[2]
                skipped.add(HIDDEN if name.startswith(".") else kind_of_name(name), member.name)
                continue
            key, extension = match.group(1), match.group(2).lower()
            if (key != current or extension in members) and members:
                yield from _samples(current, members, roles, read)
                members = {}
            current = key
            members[extension] = member
        cut = next((fault for fault in ends if fault.kind == "cut" and fault.member), None)
        if cut is not None:
            match = MEMBER_NAME.fullmatch(cut.member.removeprefix("./"))
            lost = match.group(1) if match is not None else cut.member
            if members and lost != current:
                yield from _samples(current, members, roles, read)
            yield TarSample(valid_text(lost), 0, 0, (), None, f"the tar is cut inside its member {cut.member!r}")
        elif members:
            yield from _samples(current, members, roles, read)


def _samples(key: str, members: Mapping[str, Member], roles: MemberRoles, read: Read) -> Iterator[TarSample]:
    """Yields the sample of a key.

    If image names contain dots, WebDataset's rule merges several samples into one without an image. Then a TarSample
    with this problem is yielded for each of the images.
    """
    if not any(extension in members for extension in roles.images):
        known = tuple(f".{extension}" for extension in roles.images)
        if roles.images == IMAGE_EXTENSIONS:
            known = (*known, *IMAGE_SUFFIXES)
        dotted = [image for ext, image in members.items() if "." in ext and image.name.lower().endswith(known)]
        for image in dotted:
            extension = image.name[len(key) + 1 :]
            why = f"its key ends at the first dot, so that its image's extension is {extension!r}"
            problem = f"{why}; name that in `images`, or give names without dots before the extension"
            yield TarSample(valid_text(image.name), 0, 0, (), None, shortened(problem, 400))
        if dotted:
            return
    yield _sample(key, members, roles, read)


def _sample(key: str, members: Mapping[str, Member], roles: MemberRoles, read: Read) -> TarSample:
    image = next((members[extension] for extension in roles.images if extension in members), None)
    if image is None and roles.images == IMAGE_EXTENSIONS:
        image = next((member for extension, member in members.items() if _is_image(extension, member, read)), None)
    problem = None if image is not None else f"no image among its members ({listed(members)})"
    try:
        captions, label = _captions(members, roles, read), _label(members, roles, read)
    except ValueError as error:
        captions, label, problem = (), None, problem or str(error)
    offset, length = (image.offset, image.length) if image is not None else (0, 0)
    return TarSample(valid_text(key), offset, length, captions, label, problem)


def _is_image(extension: str, member: Member, read: Read) -> bool:
    """Whether a member without a common image extension is an image: by a rarer extension, or by its first bytes."""
    if f".{extension}" in OTHER_SUFFIXES | RAW_SUFFIXES or "." in extension:
        return False
    return (
        f".{extension}" in IMAGE_SUFFIXES or format_of(read(member.offset, min(member.length, HEAD_BYTES))) is not None
    )


def _captions(members: Mapping[str, Member], roles: MemberRoles, read: Read) -> tuple[str, ...]:
    if roles.captions == "json":
        value = _field(members, roles.caption_extension, roles.caption_field, read)
        texts = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"field {roles.caption_field!r} of its .{roles.caption_extension} is not text")
        return tuple(text for text in texts if _is_text(text, roles.caption_field, roles.caption_extension))
    if roles.captions == "none" or roles.caption_extension not in members:
        return ()
    text = _member_text(roles.caption_extension, members, read)
    if roles.captions == "lines":
        return tuple(line for line in text.splitlines() if line.strip())
    return (text,) if text.strip() else ()


def _label(members: Mapping[str, Member], roles: MemberRoles, read: Read) -> str | None:
    if roles.labels == "cls":
        if roles.label_extension not in members:
            return None
        return _member_text(roles.label_extension, members, read).strip() or None
    if roles.labels == "json":
        value = _field(members, roles.label_extension, roles.label_field, read)
        if isinstance(value, dict | list):
            raise ValueError(f"field {roles.label_field!r} of its .{roles.label_extension} is no label")
        text = value.strip() if isinstance(value, str) else label_text(value)
        return text if _is_text(text, roles.label_field, roles.label_extension) else None
    return None


def _field(members: Mapping[str, Member], extension: str, name: str, read: Read) -> Any:
    if extension not in members:
        return None
    text = _member_text(extension, members, read)
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .{extension} is not JSON ({error})") from None
    return content.get(name) if isinstance(content, dict) else None


def _member_text(extension: str, members: Mapping[str, Member], read: Read) -> str:
    member = members[extension]
    if member.length > MAX_TEXT_BYTES:
        raise ValueError(f"its .{extension} has {member.length} bytes, which is no text of a sample")
    try:
        return read(member.offset, member.length).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"its .{extension} is not UTF-8") from None


def _is_text(text: str, name: str, extension: str) -> bool:
    """Whether the text of a field is not blank.

    Raises:
        ValueError: it cannot be encoded as UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"field {name!r} of its .{extension} cannot be written as UTF-8") from None
    return bool(text.strip())


def _write(path: Path, samples: Iterator[TarSample], ends: list[TarFault], skipped: SkipCounter) -> None:
    labels: dict[str, None] = {}
    missing: Counter[str] = Counter()
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    batches = []
    for sample in samples:
        for name, values in columns.items():
            values.append(getattr(sample, name))
        if sample.label is not None:
            labels.setdefault(sample.label)
        if sample.problem is None and label_of(sample.label) is None:
            missing[missing_label(sample.label)] += 1
        if len(labels) > MAX_LABELS:
            raise InputError(f"labels: more than {MAX_LABELS} different ones; set labels=none")
        if len(columns["key"]) == _BATCH_ROWS:
            batches.append(pa.RecordBatch.from_pydict(columns, schema=_SCHEMA))
            columns = {name: [] for name in _SCHEMA.names}
    batches.append(pa.RecordBatch.from_pydict(columns, schema=_SCHEMA))
    end = ends[0].what if ends else None
    files = skipped.result()
    metadata = {"labels": list(labels), "end": end, "missing": missing, "passed_over": [dict(files.kinds), files.names]}
    schema = _SCHEMA.with_metadata({name: json.dumps(value) for name, value in metadata.items()})
    pq.write_table(pa.Table.from_batches(batches).replace_schema_metadata(schema.metadata), path, compression="zstd")
