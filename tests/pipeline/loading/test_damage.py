"""Damaged samples: found before they are decoded, read again, then left out of training in the same way everywhere."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DamagedError
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.loader import Loader, build_loader
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.quarantine import DamagedSampleError, Quarantine, substitutes
from pipeline.loading.reader import SampleReader, Verify
from pipeline.sharding.format.index import content_hash
from tests.small_shards import index_of

AUGMENT = AugmentConfig(crop_min_area=0.4, flip=0.5)
STEPS = 11  # two and a half epochs of 60 samples in batches of 14


def alter(shards: Any, *ids: int) -> None:
    """Changes one byte in the middle of each sample, on the disk."""
    for id in ids:
        path = shards.artifact.path(shards.index.shard_names[shards.index.shards[id]], hashed=False)
        with path.open("r+b") as file:
            place = int(shards.index.offsets[id]) + int(shards.index.lengths[id]) // 2
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 16]))


def loader_of(shards: Any, *, max_share: float = 0.2, verify: Verify = "first", **changed: Any) -> Loader:
    options: dict[str, Any] = {"image_size": 24, "augment": AUGMENT, "seed": 5, **changed}
    policy = options.pop("policy", None) or Shuffled(shards.index.rows("train"), 14, seed=1)
    reader = options.pop("reader", None) or SampleReader(shards.artifact, shards.index, verify=verify)
    quarantine = Quarantine(60, max_share)
    return Loader(reader, shards.index, policy, quarantine=quarantine, **options)


def joined(parts: list[list[Any]], step: int, name: str) -> torch.Tensor:
    return torch.cat([getattr(part[step], name) for part in parts])


@pytest.mark.parametrize("copies", [1, 2])
def test_an_altered_sample_is_never_trained_on_and_the_rest_stays_as_it_was(
    own_shards: Any, shards: Any, copies: int
) -> None:
    damaged = [3, 4, 41]
    expected = list(loader_of(shards, copies=copies).batches(0, STEPS))
    alter(own_shards, *damaged)
    loader = loader_of(own_shards, copies=copies)
    for batch, whole in zip(loader.batches(0, STEPS), expected, strict=True):
        bad = np.isin(whole.ids.numpy(), damaged)
        assert not np.isin(batch.ids.numpy(), damaged).any()
        assert torch.equal(batch.ids[~bad], whole.ids[~bad])
        assert torch.equal(batch.images[~bad], whole.images[~bad])
        np.testing.assert_array_equal(batch.labels, own_shards.index.labels[batch.ids])
        if copies == 2:
            assert torch.equal(batch.ids[:14], batch.ids[14:])
    assert loader.quarantine is not None
    lines = loader.quarantine.lines()
    assert sorted(line["sample"] for line in lines) == damaged
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    line = next(line for line in lines if line["sample"] == 41)
    assert (line["shard"], line["key"]) == ("shards/train-00001.tar", "pic041")
    assert line["byte"] == own_shards.index.offsets[41]
    assert line["reason"] == "the bytes are not those that were written"


@pytest.mark.parametrize(("world", "whole_pairs"), [(2, True), (3, False), (5, True)])
def test_the_global_batch_is_the_same_on_any_number_of_workers(own_shards: Any, world: int, whole_pairs: bool) -> None:
    alter(own_shards, 3, 4, 17, 41, 58)
    os.truncate(own_shards.artifact.path("shards/train-00002.tar", hashed=False), int(own_shards.index.offsets[57]) + 9)
    alone = list(loader_of(own_shards).batches(0, STEPS))
    loaders = [loader_of(own_shards, rank=rank, world=world, whole_pairs=whole_pairs) for rank in range(world)]
    parts = [list(loader.batches(0, STEPS)) for loader in loaders]
    for step, expected in enumerate(alone):
        for name in ("ids", "images", "labels"):
            assert torch.equal(joined(parts, step, name), getattr(expected, name)), (step, name)
            for part in parts:
                source = part[step].source
                rows = slice(source.first_row, source.first_row + len(source))
                assert torch.equal(getattr(source, name), getattr(expected, name)[rows]), (step, name)
        assert not np.isin(expected.ids.numpy(), [3, 4, 17, 41, 57, 58, 59]).any()


@pytest.mark.parametrize("start", [1, 5, 10])
def test_a_resumed_run_has_the_same_substitutes(own_shards: Any, start: int) -> None:
    alter(own_shards, 3, 4, 17, 41)
    whole = list(loader_of(own_shards).batches(0, STEPS))[start:]
    for batch, expected in zip(loader_of(own_shards, prefetch=2).batches(start, STEPS), whole, strict=True):
        assert torch.equal(batch.ids, expected.ids)
        assert torch.equal(batch.images, expected.images)


def test_what_is_right_when_read_again_is_trained_on(own_shards: Any, shards: Any) -> None:
    """The tar is brought back while the reader still holds the damaged one open."""
    path = own_shards.artifact.path("shards/train-00000.tar")
    shutil.copy(path, path.with_suffix(".whole"))
    alter(own_shards, *range(20))
    reader = SampleReader(own_shards.artifact, own_shards.index)
    reader.read(24)
    os.replace(path.with_suffix(".whole"), path)
    loader = loader_of(own_shards, reader=reader)
    for batch, expected in zip(loader.batches(0, STEPS), loader_of(shards).batches(0, STEPS), strict=True):
        assert torch.equal(batch.images, expected.images)
    assert loader.quarantine is not None
    assert len(loader.quarantine) == 0


def test_more_than_the_allowed_share_stops(own_shards: Any) -> None:
    alter(own_shards, 3, 4, 17)
    assert list(loader_of(own_shards, max_share=0.05).batches(0, STEPS))
    with pytest.raises(DamagedError, match=r"3 of 60 training samples are damaged, 2 may be .*max_damaged_share=0.04"):
        list(loader_of(own_shards, max_share=0.04).batches(0, STEPS))
    with pytest.raises(DamagedError, match="1 of 60 training samples are damaged, 0"):
        list(loader_of(own_shards, max_share=LoaderConfig().max_damaged_share).batches(0, STEPS))


def test_without_a_quarantine_the_first_damaged_sample_stops(own_shards: Any) -> None:
    alter(own_shards, 4)
    config = LoaderConfig(augment=AUGMENT, damaged="stop")
    policy = Shuffled(own_shards.index.rows("train"), 14, seed=1)
    reader = SampleReader(own_shards.artifact, own_shards.index)
    loader = build_loader(config, reader, own_shards.index, policy, image_size=24, seed=5, samples=60)
    with pytest.raises(DamagedSampleError, match=r"sample pic004 .* not those that were written"):
        list(loader.batches(0, STEPS))


def test_an_evaluation_leaves_nothing_out(own_shards: Any) -> None:
    alter(own_shards, 4)
    reader = SampleReader(own_shards.artifact, own_shards.index)
    with pytest.raises(DamagedSampleError, match="sample pic004"):
        list(evaluation_batches(reader, own_shards.index, np.arange(10), image_size=24, batch_size=4))


def test_right_bytes_that_are_no_image_are_left_out_too(own_shards: Any) -> None:
    length = int(own_shards.index.lengths[12])
    with own_shards.artifact.path("shards/train-00000.tar").open("r+b") as file:
        file.seek(int(own_shards.index.offsets[12]))
        file.write(bytes(length))
    rows = [own_shards.index.row(id) for id in range(60)]
    rows[12] = replace(rows[12], content_hash=content_hash(bytes(length)))
    index = index_of(rows, shard_names=own_shards.index.shard_names, label_names=("a", "b", "c"))
    loader = loader_of(replace(own_shards, index=index))
    assert all(12 not in batch.ids for batch in loader.batches(0, STEPS))
    assert loader.quarantine is not None
    (line,) = loader.quarantine.lines()
    assert line["reason"].startswith("cannot be decoded")


def hashed(monkeypatch: pytest.MonkeyPatch, shards: Any, verify: Verify) -> int:
    """How many samples three epochs compare with their hash."""
    count = 0

    def counted(data: bytes) -> str:
        nonlocal count
        count += 1
        return content_hash(data)

    monkeypatch.setattr("pipeline.loading.reader.content_hash", counted)
    policy = Shuffled(shards.index.rows("train"), 30, seed=1)
    assert len(list(loader_of(shards, policy=policy, verify=verify, threads=1).batches(0, 6))) == 6
    return count


def test_verify_says_how_often_bytes_are_compared(shards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [hashed(monkeypatch, shards, verify) for verify in ("always", "first", "never")]
    assert counts == [180, 60, 0]


def test_damage_of_a_sample_that_was_verified_before_is_found_when_it_cannot_be_decoded(own_shards: Any) -> None:
    loader = loader_of(own_shards)
    batches = loader.batches(0, 10)
    for _ in range(5):
        next(batches)
    batches.close()
    with own_shards.artifact.path("shards/train-00000.tar").open("r+b") as file:
        file.seek(int(own_shards.index.offsets[12]))
        file.write(bytes(int(own_shards.index.lengths[12])))
    assert all(12 not in batch.ids for batch in loader.batches(5, 14))
    assert loader.quarantine is not None
    (line,) = loader.quarantine.lines()
    assert line["reason"].startswith("the bytes are not those")


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 30), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_substitutes_depend_on_step_and_slot_alone_and_are_others_first(
    samples: int, batch: int, step: int, seed: int
) -> None:
    policy = Shuffled(np.arange(samples) * 3, batch, seed)
    slot = step % batch
    offered = list(substitutes(policy, seed, step, slot))
    assert offered == list(substitutes(Shuffled(np.arange(samples) * 3, batch, seed), seed, step, slot))
    own = set(policy.batch(step).tolist())
    others = [id for id in offered if id not in own]
    assert offered[: len(others)] == others
    assert set(offered[len(others) :]) == own
    assert set(offered) <= set(range(0, 3 * samples, 3))


def test_damage_can_be_sent_to_another_process() -> None:
    error = DamagedSampleError(7, "shards/train-00000.tar", "pic007", 512, "the bytes are not those", "verify")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.id, copy.byte) == (str(error), 7, 512)


@pytest.mark.servers
@pytest.mark.parametrize("remote", ["parts", "ranges"])
def test_an_object_altered_in_s3_is_left_out_as_on_disk(
    s3_shards: Any, own_shards: Any, remote: Any, bad_line: Any
) -> None:
    """And answers that are only wrong once are read again, and trained on."""
    file = own_shards.artifact.path("shards/train-00000.tar", hashed=False)
    alter(own_shards, 4)
    artifact, altered = s3_shards.artifact, file.read_bytes()
    artifact.storage.write(artifact.object_path("shards/train-00000.tar"), altered)
    bad_line.faults, bad_line.share = ("altered",), 0.2
    loader = loader_of(s3_shards, reader=SampleReader(artifact, s3_shards.index, remote=remote))
    for batch, expected in zip(loader.batches(0, STEPS), loader_of(own_shards).batches(0, STEPS), strict=True):
        assert torch.equal(batch.ids, expected.ids)
        assert torch.equal(batch.images, expected.images)
    assert loader.quarantine is not None
    assert [line["sample"] for line in loader.quarantine.lines()] == [4]
