"""The loader: the same global batches on any number of workers and threads, from any step, and a clean end."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import parse_config
from pipeline.errors import DamagedError, InputError
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.auto_augment_config import (
    AugMixConfig,
    AutoAugmentConfig,
    ThreeAugmentConfig,
    TrivialAugmentConfig,
)
from pipeline.loading.decode_pool import DecodePool
from pipeline.loading.evaluation_batches import evaluation_batches
from pipeline.loading.loader import Loader, build_loader
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.reader import SampleReader
from pipeline.loading.resize import resize_to_square
from pipeline.loading.tokenizer import Tokenizer

AUGMENT = AugmentConfig(crop_min_area=0.4, flip=0.5, erase=0.3)
TOKENIZER = Tokenizer(12)


def loader_of(shards: Any, *, global_batch: int = 14, policy: Any = None, **changed: Any) -> Loader:
    options: dict[str, Any] = {"image_size": 24, "augment": AUGMENT, "seed": 5, "tokenizer": TOKENIZER, **changed}
    policy = policy or Shuffled(shards.index.rows("train"), global_batch, seed=1)
    return Loader(SampleReader(shards.artifact, shards.index), shards.index, policy, **options)


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.fixture(scope="module")
def reference(shards: Any) -> list[Any]:
    """The batches of 11 steps (two and a half epochs), by one worker."""
    return list(loader_of(shards).batches(0, 11))


def assert_same(batch: Any, expected: Any) -> None:
    for name in ("images", "ids", "labels", "groups", "tokens"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name
    assert (batch.step, batch.global_size) == (expected.step, expected.global_size)


def test_batch_holds_what_the_policy_and_the_index_say(shards: Any, reference: list[Any]) -> None:
    policy = Shuffled(shards.index.rows("train"), 14, seed=1)
    for step, batch in enumerate(reference):
        ids = policy.batch(step)
        assert (batch.step, batch.policy_version, batch.global_size, len(batch)) == (step, 0, 14, 14)
        np.testing.assert_array_equal(batch.ids, ids)
        np.testing.assert_array_equal(batch.labels, shards.index.labels[ids])
        np.testing.assert_array_equal(batch.groups, shards.index.groups[ids])
        assert batch.images.dtype == torch.uint8
        assert tuple(batch.images.shape) == (14, 3, 24, 24)
        assert tuple(batch.tokens.shape) == (14, 12)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_global_batch_has_the_same_pixels_on_any_number_of_workers(
    shards: Any, reference: list[Any], world: int, threads: int
) -> None:
    parts = [list(loader_of(shards, rank=r, world=world, threads=threads).batches(0, 11)) for r in range(world)]
    for step, expected in enumerate(reference):
        for name in ("images", "ids", "labels", "tokens"):
            joined = torch.cat([getattr(part[step], name) for part in parts])
            assert torch.equal(joined, getattr(expected, name)), (step, name)


@pytest.mark.parametrize(
    "auto_augment", [TrivialAugmentConfig(), AutoAugmentConfig(), AugMixConfig(), ThreeAugmentConfig()]
)
def test_every_augmentation_is_the_same_on_any_number_of_workers_and_threads(shards: Any, auto_augment: Any) -> None:
    augment = AugmentConfig(interpolation="bicubic", hue=0.2, erase=0.5, erase_fill="noise", auto_augment=auto_augment)
    whole = loader_of(shards, augment=augment, threads=3).batches(2, 5)
    parts = [loader_of(shards, augment=augment, threads=1, rank=rank, world=3).batches(2, 5) for rank in range(3)]
    for batch, *slices in zip(whole, *parts, strict=True):
        assert torch.equal(batch.images, torch.cat([part.images for part in slices]))


@pytest.mark.parametrize("start", [1, 4, 9])
def test_a_loader_that_starts_later_gives_the_same_batches(shards: Any, reference: list[Any], start: int) -> None:
    resumed = list(loader_of(shards, prefetch=2).batches(start, 11))
    assert len(resumed) == 11 - start
    for batch, expected in zip(resumed, reference[start:], strict=True):
        assert_same(batch, expected)


def test_a_sample_looks_the_same_in_any_batch_of_its_epoch(shards: Any, reference: list[Any]) -> None:
    looks = {int(id): image for batch in reference[:4] for id, image in zip(batch.ids, batch.images, strict=True)}
    for batch in loader_of(shards, global_batch=5).batches(0, 12):
        for id, image in zip(batch.ids, batch.images, strict=True):
            if int(id) in looks:
                assert torch.equal(image, looks[int(id)])


def test_epochs_show_other_views(shards: Any, reference: list[Any]) -> None:
    first = {int(id): image for batch in reference[:4] for id, image in zip(batch.ids, batch.images, strict=True)}
    for batch in reference[5:8]:
        for id, image in zip(batch.ids, batch.images, strict=True):
            assert int(id) not in first or not torch.equal(image, first[int(id)])


def test_only_batches_whose_colours_a_cpu_changes_are_stored_in_planes(shards: Any) -> None:
    """The same pixels in either: a saturation that is barely changed leaves them as they are."""
    plain = AugmentConfig(crop_min_area=0.4, flip=0.5, brightness=0, contrast=0, saturation=0)
    barely = plain.model_copy(update={"saturation": 1e-6})
    for channels in (1, 3):
        one, other = (
            next(loader_of(shards, augment=augment, channels=channels).batches(0, 1)).images
            for augment in (plain, barely)
        )
        assert torch.equal(one, other)
        assert one.is_contiguous(memory_format=torch.channels_last)
        assert other.is_contiguous()
    assert next(loader_of(shards, augment=None).batches(0, 1)).images.is_contiguous(memory_format=torch.channels_last)


def test_its_threads_work_on_one_core_each_and_all_others_keep_theirs(shards: Any) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        batches = loader_of(shards).batches(0, 2)
        next(batches)
        with ThreadPoolExecutor(1) as later:
            assert (torch.get_num_threads(), later.submit(torch.get_num_threads).result()) == (3, 3)
        batches.close()
        with DecodePool(SampleReader(shards.artifact, shards.index), channels=3, threads=4) as pool:
            assert {pool._threads.submit(torch.get_num_threads).result() for _ in range(40)} == {1}
    finally:
        torch.set_num_threads(before)


def test_where_threads_cannot_be_started_that_is_the_error_and_none_waits(
    shards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = DecodePool(SampleReader(shards.artifact, shards.index), channels=3, threads=3)
    start, started = threading.Thread.start, []

    def third_fails(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", third_fails)
    with pytest.raises(RuntimeError, match="new thread"), pool:
        pass
    pool._threads.shutdown(wait=True)
    assert decode_threads() == []


def test_captions_are_the_first_or_drawn_anew_each_epoch(shards: Any) -> None:
    ids = np.array([0, 3, 7, 11])  # pic000 has no caption; the others have three.
    drawn: list[set[tuple[int, ...]]] = [set() for _ in ids]
    for batch in loader_of(shards, policy=Shuffled(ids, 4, seed=0)).batches(0, 40):
        for row, id in enumerate(batch.ids.tolist()):
            drawn[ids.tolist().index(id)].add(tuple(batch.tokens[row].tolist()))
    assert [len(captions) for captions in drawn] == [1, 3, 3, 3]
    batch = next(loader_of(shards, policy=Shuffled(ids, 4, seed=0), captions="first").batches(0, 1))
    for row, id in enumerate(batch.ids.tolist()):
        first = next(iter(shards.index.captions(id)), "")
        assert torch.equal(batch.tokens[row], TOKENIZER.encode([first])[0])


class Curriculum:
    """A policy that needs a refresh every 3 steps, and remembers what was asked of it."""

    global_batch = 4

    def __init__(self) -> None:
        self.version = 0
        self.planned: list[tuple[int, int]] = []

    def batch(self, step: int) -> np.ndarray:
        self.planned.append((step, self.version))
        return np.arange(4) + step

    def epoch(self, step: int) -> int:
        return 0

    def ready_until(self) -> int:
        return 3 * (self.version + 1)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def test_no_batch_is_planned_before_the_refresh_it_depends_on(shards: Any) -> None:
    policy = Curriculum()
    seen = []
    batches = loader_of(shards, policy=policy, prefetch=8).batches(0, 10)
    for step in range(10):
        if step == policy.ready_until():
            policy.version += 1
        batch = next(batches)
        seen.append((batch.step, batch.policy_version))
    assert seen == [(step, step // 3) for step in range(10)]
    assert policy.planned == seen


def test_asking_for_a_batch_without_the_refresh_is_an_error(shards: Any) -> None:
    batches = loader_of(shards, policy=Curriculum()).batches(0, 10)
    for _ in range(3):
        next(batches)
    with pytest.raises(RuntimeError, match="step 3 was requested"):
        next(batches)
    assert decode_threads() == []


def test_prefetch_is_bounded(shards: Any) -> None:
    policy = Curriculum()
    policy.version = 100
    batches = loader_of(shards, policy=policy, prefetch=3).batches(0, 50)
    next(batches)
    time.sleep(0.1)
    assert [step for step, _ in policy.planned] == [0, 1, 2]
    batches.close()


def test_threads_end_with_the_iterator(shards: Any) -> None:
    assert len(list(loader_of(shards).batches(0, 3))) == 3
    assert decode_threads() == []
    closed = loader_of(shards).batches(0, 100)
    next(closed)
    assert decode_threads()
    closed.close()
    assert decode_threads() == []
    forgotten = loader_of(shards).batches(0, 100)
    next(forgotten)
    del forgotten
    assert decode_threads() == []


def test_error_in_the_training_step_ends_the_threads(shards: Any) -> None:
    def train() -> None:
        for batch in loader_of(shards).batches(0, 100):
            raise ArithmeticError(f"loss is NaN at step {batch.step}")

    with pytest.raises(ArithmeticError):
        train()
    assert decode_threads() == []


def test_damage_reaches_the_consumer_and_ends_the_threads(own_shards: Any) -> None:
    os.truncate(own_shards.artifact.path("shards/train-00002.tar"), 700)
    with pytest.raises(DamagedError, match=r"shards/train-00002.tar, sample pic05\d at byte \d+: the shard ends early"):
        list(loader_of(own_shards).batches(0, 20))
    assert decode_threads() == []


def test_sample_with_other_bytes_is_named(own_shards: Any) -> None:
    offset, length = int(own_shards.index.offsets[12]), int(own_shards.index.lengths[12])
    with own_shards.artifact.path("shards/train-00000.tar").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(length))
    with pytest.raises(DamagedError, match=r"shards/train-00000.tar, sample pic012 at byte \d+: the bytes are not"):
        list(loader_of(own_shards).batches(0, 20))


def test_ctrl_c_ends_the_threads_at_once(shards: Any) -> None:
    interrupted: list[float] = []

    def interrupt() -> None:
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def train() -> None:
        for batch in loader_of(shards, global_batch=64, image_size=96, prefetch=16).batches(0, 10**9):
            if batch.step == 1:
                threading.Timer(0.05, interrupt).start()

    with pytest.raises(KeyboardInterrupt):
        train()
    assert decode_threads() == []
    assert time.monotonic() - interrupted[0] < 2


def test_evaluation_shows_the_whole_picture_in_the_order_asked_for(shards: Any) -> None:
    ids = np.array([9, 3, 30, 6, 0, 18, 12])  # All of them PNG.
    batches = list(
        evaluation_batches(
            SampleReader(shards.artifact, shards.index),
            shards.index,
            ids,
            image_size=24,
            batch_size=3,
            tokenizer=TOKENIZER,
        )
    )
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [batch.step for batch in batches] == [0, 1, 2]
    np.testing.assert_array_equal(torch.cat([batch.ids for batch in batches]), ids)
    for id, image in zip(ids, torch.cat([batch.images for batch in batches]), strict=True):
        stored = np.asarray(shards.pictures[id].convert("RGB"))
        np.testing.assert_array_equal(image.permute(1, 2, 0), resize_to_square(stored, 24))
    assert decode_threads() == []


def test_images_come_with_the_channels_asked_for(shards: Any) -> None:
    batch = next(loader_of(shards, channels=1).batches(0, 1))
    assert tuple(batch.images.shape) == (14, 1, 24, 24)


def test_threads_processes_and_prefetch_do_not_change_the_key() -> None:
    from pipeline.config import digest

    assert digest(LoaderConfig()) == digest(LoaderConfig(threads=7, processes=3, prefetch=9))
    assert digest(LoaderConfig()) != digest(LoaderConfig(augment=None))


@pytest.mark.servers
def test_batches_from_s3_are_those_from_disk(shards: Any, s3_shards: Any, reference: list[Any]) -> None:
    for batch, expected in zip(loader_of(s3_shards).batches(0, 11), reference, strict=True):
        assert_same(batch, expected)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_copies_of_a_sample_are_different_views_on_any_number_of_workers(shards: Any, world: int) -> None:
    policy = Shuffled(shards.index.rows("train"), 6, seed=1)
    parts = [list(loader_of(shards, policy=policy, copies=3, rank=r, world=world).batches(0, 4)) for r in range(world)]
    plain = list(loader_of(shards, policy=policy).batches(0, 4))
    for step in range(4):
        ids = torch.cat([part[step].ids for part in parts])
        images = torch.cat([part[step].images for part in parts])
        assert {part[step].global_size for part in parts} == {18}
        np.testing.assert_array_equal(ids, np.tile(policy.batch(step), 3))
        views = images.reshape(3, 6, *images.shape[1:])
        for first, second in ((0, 1), (0, 2), (1, 2)):
            assert all(not torch.equal(a, b) for a, b in zip(views[first], views[second], strict=True))
        # A view is keyed by its number: in epoch 0, copy 0 is the one view that a loader without copies shows.
        if policy.epoch(step) == 0:
            assert torch.equal(views[0], plain[step].images)


def test_copies_that_do_not_fill_a_batch_or_do_not_differ_are_refused() -> None:
    with pytest.raises(InputError, match="3 copies of each sample do not fill a batch of 64"):
        LoaderConfig(copies=3).distinct_samples(64)
    assert LoaderConfig(copies=3).distinct_samples(66) == 22
    with pytest.raises(InputError, match="all copies of a sample are the same"):
        parse_config(LoaderConfig, {"copies": 2, "augment": None}, "loader")


def test_progressive_resolution_grows_with_the_epoch_and_resumes_in_it(shards: Any) -> None:
    config = LoaderConfig(augment=AUGMENT, smaller_sizes=(12, 16), epochs_a_size=2)

    def loader() -> Loader:
        policy = Shuffled(shards.index.rows("train"), 30, seed=1)
        reader = SampleReader(shards.artifact, shards.index)
        return build_loader(config, reader, shards.index, policy, image_size=24, seed=5, samples=60)

    batches = list(loader().batches(0, 12))  # two steps an epoch
    assert [batch.images.shape[-1] for batch in batches] == [12] * 4 + [16] * 4 + [24] * 4
    for batch, expected in zip(loader().batches(7, 12), batches[7:], strict=True):
        assert torch.equal(batch.images, expected.images)
