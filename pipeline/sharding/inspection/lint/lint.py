"""The lint: reads every shard once, from front to back, and reports problems that affect readers.

    shard -> members by their headers -> samples by WebDataset's rule -> texts here, images in threads -> index rows

Memory is bounded: images that wait for a thread, the keys of one tar, and the first findings of each code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.errors import TutelageError
from pipeline.machine import default_threads
from pipeline.progress import Progress, silent
from pipeline.sharding.format.tar_layout import BLOCK
from pipeline.sharding.inspection.lint import images, texts
from pipeline.sharding.inspection.lint.archive import LARGE, MAX_MEMBER_BYTES, UNREADABLE, Archive
from pipeline.sharding.inspection.lint.companions import Companions
from pipeline.sharding.inspection.lint.findings import Finding, Findings
from pipeline.sharding.inspection.lint.images import DecodedImage, decode_image
from pipeline.sharding.inspection.lint.index_rows import IndexRows
from pipeline.sharding.inspection.lint.samples import Grouping, Sample
from pipeline.sharding.inspection.lint.shards import CheckedShard, check_shards
from pipeline.sharding.inspection.lint.target import Shard, Target, check_files
from pipeline.sharding.inspection.lint.texts import Text
from pipeline.sharding.sources.tar_bytes import open_tar
from pipeline.sharding.sources.tar_listing import EVERY_IMAGE_EXTENSION, MAX_TEXT_BYTES
from pipeline.sharding.sources.tar_members import Member, Read

_PROGRESS_EVERY = 256  # members
_READ_AHEAD_BYTES = 1 << 20
# Limit for encoded images of a shard that wait for a thread.
_MAX_PENDING_BYTES = 256 << 20
_MAX_PENDING = 256


@dataclass(slots=True)
class Totals:
    """Counts of what was read."""

    shards: int = 0
    samples: int = 0
    members: int = 0
    bytes: int = 0


def lint(
    targets: Sequence[Target],
    findings: Findings,
    *,
    deep: bool = True,
    threads: int | None = None,
    progress: Progress = silent,
) -> Totals:
    """Checks the targets.

    Args:
        targets: companions of images (captions, labels) and sizes of shards are compared within each target.
        findings: receives the problems.
        deep: read every text and decode every image; otherwise only headers are read.
        threads: number of decoding threads; None: one per core, at most eight.
    """
    totals = Totals()
    size = sum(shard.file.size for target in targets for shard in target.shards)
    with ThreadPoolExecutor(threads or default_threads(), thread_name_prefix="lint") as pool:
        for target in targets:
            findings.artifact = target.name if len(targets) > 1 else ""
            companions = Companions(findings.max_stored)
            if target.artifact is not None:
                progress(step=totals.bytes, total=size, note="comparing the files with the manifest")
                check_files(target.artifact, findings, deep=deep)
            rows = None
            if target.index is not None:
                rows = IndexRows(target.index, findings, written_with_index=target.written_with_index)
                rows.check_columns()
            checked = []
            for shard in target.shards:
                # Without an index, a shard's number is -1.
                reader = _ShardReader(shard, findings, companions, rows if shard.number >= 0 else None, pool, deep)
                checked.append(reader.run(totals, size, progress))
            check_shards(checked, findings)
            companions.report(findings)
    return totals


@dataclass(slots=True)
class _Pending:
    """A sample whose image is being decoded."""

    sample: Sample
    row: int | None
    metadata: Any
    decoded: Future[DecodedImage]


class _ShardReader:
    """Reads one shard from front to back."""

    def __init__(
        self,
        shard: Shard,
        findings: Findings,
        companions: Companions,
        rows: IndexRows | None,
        pool: ThreadPoolExecutor,
        deep: bool,
    ) -> None:
        self._shard = shard
        self._findings = findings
        self._companions = companions
        self._rows = rows
        self._pool = pool
        self._deep = deep
        self._samples = 0
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        # The data of the current sample's members.
        self._images: dict[str, bytes] = {}
        self._texts: dict[str, Text] = {}

    def run(self, totals: Totals, size: int, progress: Progress) -> CheckedShard:
        """Reads and checks the shard."""
        shard, before = self._shard, totals.bytes
        if self._rows is not None:
            self._rows.begin(shard.number)
        digest = ""
        try:
            with open_tar(shard.file, ahead=_READ_AHEAD_BYTES if self._deep else 0) as read:
                archive = Archive(shard.name, shard.file.size, read, self._findings)
                grouping = Grouping(shard.name, self._findings)
                for member in archive.members():
                    totals.members += 1
                    self._add_member(member, grouping, read)
                    if totals.members % _PROGRESS_EVERY == 0:
                        progress(step=before + member.offset, total=size, note=f"reading {shard.name}")
                self._finish_sample(grouping.end())
                grouping.close()
                digest = archive.digest
        except (OSError, TutelageError) as error:
            message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._findings.add(Finding(UNREADABLE, shard.name, f"cannot be read ({message})"))
        self._drain(-1)
        if self._rows is not None:
            self._rows.end()
        totals.shards += 1
        totals.samples += self._samples
        totals.bytes += shard.file.size
        progress(step=totals.bytes, total=size, note=f"reading {shard.name}")
        return CheckedShard(shard.name, shard.file, self._samples, digest)

    def _add_member(self, member: Member, grouping: Grouping, read: Read) -> None:
        key, extension, ended = grouping.feed(member)
        self._finish_sample(ended)
        if not self._deep or not extension:
            return
        if extension in texts.CHECKED:
            if member.length > MAX_TEXT_BYTES:
                message = f"{member.length} bytes, more than a text of a sample has ({MAX_TEXT_BYTES >> 20} MiB)"
                self._report(LARGE, key, member, message, -BLOCK)  # at the header
                return
            text = Text(key, read(member.offset, member.length))
            for extensions, code, check in texts.CHECKS:
                if extension in extensions and (problem := check(text)) is not None:
                    self._report(code, key, member, problem.message, problem.byte)
            self._texts[extension] = text
        elif extension in EVERY_IMAGE_EXTENSION and member.length <= MAX_MEMBER_BYTES:
            self._images[extension] = read(member.offset, member.length)

    def _finish_sample(self, sample: Sample | None) -> None:
        """Checks a complete sample with the data from `_add_member`; the grouping may have started the next sample."""
        if sample is None:
            return
        encoded, self._images = self._images, {}
        read_texts, self._texts = self._texts, {}
        self._samples += 1
        json_text = read_texts.get("json")
        if sample.whole:  # else an earlier part of it was counted
            self._companions.add(self._shard.name, sample, json_text.json_fields if json_text is not None else ())
        row = self._rows.check_headers(self._shard.name, sample) if self._rows is not None else None
        for extension, data in encoded.items():
            is_image = sample.members[extension] is sample.image
            self._pending_bytes += len(data)
            self._pending.append(
                _Pending(
                    sample,
                    row if is_image else None,
                    json_text.parsed[0] if json_text is not None and is_image else None,
                    self._pool.submit(decode_image, data, extension),
                )
            )
        self._drain(_MAX_PENDING_BYTES)

    def _drain(self, max_bytes: int) -> None:
        """Processes finished results in sample order; waits while more than `max_bytes` of images are pending."""
        while self._pending:
            full = self._pending_bytes > max_bytes or len(self._pending) > _MAX_PENDING
            if not full and not self._pending[0].decoded.done():
                return
            pending = self._pending.popleft()
            decoded = pending.decoded.result()
            member = pending.sample.members[decoded.extension]
            self._pending_bytes -= member.length
            for code, check in images.CHECKS:
                message = check(decoded)
                if message is not None:
                    self._report(code, pending.sample.key, member, message, 0)
            if pending.row is not None and self._rows is not None:
                self._rows.check_content(pending.row, member.name, decoded, pending.metadata)

    def _report(self, code: Any, key: str, member: Member, message: str, byte: int) -> None:
        self._findings.add(Finding(code, self._shard.name, message, key, member.name, member.offset + byte))
