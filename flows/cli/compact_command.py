"""`tutelage data compact`: a delta becomes a shards artifact that needs no other."""

from __future__ import annotations

import json
import sys
import time

from flows.headline import headline
from flows.preflight import open_store
from pipeline.sharding.deltas.compact import CompactConfig, CompactShards, check_compactable
from pipeline.stage import run_stage

_TELL_EVERY_S = 2.0


def compact(
    reference: str,
    *,
    samples_per_shard: int | None,
    shard_megabytes: float | None,
    writers: int | None,
    as_json: bool,
) -> int:
    """Folds a delta; progress goes to stderr.

    Raises:
        InputError: it is no shards artifact.
    """
    store = open_store()
    shards = store.resolve(reference)
    check_compactable(shards)
    given = {"samples_per_shard": samples_per_shard, "shard_megabytes": shard_megabytes, "writers": writers}
    config = CompactConfig(**{name: value for name, value in given.items() if value is not None})
    made = run_stage(CompactShards(), config, {"shards": shards}, store=store, progress=_Progress())
    nothing = made.uri == shards.uri
    if as_json:
        said = {"artifact": made.uri, "of": shards.uri, "nothing_to_fold": nothing, "summary": made.summary}
        print(json.dumps(said, indent=1))
    elif nothing:
        print(f"{shards.uri}: needs no other artifact, nothing to fold")
    else:
        words = headline(made.stage, made.summary)
        print(f"{made.uri}: {words}, {made.summary['shards']:,} tars, {made.summary['megabytes']:,} MB")
        print(f"from {shards.uri}, which nothing needs any more unless another delta adds to it")
    return 0


class _Progress:
    """Lines on stderr, every two seconds."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, *, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self._told = time.monotonic()
            print(f"{note} {step:,}/{total:,}" if total else note, file=sys.stderr)
