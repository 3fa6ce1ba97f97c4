"""`tutelage data compact`: merge a delta and its base into one shards artifact."""

from __future__ import annotations

import json
import sys
import time

from flows.preflight import open_store
from pipeline.counted import counted
from pipeline.headline import headline
from pipeline.sharding.deltas.compact import CompactConfig, CompactShards, check_compactable
from pipeline.stage import run_stage

_PRINT_EVERY_S = 2.0


def compact(
    reference: str,
    *,
    samples_per_shard: int | None,
    shard_megabytes: float | None,
    writers: int | None,
    as_json: bool,
) -> int:
    """Merges a delta with its base, with progress on stderr; returns the exit code.

    Raises:
        InputError: the reference is not a shards artifact.
    """
    store = open_store()
    shards = store.resolve(reference)
    check_compactable(shards)
    given = {"samples_per_shard": samples_per_shard, "shard_megabytes": shard_megabytes, "writers": writers}
    config = CompactConfig(**{name: value for name, value in given.items() if value is not None})
    compacted = run_stage(CompactShards(), config, {"shards": shards}, store=store, progress=_Progress())
    unchanged = compacted.name == shards.name
    if as_json:
        described = {
            "artifact": compacted.name,
            "of": shards.name,
            "nothing_to_fold": unchanged,
            "summary": compacted.summary,
        }
        print(json.dumps(described, indent=1))
    elif unchanged:
        print(f"{shards.name}: depends on no other artifact, nothing to merge")
    else:
        counts = headline(compacted.summary)
        print(
            f"{compacted.name}: {counts}, {counted(compacted.summary['shards'], 'tar')}, "
            f"{compacted.summary['megabytes']:,} MB"
        )
        print(f"from {shards.name}, which is no longer needed unless another delta adds to it")
    return 0


class _Progress:
    """Prints the progress on stderr, at most one line every two seconds."""

    def __init__(self) -> None:
        self._printed_at = time.monotonic()

    def __call__(self, *, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        if time.monotonic() - self._printed_at >= _PRINT_EVERY_S:
            self._printed_at = time.monotonic()
            print(f"{note} {step:,}/{total:,}" if total else note, file=sys.stderr)
