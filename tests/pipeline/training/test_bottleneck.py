"""The part that a training waits for is named as measured: in real loaders and steps, each made slow in one place."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.loading import decode_processes
from pipeline.loading.augment_config import AugmentConfig
from pipeline.loading.auto_augment_config import RandAugmentConfig
from pipeline.loading.batch import Batch
from pipeline.loading.loader import Loader
from pipeline.loading.loader_facts import LoaderFacts
from pipeline.loading.policies.shuffled import Shuffled
from pipeline.loading.reader import SampleReader
from pipeline.preprocessing import Preprocessing
from pipeline.sharding.format.index import SampleIndex, SampleRow, content_hash
from pipeline.training import bottleneck
from pipeline.training.bottleneck import bottleneck_note, slowest_part
from pipeline.training.classification import Classification
from pipeline.training.loop import FitResult, fit
from pipeline.training.task import StepOutput, TrainingObjects
from pipeline.training.training_config import TrainingConfig
from tests.forked import fork_decoding_process
from tests.small_shards import SmallShards, index_of

CPU = torch.device("cpu")
IMAGES, BATCH, STEPS = 24, 12, 24


def write_photos(store: ArtifactStore, side: int) -> Artifact:
    """JPEGs of noise, `side` pixels a side."""
    folder, rows = store.local / f"photos{side}", []
    noise = np.random.default_rng(0)
    with SmallShards(folder, samples_per_shard=100) as tar:
        for number in range(IMAGES):
            pixels = noise.integers(0, 255, (side // 4, side // 4, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).resize((side, side)).save(buffer, "JPEG", quality=90)
            member = tar.add("train", f"photo{number}", [("jpg", buffer.getvalue())])
            rows.append(
                SampleRow(
                    f"photo{number}", member.shard, member.offset, member.length, number % 2, (), side, side,
                    content_hash(buffer.getvalue()), 0, number, -1, "noise",
                )
            )  # fmt: skip
    index_of(rows, shard_names=tar.shard_names, label_names=["even", "odd"]).write(folder)
    key = f"{side:020x}"
    return store.commit("shard-dataset", key, folder, config={}, inputs={}, summary={}, seconds=0, origin={})


class SlowReader(SampleReader):
    """A reader behind a network that answers in 15 ms."""

    def read(self, id: int, *, fresh: bool = False) -> bytes:
        time.sleep(0.015)
        return super().read(id, fresh=fresh)


class SlowStep(Classification):
    """A step that takes 200 ms more, as that of a large model."""

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        time.sleep(0.2)
        return super().training_step(model, batch)


def trained(
    shards: Artifact,
    side: int,
    augment: AugmentConfig | None = None,
    reader: type[SampleReader] = SampleReader,
    task: type[Classification] = Classification,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    **options: Any,
) -> tuple[FitResult, LoaderFacts]:
    index = SampleIndex.open(shards)
    policy = Shuffled(index.rows("train"), BATCH, seed=1)
    loader = Loader(reader(shards, index), index, policy, image_size=side, augment=augment, seed=5, **options)
    training = TrainingConfig(steps=STEPS, global_batch=BATCH, log_every_steps=8, precision="float32")
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    objective = task(Preprocessing(side, 3, (0.5,) * 3, (0.25,) * 3))
    result = fit(TrainingObjects(model, objective, loader, BATCH, evaluate), training, device=CPU)
    loader.close()
    return result, loader.facts()


@pytest.fixture
def small(store: ArtifactStore) -> Artifact:
    return write_photos(store, 32)


def test_a_slow_reader_is_named_and_more_threads_are_the_advice(small: Artifact) -> None:
    result, facts = trained(small, 32, reader=SlowReader)
    assert slowest_part(result.times) == "read"
    note = bottleneck_note(result.times, facts, cores=2)
    assert note is not None
    assert re.match(
        r"waits \d+% of its time for data: reading takes \d+ ms an image on 2 threads; set loader\.thr", note
    )
    assert result.metric_rows[-1]["train/data_wait"] > 0.5
    assert result.metric_rows[-1]["time/read_ms_per_image"] > 15


@pytest.fixture
def also_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a second have a note too."""
    monkeypatch.setattr(bottleneck, "_LEAST_SECONDS", 0.2)


@pytest.mark.usefixtures("also_short")
def test_large_photos_are_named_with_the_size_to_store_them_in(store: ArtifactStore) -> None:
    # Whole images: a crop would be decoded at a fraction of its size.
    result, facts = trained(write_photos(store, 800), 32)
    assert slowest_part(result.times) == "decode"
    note = bottleneck_note(result.times, facts, cores=2)
    assert note is not None
    assert note.endswith(
        "ms an image on 2 threads; store smaller images (data.images.max_side=40; now about 800 pixels)"
    )
    more = bottleneck_note(result.times, facts, cores=4)
    assert more is not None
    assert "set loader.threads=4, or store smaller images" in more


@pytest.mark.usefixtures("also_short")
def test_a_slow_augmentation_is_named(small: Artifact) -> None:
    # Decoding 32 pixels is cheap; eight operations on 128 are not.
    heavy = AugmentConfig(auto_augment=RandAugmentConfig(layers=8, probability=1.0))
    result, facts = trained(small, 128, augment=heavy)
    assert slowest_part(result.times) == "augment"
    note = bottleneck_note(result.times, facts, cores=2)
    assert note is not None
    assert note.endswith("ms an image on 2 threads; use a lighter loader.augment")


def test_a_slow_step_is_named_and_needs_no_advice(small: Artifact) -> None:
    result, facts = trained(small, 32, task=SlowStep)
    assert slowest_part(result.times) == "forward_backward"
    assert bottleneck_note(result.times, facts, cores=2) is None
    row = result.metric_rows[-1]
    assert row["time/forward_backward_ms"] > 200
    assert 200 < row["time/step_ms_p50"] <= row["time/step_ms_p95"]


def test_slow_evaluations_are_named(small: Artifact) -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        time.sleep(0.2)
        return {"val/accuracy": 0.5}

    result, facts = trained(small, 32, evaluate=evaluate)
    assert slowest_part(result.times) == "evaluation"
    note = bottleneck_note(result.times, facts, cores=2)
    assert note is not None
    assert note.endswith("of its time in evaluations; raise training.evaluate_every_epochs")


def test_decoding_processes_report_their_times(small: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_processes, "_start_process", fork_decoding_process)
    result, facts = trained(small, 32, processes=1, augment=AugmentConfig())
    assert result.times["images"] == BATCH * STEPS
    assert min(result.times[part] for part in ("read", "decode", "augment", "copy")) > 0
    assert facts.loading_threads == 2


TIMES = {"data_wait": 0.9, "forward_backward": 8.0, "reduce": 0.0, "optimizer": 1.0, "first_batch": 5.0,
         "evaluation": 0.0, "checkpoint": 0.0, "steps": 100.0, "images": 3200.0,
         "read": 0.2, "decode": 9.0, "augment": 1.0, "copy": 0.0}  # fmt: skip
FACTS = LoaderFacts(threads=1, processes=0, remote=False, side=64, stored_side=64)


def test_a_sentence_is_said_only_if_it_is_true() -> None:
    assert bottleneck_note(TIMES, FACTS, 4) is None  # 9% of its time
    waits = {**TIMES, "data_wait": 3.0}
    assert bottleneck_note({**waits, "steps": 19.0}, FACTS, 4) is None
    assert bottleneck_note(waits, FACTS, 4) == (
        "waits 25% of its time for data: decoding takes 2.8 ms an image on 1 thread; set loader.threads=2"
    )
    assert bottleneck_note(waits, FACTS, 1) == (
        "waits 25% of its time for data: decoding takes 2.8 ms an image on 1 thread; all 1 core decode already, so use "
        "a machine with more"
    )
    saves = bottleneck_note({**TIMES, "checkpoint": 2.0}, FACTS, 4)
    assert saves == "spends 17% of its time on checkpoints; raise training.checkpoint_every_s"
    exchange = bottleneck_note({**TIMES, "reduce": 6.0, "forward_backward": 4.0}, FACTS, 4)
    assert exchange is not None
    assert exchange.startswith("waits 50% of its time for the exchange of gradients")


def test_times_go_on_over_a_resume(tmp_path: Path, store: ArtifactStore, small: Artifact) -> None:
    from pipeline.storage.local import LocalStorage
    from pipeline.training.checkpoint import Checkpoints
    from pipeline.training.interruption import StoppedError
    from pipeline.training.reporter import NullReporter

    class StopAfter(NullReporter):
        steps = 8

        def stop_requested(self) -> bool:
            self.steps -= 1
            return self.steps == 0

    index = SampleIndex.open(small)

    def run(reporter: NullReporter) -> FitResult:
        loader = Loader(
            SampleReader(small, index), index, Shuffled(index.rows("train"), BATCH, seed=1),
            image_size=32, augment=None, seed=5,
        )  # fmt: skip
        model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
        task = SlowStep(Preprocessing(32, 3, (0.5,) * 3, (0.25,) * 3))
        return fit(
            TrainingObjects(model, task, loader, BATCH),
            TrainingConfig(steps=12, global_batch=BATCH, log_every_steps=4, precision="float32"),
            device=CPU,
            checkpoints=Checkpoints(LocalStorage(tmp_path), "here"),
            reporter=reporter,
        )

    with pytest.raises(StoppedError):
        run(StopAfter())
    resumed = run(NullReporter())
    assert resumed.times["steps"] == 12
    assert resumed.times["forward_backward"] > 12 * 0.08
