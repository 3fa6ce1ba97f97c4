"""Comparisons of shards: unusual sizes, shards without samples, and duplicate shards."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.inspection.lint.findings import Finding, Findings, code
from pipeline.storage.sha256 import ranges_sha256

SIZE = code(
    "shard-size",
    "warning",
    "A shard is more than ten times larger or smaller than others of its series: work is distributed unevenly.",
)
EMPTY = code("shard-empty", "warning", "A tar without a sample: some readers stop, and a worker has no data.")
REPEATED = code("shard-repeated", "warning", "Two shards with identical bytes: their samples are trained on twice.")
_MAX_RATIO = 10  # of a shard's size to the median of its series, or the reverse
_MIN_SHARDS = 3  # with fewer, sizes are not compared


@dataclass(frozen=True, slots=True)
class CheckedShard:
    """A shard whose members were read, completely or until an error.

    Attributes:
        digest: digest of its members' names and sizes; "" after an error.
    """

    name: str
    file: FoundFile
    samples: int
    digest: str


def check_shards(shards: Sequence[CheckedShard], findings: Findings) -> None:
    """Compares shards with each other."""
    for shard in shards:
        if shard.digest and not shard.samples:
            findings.add(Finding(EMPTY, shard.name, "it has no sample"))
    # The shards of a series differ in the digits of their names only.
    series: dict[str, list[CheckedShard]] = defaultdict(list)
    for shard in shards:
        series[re.sub(r"\d+", "#", shard.name)].append(shard)
    for group in series.values():
        _check_sizes(group, findings)
    _check_repeats(shards, findings)


def _check_sizes(series: Sequence[CheckedShard], findings: Findings) -> None:
    if len(series) < _MIN_SHARDS:
        return
    median = statistics.median(shard.file.size for shard in series)
    for position, shard in enumerate(series):
        # The last shard of a series has the remaining samples, so it may be small.
        small = shard.file.size * _MAX_RATIO < median and position + 1 < len(series)
        if small or shard.file.size > _MAX_RATIO * median:
            message = f"{shard.file.size} bytes; the median of the {len(series)} shards of its series is {median:.0f}"
            findings.add(Finding(SIZE, shard.name, message))


def _check_repeats(shards: Sequence[CheckedShard], findings: Findings) -> None:
    same_headers: dict[tuple[int, str], list[CheckedShard]] = defaultdict(list)
    for shard in shards:
        if shard.samples:
            same_headers[shard.file.size, shard.digest].append(shard)
    for group in same_headers.values():
        if len(group) < 2:
            continue
        first: dict[str, str] = {}
        for shard in group:
            content = ranges_sha256(partial(addresses.read, shard.file.url), shard.file.size)
            if content in first:
                findings.add(Finding(REPEATED, shard.name, f"its bytes are those of {first[content]}"))
            first.setdefault(content, shard.name)
