"""Intake: reads every item of a source, stores valid images, and quarantines the rest with a reason.

    items in source order -> chunks -> one task each: read, check, re-encode if necessary, hash -> spool, table

A chunk that an earlier run finished is not read again. The result for an item does not depend on its chunk or on the
worker.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

from pipeline.atomic_files import atomic_write
from pipeline.counter_rng import text_hash
from pipeline.errors import UnknownNameError, WorkError, shortened
from pipeline.pixels.decode import decoding_reason
from pipeline.pixels.formats import format_of
from pipeline.progress import Progress
from pipeline.sharding.format.index import SPLITS, content_hash
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.file_type import HEAD_BYTES, file_type
from pipeline.sharding.writing.captions import BadTextError, CaptionsConfig, clean_captions
from pipeline.sharding.writing.chunks import SCHEMA, ChunkResult, Unreadable, earlier_result, write_table
from pipeline.sharding.writing.image_process import prepare_image_in_subprocess
from pipeline.sharding.writing.images import Encoded, ImagesConfig, UnreadableError
from pipeline.sharding.writing.item_hashes import item_hashes, plain_text
from pipeline.sharding.writing.runner import RunnerName, Stop, StoppedEarlyError, not_stopping, run_in_order
from pipeline.sharding.writing.scratch import Scratch
from pipeline.sharding.writing.split import split_draw
from pipeline.sharding.writing.tar_writer import IMAGE_EXTENSIONS, members, sample_bytes

_MIN_CHUNK_ITEMS, _MAX_CHUNK_ITEMS = 32, 4096
_CHUNKS = 64  # of a data set, if their size allows it
_MAX_KEY_CHARS = 80
_MAX_REASON_CHARS = 400
_ITEMS_PER_STOP_CHECK = 16


@dataclass(frozen=True)
class Intake:
    """The settings of the intake tasks; sent to the workers that run them.

    Attributes:
        labels: label -> its number.
        difference_hashes: compute the hashes by which near duplicates are found.
        split_by_image: a split is drawn for each image, not for each content group.
        seed: seed of the draws.
        max_unreadable: the intake fails if more items are unreadable.
        in_place: index the images without copying them; an image that would be re-encoded is unreadable.
    """

    scratch: Scratch
    labels: dict[str, int]
    images: ImagesConfig
    captions: CaptionsConfig
    difference_hashes: bool
    split_by_image: bool
    seed: int
    max_unreadable: float
    in_place: bool = False


@dataclass(frozen=True)
class Chunk:
    """Items to be read by one task.

    Attributes:
        digest: hash of the item names in their order.
        result: the chunk's result if an earlier run finished it; `items` is empty then.
    """

    number: int
    items: tuple[Item, ...]
    digest: str
    result: ChunkResult | None = None


def run_intake(
    collection: Collection,
    intake: Intake,
    *,
    runner: RunnerName,
    writers: int,
    progress: Progress,
    chunk_items: int | None = None,
    first_chunk: int = 0,
) -> list[ChunkResult]:
    """Reads all items into chunks; returns the result of each chunk, in order.

    Args:
        chunk_items: items in a chunk; None: chosen by the size of the collection, 4096 at most.
        first_chunk: number of the first chunk; earlier chunks contain items that were read before.

    Raises:
        WorkError: more items are unreadable than allowed; the message names the first ones.
    """
    size = chunk_items or max(_MIN_CHUNK_ITEMS, min(_MAX_CHUNK_ITEMS, collection.total // _CHUNKS))
    chunk_results: list[ChunkResult] = []
    unreadable: list[Unreadable] = []
    done = 0

    def report() -> None:
        progress(step=done, total=collection.total, note="reading images")

    results = run_in_order(
        partial(read_chunk, intake),
        _chunks(collection.items(), size, intake.scratch, first_chunk),
        runner=runner,
        writers=writers,
        while_waiting=report,
    )
    try:
        for result in results:
            chunk_results.append(result)
            done += result.items
            unreadable += result.unreadable
            if len(unreadable) > intake.max_unreadable:
                raise _too_many_unreadable_error(unreadable, done, collection.total, intake.max_unreadable)
            report()
    finally:
        results.close()
    return chunk_results


def allowed_unreadable(share: float, total: int) -> float:
    """Number of items that may be unreadable, plus a tolerance: 0.29 * 100 is 28.999999999999996 and must allow 29."""
    return share * total + 1e-6


def read_chunk(intake: Intake, chunk: Chunk, *, stop: Stop = not_stopping) -> ChunkResult:
    """The task: reads a chunk's items and writes its spool and table."""
    if chunk.result is not None:
        return chunk.result
    intake.scratch.check()
    with atomic_write(intake.scratch.spool(chunk.number)) as temporary, temporary.open("wb") as spool:
        builder = _ChunkBuilder(intake, spool)
        for number, item in enumerate(chunk.items):
            if number % _ITEMS_PER_STOP_CHECK == 0 and stop():
                raise StoppedEarlyError
            builder.add(item, number)
            if len(builder.unreadable) > intake.max_unreadable:
                # This fails the whole run, so the chunk's table is not written.
                return builder.result(number + 1, chunk.digest)
        result = builder.result(len(chunk.items), chunk.digest)
    write_table(intake.scratch, chunk.number, builder.columns, result)
    return result


class _ChunkBuilder:
    """The rows of a chunk that is being read."""

    def __init__(self, intake: Intake, spool: BinaryIO) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        self.unreadable: list[Unreadable] = []
        self._intake = intake
        self._spool = spool
        self._size = 0
        self._families: dict[str, int] = {}
        self._nodes: dict[tuple[str, ...], int] = {}
        self._counts: dict[str, Counter[str]] = {"images": Counter(), "captions": Counter()}

    def result(self, items: int, digest: str) -> ChunkResult:
        return ChunkResult(
            items=items,
            digest=digest,
            spool_bytes=self._size,
            families=tuple(self._families),
            nodes=tuple(self._nodes),
            unreadable=tuple(self.unreadable),
            counts={kind: dict(sorted(counts.items())) for kind, counts in self._counts.items()},
        )

    def add(self, item: Item, number: int) -> None:
        """Reads an item and adds it as a row, or as unreadable."""
        try:
            image = _read(item, self._intake.images, with_difference_hash=self._intake.difference_hashes)
            if self._intake.in_place and image.changes:
                changes = ", ".join(image.changes)
                raise UnreadableError(f"would be re-encoded ({changes}), which needs in_place=false", len(image.data))
            captions = self._captions(item, len(image.data))
        except UnreadableError as error:
            name, label, family = plain_text(item.name), item.label and plain_text(item.label), plain_text(item.family)
            self.unreadable.append(
                Unreadable(name, label, family, error.size, shortened(str(error), _MAX_REASON_CHARS))
            )
            return
        self._counts["images"].update(image.changes)
        if not self._intake.in_place:
            self._spool.write(image.data)
        row = {"number": number, **item_hashes(item), **self._row(item, image, captions)}
        for name, values in self.columns.items():
            values.append(row[name])
        if not self._intake.in_place:
            self._size += len(image.data)

    def _captions(self, item: Item, size: int) -> tuple[str, ...]:
        try:
            captions, counts = clean_captions(item.captions, self._intake.captions)
        except BadTextError as error:
            raise UnreadableError(str(error), size) from None
        self._counts["captions"].update(counts)
        if self._intake.captions.mandatory and not captions:
            raise UnreadableError(f"no caption remains of {len(item.captions)}", size)
        return captions

    def _row(self, item: Item, image: Encoded, captions: tuple[str, ...]) -> dict[str, Any]:
        content = content_hash(image.data)
        key = safe_key(item.key) if item.key else f"{_slug(item.label or 'image')}-{content[:16]}"
        group = item.group or content
        metadata = _metadata(item, image, captions, group, content)
        sample = members(key, image.extension, image.data, metadata, captions)
        if item.split is not None and item.split not in SPLITS:
            raise UnknownNameError(f"split of {item.name}", item.split, SPLITS)
        return {
            "key": key,
            "extension": IMAGE_EXTENSIONS.index(image.extension),
            "start": item.tar_position.offset if item.tar_position is not None else self._size,
            "tar": item.tar_position.tar if item.tar_position is not None else -1,
            "length": len(image.data),
            "width": image.width,
            "height": image.height,
            "hash_high": int(content[:16], 16),
            "hash_low": int(content[16:], 16),
            "difference_hash": image.difference_hash,
            "label": self._intake.labels.get(item.label or "", -1),
            "family": self._families.setdefault(item.family, len(self._families)),
            "node": self._nodes.setdefault(item.taxonomy, len(self._nodes)),
            "given_split": SPLITS.index(item.split) if item.split is not None else -1,
            "group": item.group or None,
            "group_hash": text_hash(group),
            "has_named_group": int(bool(item.group)),
            "split_draw": split_draw(content if self._intake.split_by_image else group, self._intake.seed),
            "captions": captions,
            "captions_hash": text_hash("\0".join(captions)),
            "key_hash": text_hash(key),
            "sample_bytes": sample_bytes(len(data) for _, data in sample),
            "notes": metadata,
        }


def safe_key(key: str) -> str:
    """The key as a valid tar member name: short ASCII without dots and slashes; most keys are returned unchanged."""
    if len(key) <= _MAX_KEY_CHARS and re.fullmatch(r"[A-Za-z0-9_+@=,-]+", key):
        return key
    key = unicodedata.normalize("NFC", key)
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_+@=,-]+', '-', key)[: _MAX_KEY_CHARS - 14]}-{digest}"


def _read(item: Item, config: ImagesConfig, *, with_difference_hash: bool) -> Encoded:
    try:
        data = item.read()
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror or decoding_reason(error)})", 0) from None
    except ValueError as error:
        raise UnreadableError(f"cannot be rendered ({decoding_reason(error)})", 0) from None
    try:
        return prepare_image_in_subprocess(data, config, with_difference_hash=with_difference_hash)
    except UnreadableError as error:
        if error.fault != "foreign":
            raise
        head = data[:HEAD_BYTES]
        if format_of(head) is not None:
            raise UnreadableError(
                f"damaged: it begins as {format_of(head)}, and its header cannot be read", error.size
            ) from None
        what = file_type(head)
        if what is not None:
            raise UnreadableError(f"not an image that is read: it is {what}", error.size, error.fault) from None
        raise


def _metadata(item: Item, image: Encoded, captions: tuple[str, ...], group: str, content: str) -> str:
    """KEY.json without the key: the sample's metadata, with names where the index has numbers."""
    metadata = {
        "name": plain_text(item.name),
        "label": item.label,
        "captions": list(captions),
        "taxonomy": list(item.taxonomy),
        "group": group,
        "source": item.family,
        "licence": item.licence,
        "width": image.width,
        "height": image.height,
        "content_hash": content,
        **item.extra,
    }
    return plain_text(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")))


def _chunks(items: Iterator[Item], size: int, scratch: Scratch, number: int) -> Iterator[Chunk]:
    while chunk := tuple(islice(items, size)):
        digest = hashlib.sha256("\0".join(plain_text(item.name) for item in chunk).encode()).hexdigest()[:32]
        result = earlier_result(scratch, number, digest)
        yield Chunk(number, chunk if result is None else (), digest, result)
        number += 1


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "image"


def _too_many_unreadable_error(unreadable: list[Unreadable], done: int, total: int, allowed: float) -> WorkError:
    first = "; ".join(f"{shortened(item.name)}: {shortened(item.reason, 200)}" for item in unreadable[:3])
    more = "; ..." if len(unreadable) > 3 else ""
    share = round(allowed / total, 6) if total else 0.0
    return WorkError(
        f"{len(unreadable)} of the first {done} images are unreadable, more than max_unreadable_share={share:g} "
        f"of {total} allows ({first}{more}); fix or remove them, or raise max_unreadable_share"
    )


def nothing_usable_error(total: int, chunks: Sequence[ChunkResult]) -> WorkError:
    """The error for a run that would store nothing."""
    unreadable = [item for result in chunks for item in result.unreadable]
    first = f", first {shortened(unreadable[0].name)}: {shortened(unreadable[0].reason, 200)}" if unreadable else ""
    return WorkError(
        f"none of the {total:,} images of the source is usable ({len(unreadable):,} unreadable{first}; the others "
        f"dropped, as copies or by the rules of split, duplicates and labels); nothing was written"
    )
