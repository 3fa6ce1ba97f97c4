"""Runs a training in this process or on Ray Train workers, with the same output.

Checkpoints are in the artifact's scratch folder in the store (work/STAGE/KEY/scratch/checkpoints), which a
worker on another machine reaches by the store's URL. The trained weights also return from a worker through
the last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.errors import InputError, WorkError
from pipeline.loading.quarantine import FILE
from pipeline.stage import Workspace
from pipeline.training import per_class
from pipeline.training.allocator import freed_memory_kept
from pipeline.training.bad_batch import copy_bad_batches
from pipeline.training.exported_weights import exported_part, exported_per_class, exported_state
from pipeline.training.interruption import stoppable
from pipeline.training.model_preparation import check_device
from pipeline.training.per_class import class_columns, class_table
from pipeline.training.placement import RunnerConfig
from pipeline.training.reporter import DriverReporter
from pipeline.training.task import TrainingRecipe
from pipeline.training.worker import CheckpointLocation, train_recipe

if TYPE_CHECKING:
    from pipeline.training.tracking import TrackedRun


@dataclass(frozen=True)
class TrainingResult:
    """The result of a finished training.

    Attributes:
        state: the state dict to export, on the CPU: with early stopping that of the best evaluation, else that of the
            last step; with EMA the weights that `training.export_weights` chooses.
        metric_rows: the lines of metrics.jsonl.
        run_info: the content of training.json: steps, seconds, images_per_s, parameters, device, world, ...
    """

    state: dict[str, Tensor] = field(repr=False)
    metric_rows: list[dict[str, Any]] = field(repr=False)
    run_info: dict[str, Any]

    def summary_values(self) -> dict[str, Any]:
        """The values of training.json that a stage's summary repeats."""
        shown = (
            *("steps", "best_step", "images_per_s", "parameters", "device", "world"),
            *("damaged_samples", "lost_decoding_processes", "notes", "bottleneck"),
        )
        return {name: self.run_info[name] for name in shown if name in self.run_info}

    def last(self, name: str) -> float | None:
        """The latest value of a metric, e.g. "val/accuracy", up to the exported step; None if it was never measured."""
        end = self.run_info.get("best_step", self.run_info["steps"])
        return next((row[name] for row in reversed(self.metric_rows) if name in row and row["step"] <= end), None)


def execute(
    recipe: TrainingRecipe,
    runner: RunnerConfig,
    work: Workspace,
    *,
    params: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
) -> TrainingResult:
    """Trains, or resumes from the newest checkpoint; writes metrics.jsonl and training.json to `work.output`.

    If damaged samples were left out, quarantine.jsonl lists them. per_class.csv, also a table in MLflow, has the
    accuracy of each class in the evaluation of the exported weights. bad_batches/ has the batches of skipped steps.

    Args:
        params: logged to MLflow in addition to the metrics; nested mappings are flattened.
        labels: the names of the classes.
    Raises:
        InputError: the runner requests resources that this machine or cluster does not have.
        WorkError: the training failed; its checkpoints remain.
        StoppedError: a stop was requested; a checkpoint is written.
    """
    location = CheckpointLocation.of(work)
    check(recipe, runner)
    with stoppable() as stop, _tracked_run(work, params or {}, runner.tracking) as run:
        reporter = DriverReporter(work.progress, run, stop)
        run_info = run_recipe(recipe, runner, location, reporter, work.scratch)
        last = location.open().newest(part=exported_part)
        if last is None or last.step != run_info["steps"]:
            raise WorkError(f"{location.prefix}: the last checkpoint is missing or damaged; run it again")
        if counts := exported_per_class(last):
            columns = class_columns(counts, labels)
            (work.output / per_class.FILE).write_text(class_table(columns), encoding="utf-8")
            if run is not None:
                run.table(columns, per_class.FILE)
    state = {name: value.contiguous() for name, value in exported_state(last).items()}
    result = TrainingResult(state, last.notes["rows"], run_info)
    lines = "".join(json.dumps(row) + "\n" for row in result.metric_rows)
    (work.output / "metrics.jsonl").write_text(lines)
    if damaged := last.notes.get("quarantine"):
        (work.output / FILE).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in damaged))
    copy_bad_batches(location.open(), work.output)
    (work.output / "training.json").write_text(json.dumps(run_info, indent=1) + "\n")
    return result


def _tracked_run(
    work: Workspace, params: Mapping[str, Any], enabled: bool
) -> AbstractContextManager[TrackedRun | None]:
    if not enabled:
        return nullcontext()
    # Importing MLflow takes a second, which a Ray worker or an untracked run avoids.
    from pipeline.training.tracking import tracked_run

    return tracked_run(work, params)


def check(recipe: TrainingRecipe, runner: RunnerConfig) -> None:
    """Checks, before anything is started, that this machine or the Ray cluster has what the runner requests.

    Raises:
        InputError: too many workers, cores or GPUs are requested.
    """
    if runner.runner == "ray":
        from pipeline.training import ray_train

        ray_train.check(recipe, runner)
        return
    if runner.workers != 1:
        raise InputError(f"runner=process has one worker, not {runner.workers}; set workers=1 or runner=ray")
    if runner.use_gpu == "yes" and not torch.cuda.is_available():
        raise InputError("use_gpu=yes, but torch sees no GPU here; set use_gpu=auto or look at `tutelage doctor`")
    check_device(recipe.training, _device(runner))


def run_recipe(
    recipe: TrainingRecipe, runner: RunnerConfig, location: CheckpointLocation, reporter: DriverReporter, scratch: Path
) -> dict[str, Any]:
    """Trains in this process or on Ray Train workers; returns the content of training.json.

    Args:
        scratch: local folder for Ray Train's own files and for the traceback of a failed worker.
    """
    if runner.runner == "process":
        return run_in_process(recipe, runner, location, reporter)
    from pipeline.training import ray_train

    return ray_train.run(recipe, runner, location, reporter, scratch)


def run_in_process(
    recipe: TrainingRecipe, runner: RunnerConfig, location: CheckpointLocation, reporter: DriverReporter
) -> dict[str, Any]:
    """Trains in this process, on its GPU if it has one and may use it; returns the content of training.json."""
    device = _device(runner)
    if runner.cpus_per_worker is not None:
        torch.set_num_threads(runner.cpus_per_worker)
    # On a GPU, the activations are not in the host's memory.
    with freed_memory_kept() if device.type == "cpu" else nullcontext():
        return train_recipe(recipe, device, 0, 1, location, reporter)


def _device(runner: RunnerConfig) -> torch.device:
    return torch.device("cuda", 0) if runner.use_gpu != "no" and torch.cuda.is_available() else torch.device("cpu")


def training_headline(summary: Mapping[str, Any]) -> str:
    """A line from a training's summary: accuracy or loss, speed, parameters, damaged samples, lost processes."""
    words = []
    if "val_accuracy" in summary:
        words.append(f"val accuracy {summary['val_accuracy']:.1%}")
    elif "train_loss" in summary:
        words.append(f"loss {summary['train_loss']:.3f}")
    if "images_per_s" in summary:
        words.append(f"{summary['images_per_s']:,.0f} img/s")
    if "parameters" in summary:
        words.append(f"{summary['parameters'] / 1e6:.2f}M parameters")
    if summary.get("damaged_samples"):
        words.append(f"{summary['damaged_samples']} damaged samples left out")
    if lost := summary.get("lost_decoding_processes"):
        words.append(f"{lost} decoding process{'' if lost == 1 else 'es'} lost and replaced")
    return ", ".join(words)
