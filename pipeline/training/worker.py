"""The work of one rank in either runner: builds the recipe's objects, trains, and returns the result."""

from __future__ import annotations

import gc
import logging
import os
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from pipeline.machine import whole_cores
from pipeline.stage import Workspace
from pipeline.storage import open_storage
from pipeline.training.bottleneck import bottleneck_note
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import fit
from pipeline.training.model_preparation import check_device
from pipeline.training.narrow_convolutions import subsample_narrow_convolutions
from pipeline.training.out_of_memory import (
    AccumulationRaisedError,
    StepMemoryError,
    raise_accumulation,
    raised_note,
    recorded_accumulation,
)
from pipeline.training.peak_memory import peak_memory_mb
from pipeline.training.precision import tf32_as_configured
from pipeline.training.reporter import Reporter
from pipeline.training.task import ObservationEnded, TrainingRecipe
from pipeline.training.training_config import TrainingConfig

_log = logging.getLogger("tutelage.training")


@dataclass(frozen=True)
class CheckpointLocation:
    """The location of a training's checkpoints, as strings that can be sent to another machine."""

    store_url: str
    prefix: str

    @classmethod
    def of(cls, work: Workspace) -> CheckpointLocation:
        scratch = work.scratch.resolve().relative_to(work.store.work.resolve())
        return cls(work.store.storage.url, f"work/{scratch.as_posix()}/checkpoints")

    def open(self) -> Checkpoints:
        return Checkpoints(open_storage(self.store_url), self.prefix)


def train_recipe(
    recipe: TrainingRecipe,
    device: torch.device,
    rank: int,
    world: int,
    location: CheckpointLocation,
    reporter: Reporter,
) -> dict[str, Any]:
    """Builds the objects on this rank and trains; returns the content of training.json, as plain JSON values.

    Raises:
        AccumulationRaisedError: with several workers, which then start again; a single one does so here.
    """
    while True:
        checkpoints = location.open()
        try:
            return _train(
                recipe, recorded_accumulation(recipe.training, checkpoints), device, rank, world, checkpoints, reporter
            )
        except StepMemoryError as error:
            if not recipe.training.auto_micro_batch:
                raise
            sentence = raise_accumulation(error, checkpoints)
        _log.warning("%s", sentence)
        if world > 1:
            raise AccumulationRaisedError(sentence)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _train(
    recipe: TrainingRecipe,
    training: TrainingConfig,
    device: torch.device,
    rank: int,
    world: int,
    checkpoints: Checkpoints,
    reporter: Reporter,
) -> dict[str, Any]:
    check_device(recipe.training, device)
    torch.manual_seed(recipe.training.seed)
    objects = recipe.build(device, rank, world)
    if device.type == "cpu":
        subsample_narrow_convolutions(objects.model)
    if rank == 0 and (note := recipe.training.short_epoch_note(objects.epoch_samples)):
        _log.warning("%s", note)
    started = time.monotonic()
    with closing(objects.loader), tf32_as_configured(recipe.training), suppress(ObservationEnded):
        result = fit(
            objects,
            training,
            device=device,
            rank=rank,
            world=world,
            checkpoints=checkpoints,
            reporter=reporter,
        )
    if objects.observer is not None:
        return {**objects.observer.report(), "device": _device_name(device)}
    damaged = len(objects.loader.quarantine) if objects.loader.quarantine is not None else 0
    lost = _sum_over_ranks(objects.loader.lost_processes, world, device)
    cores = max(1, whole_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    bottleneck = bottleneck_note(result.times, objects.loader.facts(), cores)
    notes = [note for note in (*result.notes, raised_note(recipe.training, training)) if note]
    images = result.steps * recipe.training.global_batch
    return {
        "steps": result.steps,
        "seconds": round(result.seconds, 2),
        "seconds_with_evaluation": round(time.monotonic() - started, 2),
        "images_per_s": round(images / max(result.seconds, 1e-9), 1),
        "parameters": sum(parameter.numel() for parameter in objects.model.parameters()),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "peak_memory_mb": peak_memory_mb(device),
        "epoch_samples": objects.epoch_samples,
        "world": world,
        **({"best_step": result.best_step} if result.best_step is not None else {}),
        **({"accumulation": training.accumulation} if training.auto_micro_batch else {}),
        **({"notes": notes} if notes else {}),
        "times": dict(result.times),
        **({"bottleneck": bottleneck} if bottleneck else {}),
        **({"damaged_samples": damaged} if damaged else {}),
        **({"lost_decoding_processes": lost} if lost else {}),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _sum_over_ranks(count: int, world: int, device: torch.device) -> int:
    """The sum over the ranks; every rank must call it."""
    if world == 1:
        return count
    total = torch.tensor(count, device=device)
    dist.all_reduce(total)
    return int(total)
