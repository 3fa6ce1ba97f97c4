"""Decoded images are kept for later epochs: with the same bits, within the limit, for all processes of a machine."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.artifacts import ArtifactStore
from pipeline.left_over import sweep
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.decode import Crop, cut, decode, whole_pixels
from pipeline.loading.decoded_cache import open_decoded_cache
from pipeline.loading.loader import build_loader
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.reader import SampleReader
from tests.pipeline.loading.conftest import picture

STEPS, BATCH = 13, 12  # two and a half epochs of 60 samples
AUGMENT = AugmentConfig(crop_min_area=0.3, flip=0.5, erase=0.3)


def batches(shards: Any, *, start: int = 0, keep: int = 512, image_size: int = 24, **changed: Any) -> Iterator[Any]:
    options = {"augment": AUGMENT, "decoded_megabytes": keep, "max_damaged_share": 0.3, **changed}
    reader = SampleReader(shards.artifact, shards.index)
    policy = Shuffled(shards.index.rows("train"), BATCH, seed=1)
    config = LoaderConfig(**options)
    loader = build_loader(config, reader, shards.index, policy, image_size=image_size, seed=5, samples=60)
    try:
        yield from loader.batches(start, STEPS)
    finally:
        loader.close()


def images_of(*args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.stack([batch.images for batch in batches(*args, **kwargs)])


def files(shards: Any) -> list[Path]:
    return sorted((shards.artifact.cache.parent / "decoded").glob("*.shared"))


@pytest.mark.parametrize("options", [{}, {"augment": None}, {"image_size": 60}])
def test_batches_have_the_same_bits_with_and_without(shards: Any, options: dict[str, Any]) -> None:
    assert torch.equal(images_of(shards, **options), images_of(shards, keep=0, **options))


def test_a_smaller_size_in_the_first_epochs_has_the_same_bits(shards: Any) -> None:
    # At 16 pixels the JPEGs of 40 pixels are decoded at half scale, so only PNG and WebP are kept.
    def images(keep: int) -> list[torch.Tensor]:
        return [batch.images for batch in batches(shards, keep=keep, smaller_sizes=(16,), image_size=24)]

    for kept, decoded in zip(images(512), images(0), strict=True):
        assert torch.equal(kept, decoded)


def test_after_one_epoch_nothing_is_read(own_shards: Any, shards: Any) -> None:
    expected = images_of(shards, keep=0)
    for batch in (kept := batches(own_shards, prefetch=1)):
        assert torch.equal(batch.images, expected[batch.step])
        if batch.step == 4:  # the last of the first epoch
            for name in own_shards.index.shard_names:
                path = own_shards.artifact.path(name, hashed=False)
                path.write_bytes(bytes(path.stat().st_size))
    assert batch.step == STEPS - 1
    kept.close()


@pytest.mark.usefixtures("forked_decoding")
def test_decoding_processes_fill_the_cache_of_the_training_process_with_the_same_bits(own_shards: Any) -> None:
    reader = SampleReader(own_shards.artifact, own_shards.index)
    policy = Shuffled(own_shards.index.rows("train"), BATCH, seed=1)
    config = LoaderConfig(augment=AUGMENT, processes=2, threads=1)
    loader = build_loader(config, reader, own_shards.index, policy, image_size=24, seed=5, samples=60)
    loaded = loader.batches(0, STEPS)
    images = [next(loaded).images for _ in range(5)]
    assert reader.decoded_cache is not None
    assert len(reader.decoded_cache.missing(np.arange(60))) == 0
    images += [batch.images for batch in loaded]
    loader.close()
    assert torch.equal(torch.stack(images), images_of(own_shards, keep=0))


def test_a_resumed_training_gets_the_same_batches(shards: Any) -> None:
    assert torch.equal(images_of(shards, start=7), images_of(shards, keep=0)[7:])


def test_damaged_samples_are_replaced_as_without(own_shards: Any) -> None:
    path = own_shards.artifact.path(own_shards.index.shard_names[0], hashed=False)
    with path.open("r+b") as file:
        for id in (3, 4, 8):
            file.seek(int(own_shards.index.offsets[id]) + 40)
            file.write(b"damage")
    kept, decoded = list(batches(own_shards)), list(batches(own_shards, keep=0))
    for one, other in zip(kept, decoded, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.ids, other.ids)
        assert not np.isin(one.ids, [3, 4, 8]).any()


def test_a_split_above_the_limit_is_not_kept(shards: Any) -> None:
    def cache(megabytes: int, channels: int = 3) -> Any:
        local = shards.artifact.cache.parent
        return open_decoded_cache(
            local, shards.artifact.name, shards.index, megabytes=megabytes, channels=channels, smallest_size=24
        )

    needed = 60 * (40 * 40 * 3 + 9)
    assert needed < 1_000_000
    assert cache(0) is None
    assert cache(1) is not None
    large = shards.index.heights.copy()
    large[0] = 1_000_000 // 40 // 3
    shards.index.heights, heights = large, shards.index.heights
    try:
        assert cache(1) is None
        assert cache(2) is not None
    finally:
        shards.index.heights = heights


def test_a_disk_without_space_is_no_error(shards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.shared_file._MAX_SHARE_OF_FREE", 0.0)
    assert torch.equal(images_of(shards), images_of(shards, keep=0))
    assert files(shards) == []


def test_an_image_that_is_not_as_large_as_the_index_says_is_not_kept(shards: Any) -> None:
    cache = open_decoded_cache(
        shards.artifact.cache.parent,
        shards.artifact.name,
        shards.index,
        megabytes=1,
        channels=3,
        smallest_size=24,
    )
    assert cache is not None
    cache.put(7, np.zeros((41, 40, 3), np.uint8))
    assert cache.get(7, 24) is None
    cache.put(7, np.full((40, 40, 3), 5, np.uint8))
    kept = cache.get(7, 24)
    assert kept is not None
    assert (kept == 5).all()
    assert not kept.flags.writeable
    assert cache.get(7, 23) is None


@pytest.mark.parametrize(("kind", "side"), [("JPEG", 40), ("JPEG", 47), ("JPEG", 48), ("PNG", 200), ("WEBP", 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_crop_of_the_whole_image_is_what_decoding_gives(kind: str, side: int, channels: int) -> None:
    buffer = io.BytesIO()
    picture(1, side).save(buffer, kind)
    whole = whole_pixels(buffer.getvalue(), size=24, channels=channels)
    if kind == "JPEG" and side >= 48:  # A crop may be decoded at half scale.
        assert whole is None
        return
    assert whole is not None
    rng = np.random.default_rng(0)
    for size in (24, 30, 64):
        for _ in range(20):
            crop = Crop(rng.uniform(0.05, 1), rng.uniform(0.7, 1.4), rng.uniform(), rng.uniform())
            expected = decode(buffer.getvalue(), size=size, channels=channels, crop=crop)
            np.testing.assert_array_equal(cut(whole, size, crop), expected)
        expected = decode(buffer.getvalue(), size=size, channels=channels)
        np.testing.assert_array_equal(cut(whole, size, None), expected)


def test_an_image_that_cannot_be_decoded_is_the_same_error() -> None:
    buffer = io.BytesIO()
    picture(1, 40).save(buffer, "PNG")
    errors = []
    for decoder in (whole_pixels, decode):
        with pytest.raises(ValueError) as raised:
            decoder(buffer.getvalue()[:400], size=24, channels=1)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]


def test_the_file_goes_with_its_last_user(own_shards: Any) -> None:
    first, second = batches(own_shards), batches(own_shards)
    next(first), next(second)
    assert len(files(own_shards)) == 1
    first.close()
    assert len(files(own_shards)) == 1
    second.close()
    assert files(own_shards) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.shared_file import SharedFile
shared = SharedFile(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
shared.memory[:] = b"\\1" * int(sys.argv[3])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_neither_read_nor_kept(own_shards: Any) -> None:
    running = batches(own_shards)
    next(running)
    (path,) = files(own_shards)
    size = path.stat().st_size
    running.close()
    arguments = [str(path.parent), path.stem.split("-")[1], str(size)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert killed.returncode == -signal.SIGKILL
    assert files(own_shards) == [path]
    # Every mark says "complete", and every pixel is 1.
    assert torch.equal(images_of(own_shards), images_of(own_shards, keep=0))
    assert files(own_shards) == []
    subprocess.run([sys.executable, "-c", KILLED, *arguments], env={**os.environ, "PYTHONPATH": os.getcwd()})
    # Killed processes of other tests may have left files of theirs on this machine too.
    assert str(path) in sweep(ArtifactStore.open(own_shards.artifact.storage.url))
    assert files(own_shards) == []


def test_the_sweep_leaves_a_file_that_is_in_use(own_shards: Any) -> None:
    running = batches(own_shards)
    next(running)
    store = ArtifactStore.open(own_shards.artifact.storage.url)
    assert not set(sweep(store)) & {str(path) for path in files(own_shards)}
    assert len(files(own_shards)) == 1
    assert len(list(running)) == STEPS - 1
