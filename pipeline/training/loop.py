"""The one training loop: the same in a bare process and as a Ray Train worker.

A step, with n samples in a micro-batch of this rank, G samples in the global batch, W ranks:

    if step == policy.ready_until(): refresh(model)             a curriculum advances
    batch = next(loader)                                        this rank's slice of policy.batch(step)
    seed torch with (seed, step, rank)                          so dropout is the same in a resumed run
    for part in batch split by `accumulation`:
        loss = task.training_step(model, part)                  mean over n samples, under autocast
        backward(loss * n * W / G)                              summed here, averaged over ranks: the mean over G
    average batch norm's running statistics over the ranks
    clip the gradient
    if it and the loss are finite:                              else stop, skip the step or roll back
        optimizer.step() at learning_rate(step);  average.update()
    step += 1;  log, evaluate, start a checkpoint when due;  stop if `patience` evaluations brought no gain

With early stopping, the first evaluation is that of the initial weights, as step 0.

The state after a step is (weights, average, optimiser, policy, early stopping, skipped steps, step). Checkpoints
contain exactly that, so a run that was killed and resumed ends bit-identical to an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline import counter_rng
from pipeline.errors import WorkError
from pipeline.loading.batch import Batch
from pipeline.training.batching import split
from pipeline.training.checkpoint import Checkpoint, Checkpoints
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.damage import exchange_damaged
from pipeline.training.early_stopping import EarlyStopping
from pipeline.training.ema import WeightAverage
from pipeline.training.exported_weights import ExportedWeights
from pipeline.training.interruption import StoppedError
from pipeline.training.meter import Meter
from pipeline.training.model_preparation import prepare_model
from pipeline.training.nonfinite import NonFiniteSteps
from pipeline.training.optim import build_optimizer, set_learning_rate
from pipeline.training.precision import LossScale, autocast
from pipeline.training.reporter import NullReporter, Reporter
from pipeline.training.running_statistics import average_running_statistics
from pipeline.training.synced_batch_norm import with_synced_batch_norm
from pipeline.training.task import BatchSource, Evaluate, Refresh, Task
from pipeline.training.training_config import TrainingConfig
from pipeline.training.training_mode import set_training_mode

_PROGRESS_EVERY_S = 0.5
_MAX_METRIC_ROWS = 2000  # of metrics.jsonl: every later checkpoint contains each row, so their number is bounded


@dataclass(frozen=True)
class FitResult:
    """The result of `fit`.

    Attributes:
        model: the model to export (see ExportedWeights), on the device, in eval mode; with early stopping it has the
            weights of the best evaluation.
        metric_rows: the lines of metrics.jsonl, including the ones from before a resume.
        steps: number of steps done.
        seconds: time spent in steps, over all resumes; excludes evaluation and checkpoints.
        best_step: step of the best evaluation, whose weights `model` has; None without early stopping.
        notes: sentences about the length of the training, if it is unusual.
        times: seconds by part over all resumes, see Meter.
    """

    model: nn.Module
    metric_rows: list[dict[str, Any]] = field(repr=False)
    steps: int
    seconds: float
    best_step: int | None = None
    notes: tuple[str, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)


def fit(
    task: Task,
    model: nn.Module,
    loader: BatchSource,
    *,
    training: TrainingConfig,
    epoch_samples: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    evaluate: Evaluate | None = None,
    refresh: Refresh | None = None,
    freeze_batch_norm: bool = False,
    checkpoints: Checkpoints | None = None,
    reporter: Reporter | None = None,
) -> FitResult:
    """Trains `model` to its last step, from the newest checkpoint if there is one.

    Args:
        model: on `device`; where `world` > 1 torch.distributed is initialised.
        epoch_samples: samples in an epoch.
        evaluate, refresh: see TrainingObjects; called on every rank.
        freeze_batch_norm: see TrainingObjects.
        checkpoints: read by every rank, written by rank 0.
        reporter: receives progress and rows from rank 0; see Reporter.
    Raises:
        InputError: the batch cannot be divided among the ranks, or batch norm cannot be synchronised.
        NonFiniteError: a loss or gradient was not finite, and the config says stop; the message names the step.
        DamagedError: a sample is damaged, or too many are: see LoaderConfig.damaged.
        StoppedError: the reporter requested a stop; a checkpoint is written.
    """
    training.check_workers(world)
    if training.sync_batch_norm and world > 1:
        model = with_synced_batch_norm(model, device)
    prepare_model(model, training)
    reporter = reporter if reporter is not None else NullReporter()
    is_rank_0 = rank == 0
    total = training.total_steps(epoch_samples)
    log_every = max(training.log_every_steps, -(-total // _MAX_METRIC_ROWS))
    average = WeightAverage(model, training.ema_decay) if training.ema_decay is not None else None
    optimizer = build_optimizer(model, training.optimizer)
    loss_scale = LossScale(training, device)
    meter = Meter(device, world, loader.times)
    early_stopping = EarlyStopping(training.patience) if training.patience is not None else None
    exported = ExportedWeights(training.export_weights, model, average)
    nonfinite = NonFiniteSteps(training, model, loader, checkpoints, device, rank, world)
    state = _State(model, average, optimizer, loader, meter, exported, loss_scale, nonfinite, early_stopping)

    def resume() -> None:
        if checkpoints is not None:
            state.resume(checkpoints.newest())
        if world > 1:
            _check_same_step(state.step, device)

    resume()
    wrapped = _wrap_in_ddp(model, device) if world > 1 else model
    meter.watch(wrapped)
    writer = CheckpointWriter(checkpoints) if checkpoints is not None and is_rank_0 else None
    saved_at, reported_at = time.monotonic(), 0.0

    def record(numbers: dict[str, float]) -> None:
        row = {"step": state.step, "epoch": round(state.step / training.steps_per_epoch(epoch_samples), 4), **numbers}
        state.metric_rows.append(row)
        if is_rank_0:
            reporter.row(row)

    def record_means(lr: float) -> None:
        nonfinite.check()
        damaged = exchange_damaged(loader.quarantine, world, device)
        record({**meter.drain(), "lr": lr, **loss_scale.numbers(), **damaged})

    def evaluate_and_record(evaluate: Evaluate) -> None:
        with meter.clock.timed("evaluation"):
            measured = exported.measure(lambda module: _in_eval_mode(evaluate, module, training, device))
        record(measured)
        if early_stopping is not None:
            early_stopping.update(state.step, measured, exported.module)

    if evaluate is not None and early_stopping is not None and state.step == 0 and not state.metric_rows:
        # If training only worsens the initial weights (pretrained, with a fitted head), they are exported unchanged.
        evaluate_and_record(evaluate)
    if writer is not None and state.step == 0 and training.on_nonfinite == "rollback":
        writer.start(state.checkpoint())
    while not state.finished(total):
        ready_until = loader.policy.ready_until()
        if ready_until is not None and state.step >= ready_until:
            record(_refresh(refresh, model, state.step, training, device))
        limit = loader.policy.ready_until()
        stop = total if limit is None else min(total, limit)
        set_training_mode(model, freeze_batch_norm=freeze_batch_norm)
        with (
            nonfinite.recovered(resume),
            _closing(loader.batches(state.step, stop)) as batches,
            writer.finished_on_error() if writer else nullcontext(),
        ):
            meter.start_step(first_batch=True)
            for batch in batches:
                meter.batch_received(batch.images)
                lr = training.learning_rate(state.step, total, epoch_samples)
                set_learning_rate(optimizer, lr)
                _seed_torch(_step_seed(training.seed, state.step, rank), device)
                nonfinite.start(state.step)
                _backward(task, wrapped, batch.to(device), training, world, meter, loss_scale)
                meter.clock.lap("forward_backward")
                if world > 1:
                    average_running_statistics(model, len(batch) / batch.global_size)
                    meter.clock.lap("reduce")
                loss_scale.unscale(optimizer)
                norm = loss_scale.checked(_clip_gradient(model, training.clip_norm))
                if nonfinite.accepts(batch, meter.step_loss, norm):
                    meter.add_step(norm)
                    loss_scale.step(optimizer)
                    if average is not None:
                        average.update(state.step)
                else:
                    loss_scale.skip()
                    record({"train/skipped_steps": float(len(nonfinite.skipped))})
                optimizer.zero_grad(set_to_none=True)
                state.step += 1
                meter.end_step(batch.global_size)

                if is_rank_0 and time.monotonic() - reported_at >= _PROGRESS_EVERY_S:
                    reported_at = time.monotonic()
                    reporter.progress(state.step, total, meter.display_numbers())
                log_due = state.step % log_every == 0 or state.step == total
                if log_due:
                    record_means(lr)
                if evaluate is not None and training.evaluation_due(state.step, total, epoch_samples):
                    evaluate_and_record(evaluate)
                    set_training_mode(model, freeze_batch_norm=freeze_batch_norm)
                # Only rank 0 raises StoppedError; Ray Train then ends the other ranks.
                stop_requested = is_rank_0 and reporter.stop_requested()
                finished = state.finished(total)
                if finished and not log_due:
                    # Stopped early between two log entries. All ranks stop at the same step: their metrics are equal.
                    record_means(lr)
                if writer is not None:
                    writer.check()
                due = reporter.checkpoint_requested() or stop_requested or finished
                if due or _checkpoint_due(training, state.step, time.monotonic() - saved_at):
                    with meter.clock.timed("checkpoint"):
                        if writer is not None and nonfinite.clean():
                            writer.start(state.checkpoint())
                            if stop_requested or finished:
                                writer.wait()
                    saved_at = time.monotonic()
                if finished:
                    break
                if stop_requested:
                    raise StoppedError(f"stopped at step {state.step} of {total}; run it again to go on from there")
                meter.start_step()
    notes = [training.short_epoch_note(epoch_samples), exported.note(), nonfinite.note()]
    if early_stopping is not None:
        notes.append(early_stopping.note(state.step, total))
        if early_stopping.weights:
            exported.module.load_state_dict(early_stopping.weights)
    best_step = early_stopping.best_step if early_stopping is not None and early_stopping.weights else None
    return FitResult(
        exported.module.eval(),
        state.metric_rows,
        state.step,
        meter.seconds,
        best_step,
        tuple(note for note in notes if note),
        meter.all_times(),
    )


@dataclass
class _State:
    """The content of a checkpoint; `checkpoint` and `resume` are inverses of each other."""

    model: nn.Module
    average: WeightAverage | None
    optimizer: torch.optim.Optimizer
    loader: BatchSource
    meter: Meter
    exported: ExportedWeights
    loss_scale: LossScale
    nonfinite: NonFiniteSteps
    early_stopping: EarlyStopping | None = None
    step: int = 0
    metric_rows: list[dict[str, Any]] = field(default_factory=list)

    def finished(self, total: int) -> bool:
        return self.step >= total or (self.early_stopping is not None and self.early_stopping.finished)

    def checkpoint(self) -> Checkpoint:
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            tensors["average"] = self.average.module.state_dict()
        notes = {"policy": self.loader.policy.state(), "rows": self.metric_rows, "seconds": self.meter.seconds}
        notes |= {"exported": self.exported.state(), "times": self.meter.times}
        if self.loss_scale.is_on:
            notes["loss_scale"] = self.loss_scale.state()
        if self.loader.quarantine is not None:
            notes["quarantine"] = self.loader.quarantine.lines()
        if self.nonfinite.skipped:
            notes["skipped"] = self.nonfinite.skipped
        if self.early_stopping is not None and self.early_stopping.weights:
            tensors["best"] = self.early_stopping.weights
            notes["early_stopping"] = self.early_stopping.state()
        return Checkpoint(self.step, tensors, notes)

    def resume(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            return
        self.step, self.metric_rows = checkpoint.step, list(checkpoint.notes["rows"])
        self.meter.restart()
        self.optimizer.zero_grad(set_to_none=True)  # after a rollback, that of the step that was not finite
        self.meter.seconds, self.meter.times = checkpoint.notes["seconds"], checkpoint.notes.get("times", {})
        self.nonfinite.skipped = list(checkpoint.notes.get("skipped", []))
        self.loader.policy.load_state(checkpoint.notes["policy"])
        if self.loader.quarantine is not None:
            self.loader.quarantine.merge(checkpoint.notes.get("quarantine", []))
        self.model.load_state_dict(checkpoint.tensors["model"])
        self.optimizer.load_state_dict(checkpoint.tensors["optimizer"])
        if "exported" in checkpoint.notes:
            self.exported.load_state(checkpoint.notes["exported"])
        self.loss_scale.load_state(checkpoint.notes.get("loss_scale", {}))
        if self.early_stopping is not None and "early_stopping" in checkpoint.notes:
            self.early_stopping.load_state(checkpoint.notes["early_stopping"], checkpoint.tensors["best"])
        if self.average is not None:
            self.average.module.load_state_dict(checkpoint.tensors["average"])


def _backward(
    task: Task,
    model: nn.Module,
    batch: Batch,
    training: TrainingConfig,
    world: int,
    meter: Meter,
    loss_scale: LossScale,
) -> None:
    """Gradients of the mean loss over the GLOBAL batch, in the parameters of every rank."""
    micro_batches = list(split(batch, training.accumulation))
    for number, micro_batch in enumerate(micro_batches, start=1):
        samples = len(micro_batch.ids)
        # Ranks exchange gradients once per step, with the last micro-batch.
        local_only = isinstance(model, DistributedDataParallel) and number < len(micro_batches)
        with model.no_sync() if local_only else nullcontext():  # type: ignore[operator]
            with autocast(training, batch.images.device):
                output = task.training_step(model, micro_batch)
            loss_scale.scaled(output.loss * (samples * world / batch.global_size)).backward()
        meter.add_output(output, samples)


def _clip_gradient(model: nn.Module, clip_norm: float | None) -> torch.Tensor:
    """Clips the gradient; returns its norm before clipping."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norm)
    return norm


def _in_eval_mode(
    measure: Callable[[nn.Module], dict[str, float]], model: nn.Module, training: TrainingConfig, device: torch.device
) -> dict[str, float]:
    model.eval()
    with torch.no_grad(), autocast(training, device):
        return measure(model)


def _refresh(
    refresh: Refresh | None, model: nn.Module, step: int, training: TrainingConfig, device: torch.device
) -> dict[str, float]:
    if refresh is None:
        raise WorkError(f"step {step}: the sampling policy waits for a refresh, and the recipe has none")
    return _in_eval_mode(lambda module: refresh(module, step), model, training, device)


def _checkpoint_due(training: TrainingConfig, step: int, seconds_since: float) -> bool:
    every = training.checkpoint_every_steps
    return seconds_since >= training.checkpoint_every_s or (every is not None and step % every == 0)


def _seed_torch(seed: int, device: torch.device) -> None:
    # torch.manual_seed asks each kind of device for its generators, which takes 0.1 to 0.3 ms.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(counter_rng.generator(seed, "step", step, rank).integers(0, 2**63))


def _wrap_in_ddp(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    ids = [device.index] if device.type == "cuda" else None
    # Running statistics are averaged instead of those of rank 0 being broadcast before each forward pass.
    return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True, forward_sync_buffers=False)


def _check_same_step(step: int, device: torch.device) -> None:
    """Raises an error if ranks resume at different steps: they would silently average unrelated gradients."""
    steps = torch.tensor([step, -step], device=device)
    dist.all_reduce(steps, dist.ReduceOp.MAX)
    if steps[0] != -steps[1]:
        raise WorkError(
            f"workers see different checkpoints: steps {-int(steps[1])} to {int(steps[0])}; is the store shared?"
        )


@contextmanager
def _closing(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """Ends the loader's threads, even if a step fails."""
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
