"""Shards in an object store: fetched in parts or ranges, over a bad line too, and kept within a bound."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DamagedError, InputError
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.loader import Loader
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.reader import SampleReader
from pipeline.loading.remote_shards import _MAX_RANGE_BYTES, CachedParts, Span, cache_limit, coalesce
from pipeline.loading.shard_cache import ShardCache
from pipeline.sharding.format.index import content_hash

DATA = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()


class Far:
    """A shard far away that counts what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        self.asked.append((start, length))
        return DATA[start : start + length]


def read(cache: ShardCache, far: Far, offset: int, length: int) -> bytes:
    return cache.read("a/shard.tar", len(DATA), offset, length, far)


@given(st.integers(0, 99_999), st.integers(1, 5_000), st.sampled_from([1000, 4096, 99_999, 200_000]))
@settings(max_examples=60, deadline=None)
def test_bytes_are_those_of_the_shard(tmp_path_factory: Any, offset: int, length: int, part: int) -> None:
    length = min(length, len(DATA) - offset)
    cache = ShardCache(tmp_path_factory.mktemp("cache"), 10**9, part_bytes=part)
    assert read(cache, Far(), offset, length) == DATA[offset : offset + length]


def test_a_part_is_fetched_once_by_all_threads_and_all_later_runs(tmp_path: Path) -> None:
    far = Far()
    cache = ShardCache(tmp_path, 10**9, part_bytes=10_000)
    threads = [threading.Thread(target=read, args=(cache, far, 5_000, 20_000)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(far.asked) == [(0, 10_000), (10_000, 10_000), (20_000, 10_000)]
    later = Far()
    assert read(ShardCache(tmp_path, 10**9, part_bytes=10_000), later, 0, 30_000) == DATA[:30_000]
    assert later.asked == []


def test_processes_share_the_parts(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pipeline.loading.shard_cache import ShardCache\n"
        "def fetch(start, length):\n"
        "    with open(sys.argv[2], 'a') as log: log.write(f'{start}\\n')\n"
        "    time.sleep(0.05); return bytes(length)\n"
        "cache = ShardCache(Path(sys.argv[1]), 10**9, part_bytes=1000)\n"
        "for start in range(0, 20_000, 700): cache.read('s', 20_000, start, 300, fetch)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), str(tmp_path / "log")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    asked = (tmp_path / "log").read_text().split()
    assert sorted(map(int, asked)) == list(range(0, 20_000, 1000))


def test_the_bound_holds_and_the_part_used_last_stays(tmp_path: Path) -> None:
    far = Far()
    cache = ShardCache(tmp_path, 30_000, part_bytes=1000)
    for part in range(90):
        read(cache, far, part * 1000, 1000)
        old = time.time() - 1000 + part
        os.utime(tmp_path / "a/shard.tar" / f"1000-{part:06d}", (old, old))
    sizes = [file.stat().st_size for file in (tmp_path / "a/shard.tar").iterdir()]
    assert sum(sizes) <= 30_000
    assert sum(sizes) >= 20_000
    asked = len(far.asked)
    read(cache, far, 89_000, 1000)
    assert len(far.asked) == asked
    assert read(cache, far, 0, 1000) == DATA[:1000]
    assert len(far.asked) == asked + 1


def test_a_short_answer_is_damage_and_is_not_kept(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 10**9, part_bytes=1000)
    with pytest.raises(DamagedError, match=r"ends early \(2010 of 100000 bytes\)"):
        cache.read("s", len(DATA), 2_500, 10, lambda start, length: DATA[start : start + 10])
    assert not list(tmp_path.glob("s/*"))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40_000_000), st.integers(1, 300_000)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_each_span_is_in_one_request_of_a_bounded_size(triples: list[tuple[int, int, int]]) -> None:
    spans = [Span(*triple) for triple in triples]
    groups = coalesce(spans)
    assert sorted(span for group in groups for span in group) == sorted(set(spans))
    for group in groups:
        assert len({span.shard for span in group}) == 1
        assert group[-1].offset + group[-1].length - group[0].offset <= max(_MAX_RANGE_BYTES, 300_000)


def test_neighbours_go_in_one_request_and_distant_ones_apart() -> None:
    near, far = [Span(0, 0, 100), Span(0, 1000, 100)], [Span(0, 1_000_000, 100), Span(1, 1100, 100)]
    assert coalesce([*far, *near]) == [near, [far[0]], [far[1]]]


def test_the_bound_of_the_cache_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_SHARD_CACHE_GB", "1.5")
    assert cache_limit(tmp_path) == 1_500_000_000
    monkeypatch.setenv("TUTELAGE_SHARD_CACHE_GB", "much")
    with pytest.raises(InputError, match="TUTELAGE_SHARD_CACHE_GB=much: must be a number"):
        cache_limit(tmp_path)
    monkeypatch.delenv("TUTELAGE_SHARD_CACHE_GB")
    assert 0 < cache_limit(tmp_path) <= 100 * 10**9


def loaded(shards: Any, remote: Any, start: int = 0) -> list[Any]:
    policy = Shuffled(shards.index.rows("train"), 14, seed=1)
    reader = SampleReader(shards.artifact, shards.index, remote=remote)
    augment = AugmentConfig(crop_min_area=0.4, flip=0.5)
    return list(Loader(reader, shards.index, policy, image_size=24, augment=augment, seed=5).batches(start, 13))


@pytest.mark.servers
@pytest.mark.parametrize("remote", ["parts", "ranges"])
def test_over_a_bad_line_no_sample_is_lost_altered_or_seen_twice(
    bad_line: Any, s3_shards: Any, shards: Any, remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs while a third of the answers fail in one of six ways: the pixels are those of the local disk."""
    monkeypatch.setattr(ShardCache.__init__, "__kwdefaults__", {"part_bytes": 20_000})
    bad_line.share = 0.3
    batches = loaded(s3_shards, remote)
    assert bad_line.done.total() >= 5
    for batch, expected in zip(batches, loaded(shards, remote), strict=True):
        assert torch.equal(batch.ids, expected.ids)
        assert torch.equal(batch.images, expected.images)
    seen = torch.cat([batch.ids for batch in batches]).numpy()
    for epoch in range(3):
        assert sorted(seen[60 * epoch : 60 * (epoch + 1)]) == list(range(60))


@pytest.mark.servers
@pytest.mark.parametrize("remote", ["parts", "ranges"])
def test_bytes_that_stay_wrong_are_named_and_never_passed_on(s3_shards: Any, remote: Any) -> None:
    artifact, index = s3_shards.artifact, s3_shards.index
    place = artifact.object_path("shards/train-00000.tar")
    stored = bytearray(artifact.storage.read(place))
    stored[int(index.offsets[4]) + 20] ^= 1
    artifact.storage.write(place, bytes(stored))
    reader = SampleReader(artifact, index, remote=remote)
    reader.prefetch(np.arange(10))
    assert content_hash(reader.read(3)) == index.content_hash(3)
    with pytest.raises(DamagedError, match=r"sample pic004 .* not those that were written"):
        reader.read(4)
    assert content_hash(reader.read(5)) == index.content_hash(5)


@pytest.mark.servers
def test_a_second_run_asks_the_store_for_no_shard_again(bad_line: Any, s3_shards: Any) -> None:
    first = loaded(s3_shards, "parts")
    asked = bad_line.requests
    second = loaded(s3_shards, "parts")
    assert bad_line.requests == asked
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, second, strict=True))


@pytest.mark.servers
def test_ranges_ask_once_for_the_neighbours_of_a_batch(bad_line: Any, s3_shards: Any) -> None:
    reader = SampleReader(s3_shards.artifact, s3_shards.index, remote="ranges")
    before = bad_line.requests
    ids = np.arange(25)  # the first shard, in order
    reader.prefetch(ids)
    for id in ids.tolist():
        assert content_hash(reader.read(id)) == s3_shards.index.content_hash(id)
    assert bad_line.requests == before + 1


@pytest.mark.servers
def test_stopping_ends_the_threads_and_a_later_read_works(s3_shards: Any) -> None:
    reader = SampleReader(s3_shards.artifact, s3_shards.index, remote="parts")
    assert isinstance(reader._remote, CachedParts)
    reader.prefetch(np.arange(60))
    reader.stop_prefetch()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]
    assert content_hash(reader.read(7)) == s3_shards.index.content_hash(7)
    reader.prefetch(np.arange(60))
    reader.close()
