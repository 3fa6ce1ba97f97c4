"""A short training on real batches, from which time, memory and disk of the whole training are computed.

It is the stage itself, with its model, data, loader, runner and workers, for a few steps: so what it measures is what
the training will take on this machine. Nothing of it is committed.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, floor
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config
from pipeline.loading.reader import SampleReader
from pipeline.owners import owned_name
from pipeline.progress import Progress, silent
from pipeline.stage import Stage, Workspace
from pipeline.training import per_class
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.part_clock import COMPUTED
from pipeline.training.training_config import TrainingConfig

_SMALL_SHARE = 0.1  # of the steps' time: so little decoding changes no plan
_ROWS_OF_STEPS = 5  # the first row is left out: a loader begins with batches that it prepared before


@dataclass(frozen=True)
class ShortRun:
    """What a short training measured.

    Attributes:
        step_s: seconds of a step, waiting for data included; in the first epoch, if the later ones differ.
        evaluation_s: seconds of an evaluation; 0 if there is none.
        fixed_s: seconds of what a training does once: starting workers, the first batch, the export.
        epoch_samples: samples in an epoch.
        memory_mb: peak memory of all workers.
        artifact_bytes, checkpoint_bytes: size of the result, and of a checkpoint.
        inference_s: seconds of a forward pass for one image, from the evaluation; None without one.
        later_step_s: seconds of a step after the first epoch, whose decoded images are kept (see DecodedCache); None:
            as in the first.
    """

    step_s: float
    evaluation_s: float
    fixed_s: float
    epoch_samples: int
    memory_mb: int
    artifact_bytes: int
    checkpoint_bytes: int
    inference_s: float | None = None
    later_step_s: float | None = None

    def seconds(self, training: TrainingConfig, extra_step_s: float = 0.0) -> float:
        """Seconds of the whole training; with early stopping, the most.

        Args:
            extra_step_s: what a step needs beyond the measured one.
        """
        steps = training.total_steps(self.epoch_samples)
        evaluations = evaluation_count(training, self.epoch_samples)
        later = max(0, steps - ceil(training.steps_per_epoch(self.epoch_samples)))
        later_step_s = self.step_s if self.later_step_s is None else self.later_step_s
        in_steps = (steps - later) * self.step_s + later * later_step_s + steps * extra_step_s
        return self.fixed_s + in_steps + evaluations * self.evaluation_s

    def disk_bytes(self) -> int:
        """The artifact, and the checkpoints that are kept while it is made."""
        return self.artifact_bytes + Checkpoints.KEPT * self.checkpoint_bytes


def evaluation_count(training: TrainingConfig, epoch_samples: int) -> int:
    """The number of evaluations of a training that does not stop early."""
    total = training.total_steps(epoch_samples)
    first = int(training.patience is not None)  # that of the initial weights
    if training.evaluate_every_epochs == 0:
        return first + 1
    period = training.evaluate_every_epochs * training.steps_per_epoch(epoch_samples)
    at_the_end = floor(total / period) > floor((total - 1) / period)
    return first + min(total, floor(total / period)) + int(not at_the_end)


def short_run(
    stage: Stage[Any],
    config: Any,
    inputs: Mapping[str, Artifact],
    store: ArtifactStore,
    *,
    steps: int = 20,
    progress: Progress = silent,
) -> ShortRun:
    """Trains for a few steps and measures; if later epochs find decoded images, trains for the same steps again.

    Args:
        stage: a training: train-teacher, distill-student or pretrain-clip.
        config: its config, with `training` and `runner`.
        steps: number of steps, at least 10.
    Raises:
        InputError: as the stage.
    """
    reader = _reader_of_decoded(config, inputs["shards"])
    measured, decoding = _run(stage, config, inputs, store, steps, progress)
    training: TrainingConfig = config.training
    later_epochs = training.total_steps(measured.epoch_samples) > training.steps_per_epoch(measured.epoch_samples)
    if reader is None or not later_epochs or decoding < _SMALL_SHARE:
        return measured
    again, _ = _run(stage, config, inputs, store, steps, progress)
    del reader  # the last user of the decoded images, which removes them
    return replace(measured, later_step_s=min(again.step_s, measured.step_s))


def _reader_of_decoded(config: Any, shards: Artifact) -> SampleReader | None:
    """A reader that holds the decoded training images which the trainings share; None: they keep none."""
    if not hasattr(config, "image_size"):  # of a dual encoder it is that of its image backbone
        return None
    reader = SampleReader.open(shards, remote=config.loader.remote)
    smallest = min((config.image_size, *config.loader.smaller_sizes))
    reader.keep_decoded(config.loader.decoded_megabytes, config.channels, smallest)
    return reader if reader.decoded_cache is not None else None


def _run(
    stage: Stage[Any],
    config: Any,
    inputs: Mapping[str, Artifact],
    store: ArtifactStore,
    steps: int,
    progress: Progress,
) -> tuple[ShortRun, float]:
    """What a training of a few steps measured, and its threads' time of decoding as a fraction of the steps' time."""
    folder = store.work / "plan" / owned_name()
    work = Workspace(folder / "output", folder / "scratch", store, "plan", progress)
    for made in (work.output, work.scratch):
        made.mkdir(parents=True)
    checkpoints = f"work/{folder.resolve().relative_to(store.work.resolve()).as_posix()}/scratch/checkpoints"
    try:
        began = time.monotonic()
        stage.run(_short_config(config, steps), inputs, work)
        wall_s = time.monotonic() - began
        sizes = [entry.size for entry in store.storage.list(checkpoints)]
        return _measured(work.output, wall_s, sum(sizes), config.training)
    finally:
        for entry in list(store.storage.list(checkpoints)):
            store.storage.delete(entry.path)
        shutil.rmtree(folder, ignore_errors=True)


def _short_config(config: Config, steps: int) -> Config:
    training: TrainingConfig = config.training  # type: ignore[attr-defined]
    changed = {
        "steps": steps,
        "evaluate_every_epochs": 0,
        "patience": None,
        "log_every_steps": _ROWS_OF_STEPS,
        "checkpoint_every_s": 1e9,
        "checkpoint_every_steps": None,
    }
    runner = config.runner.model_copy(update={"tracking": False})  # type: ignore[attr-defined]
    return config.model_copy(update={"training": training.model_copy(update=changed), "runner": runner})


def _measured(output: Path, wall_s: float, checkpoint_bytes: int, training: TrainingConfig) -> tuple[ShortRun, float]:
    run_info = json.loads((output / "training.json").read_text())
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    rates = [row["train/images_per_s"] for row in rows if "train/images_per_s" in row]
    times = run_info["times"]
    in_steps = sum(times[part] for part in ("data_wait", *COMPUTED))
    measured = ShortRun(
        step_s=training.global_batch / median(rates[1:] or rates),
        evaluation_s=times["evaluation"],
        fixed_s=max(wall_s - in_steps - times["evaluation"], 0.0),
        epoch_samples=run_info["epoch_samples"],
        memory_mb=run_info["peak_memory_mb"] * run_info["world"],
        artifact_bytes=sum(file.stat().st_size for file in output.rglob("*") if file.is_file()),
        checkpoint_bytes=checkpoint_bytes,
        inference_s=_inference_s(output, times["evaluation"], run_info["world"], training.ema_decay is not None),
    )
    return measured, times["decode"] / max(in_steps, 1e-9)


def _inference_s(output: Path, evaluation_s: float, world: int, averaged: bool) -> float | None:
    """Seconds of one worker for one image; with an average (EMA), an evaluation runs two models."""
    table = output / per_class.FILE
    if not table.exists():
        return None
    with table.open(encoding="utf-8", newline="") as file:
        images = sum(int(row["images"]) for row in csv.DictReader(file))
    return evaluation_s * world / images / (2 if averaged else 1) if images else None
