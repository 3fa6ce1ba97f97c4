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
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from pipeline.errors import WorkError
from pipeline.loading.batch import Batch
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.damage import exchange_damaged
from pipeline.training.data_parallel import check_same_step
from pipeline.training.early_stopping import EarlyStopping
from pipeline.training.exported_weights import ExportedWeights
from pipeline.training.fsdp.tensor_parts import load_weights
from pipeline.training.gradient import backward, clip_gradient, seed_torch
from pipeline.training.interruption import StoppedError
from pipeline.training.meter import Meter
from pipeline.training.model_preparation import prepare_model
from pipeline.training.nonfinite import NonFiniteSteps
from pipeline.training.optim import build_optimizer, set_learning_rate
from pipeline.training.out_of_memory import step_memory
from pipeline.training.parallelism import parallelism
from pipeline.training.precision import LossScale, autocast
from pipeline.training.reporter import NullReporter, Reporter
from pipeline.training.running_statistics import average_running_statistics
from pipeline.training.synced_batch_norm import with_synced_batch_norm
from pipeline.training.task import Evaluate, TrainingObjects
from pipeline.training.training_config import TrainingConfig
from pipeline.training.training_mode import set_training_mode
from pipeline.training.training_state import TrainingState

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
    objects: TrainingObjects,
    training: TrainingConfig,
    *,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    checkpoints: Checkpoints | None = None,
    reporter: Reporter | None = None,
) -> FitResult:
    """Trains `objects.model` to its last step, from the newest checkpoint if there is one.

    Args:
        objects: the model is on `device`; where `world` > 1 torch.distributed is initialised.
        checkpoints: read by every rank; written by rank 0, with FSDP by every rank.
        reporter: receives progress and rows from rank 0; see Reporter.
    Raises:
        InputError: the batch cannot be divided among the ranks, or batch norm cannot be synchronised.
        NonFiniteError: a loss or gradient was not finite, and the config says stop; the message names the step.
        StepMemoryError: a step needs more memory than the device has.
        DamagedError: a sample is damaged, or too many are: see LoaderConfig.damaged.
        StoppedError: the reporter requested a stop; a checkpoint is written.
    """
    training.check_workers(world)
    model = objects.model
    if training.sync_batch_norm and world > 1:
        model = with_synced_batch_norm(model, device)
    prepare_model(model, training)
    objects = replace(objects, model=model)
    return _Run(objects, training, device, rank, world, checkpoints, reporter or NullReporter()).train()


class _Run:
    """One call of `fit`: what a step needs, and what happens between two steps."""

    def __init__(
        self,
        objects: TrainingObjects,
        training: TrainingConfig,
        device: torch.device,
        rank: int,
        world: int,
        checkpoints: Checkpoints | None,
        reporter: Reporter,
    ) -> None:
        model, loader = objects.model, objects.loader
        self._objects, self._model, self._loader = objects, model, loader
        self._training, self._device, self._rank, self._world = training, device, rank, world
        self._checkpoints, self._reporter = checkpoints, reporter
        self._total = training.total_steps(objects.epoch_samples)
        self._log_every = max(training.log_every_steps, -(-self._total // _MAX_METRIC_ROWS))
        self._parallel = parallelism(training, device, rank, world)
        self._average = self._parallel.average(model, training.ema_decay)
        self._optimizer = build_optimizer(model, training.optimizer)
        self._loss_scale = LossScale(training, device)
        self._meter = Meter(device, world, loader.times)
        self._early_stopping = EarlyStopping(training.patience) if training.patience is not None else None
        self._exported = ExportedWeights(training.export_weights, model, self._average)
        self._nonfinite = NonFiniteSteps(training, model, loader, checkpoints, device, rank, world)
        self._state = TrainingState(
            model,
            self._average,
            self._optimizer,
            loader,
            self._meter,
            self._exported,
            self._loss_scale,
            self._nonfinite,
            self._early_stopping,
        )
        self._resume()
        self._wrapped = self._parallel.wrap(model)
        self._meter.watch(self._wrapped)
        written = checkpoints if checkpoints is not None and checkpoints.WRITABLE else None
        self._writer = self._parallel.writer(written) if written is not None else None
        self._saved_at, self._reported_at = time.monotonic(), 0.0

    def train(self) -> FitResult:
        with self._reporter.heartbeats(lambda: self._meter.clock.position(self._state.step)):
            self._train()
        return self._result()

    def _train(self) -> None:
        state, policy = self._state, self._loader.policy
        if state.step == 0:
            self._before_the_first_step()
        while not state.finished(self._total):
            ready_until = policy.ready_until()
            if ready_until is not None and state.step >= ready_until:
                self._record(self._refreshed())
            limit = policy.ready_until()
            self._train_until(self._total if limit is None else min(self._total, limit))

    def _before_the_first_step(self) -> None:
        if self._early_stopping is not None and not self._state.metric_rows:
            # If training only worsens the initial weights (pretrained, with a fitted head), they are exported.
            self._evaluate()
        if self._writer is not None and self._training.on_nonfinite == "rollback":
            self._writer.start(self._state.checkpoint())

    def _train_until(self, stop: int) -> None:
        """Trains up to step `stop`, to the end by early stopping, or to a rollback."""
        self._set_training_mode()
        with (
            self._nonfinite.recovered(self._resume),
            closing(self._loader.batches(self._state.step, stop)) as batches,
            self._writer.finished_on_error() if self._writer is not None else nullcontext(),
        ):
            self._meter.start_step(first_batch=True)
            for batch in batches:
                self._meter.batch_received(batch.images)
                self._step(batch)
                self._between_steps()
                if self._state.finished(self._total):
                    break
                self._meter.start_step()

    def _step(self, batch: Batch) -> None:
        training, meter, step = self._training, self._meter, self._state.step
        set_learning_rate(self._optimizer, self._learning_rate(step))
        seed_torch(training.seed, step, self._rank, self._device)
        self._nonfinite.start(step)
        task, model, on_device = self._objects.task, self._wrapped, batch.to(self._device)
        with step_memory(step, len(batch), training.accumulation):
            backward(task, model, on_device, training, self._world, meter, self._loss_scale)
        meter.clock.lap("forward_backward")
        if self._world > 1:
            average_running_statistics(self._model, len(batch) / batch.global_size)
            meter.clock.lap("reduce")
        self._loss_scale.unscale(self._optimizer)
        if self._objects.observer is not None:
            self._objects.observer.observe(self._model, batch, self._learning_rate(step))
        norm = self._loss_scale.checked(clip_gradient(self._model, training.clip_norm))
        if self._nonfinite.accepts(batch, meter.step_loss, norm):
            meter.add_step(norm)
            self._loss_scale.step(self._optimizer)
            if self._average is not None:
                self._average.update(step)
        else:
            self._loss_scale.skip()
            self._record({"train/skipped_steps": float(len(self._nonfinite.skipped))})
        self._optimizer.zero_grad(set_to_none=True)
        self._state.step += 1
        meter.end_step(batch.global_size)

    def _between_steps(self) -> None:
        """Reports, logs, evaluates and saves what is due after a step.

        Raises:
            StoppedError: a stop was requested. With DDP only rank 0 raises it; Ray Train then ends the other ranks.
        """
        step, total = self._state.step, self._total
        if self._rank == 0 and time.monotonic() - self._reported_at >= _PROGRESS_EVERY_S:
            self._reported_at = time.monotonic()
            self._reporter.progress(step, total, self._meter.display_numbers())
        log_due = step % self._log_every == 0 or step == total
        if log_due:
            self._record_means()
        if self._training.evaluation_due(step, total, self._objects.epoch_samples):
            self._evaluate()
            self._set_training_mode()
        stop_requested = self._rank == 0 and self._reporter.stop_requested()
        finished = self._state.finished(total)
        if finished and not log_due:
            # Stopped early between two log entries. All ranks stop at the same step: their metrics are equal.
            self._record_means()
        if self._writer is not None:
            self._writer.check()
        due = self._reporter.checkpoint_requested() or stop_requested or finished or self._checkpoint_due()
        stop_requested, due = self._parallel.decide(stop_requested, due)
        if due:
            self._save(wait=stop_requested or finished)
        if stop_requested and not finished:
            raise StoppedError(f"stopped at step {step} of {total}; run it again to go on from there")

    def _save(self, *, wait: bool) -> None:
        with self._meter.clock.timed("checkpoint"):
            if self._writer is not None and self._nonfinite.clean():
                self._writer.start(self._state.checkpoint())
                if wait:
                    self._writer.wait()
        self._saved_at = time.monotonic()

    def _checkpoint_due(self) -> bool:
        every = self._training.checkpoint_every_steps
        if every is not None and self._state.step % every == 0:
            return True
        return time.monotonic() - self._saved_at >= self._training.checkpoint_every_s

    def _resume(self) -> bool:
        """Loads the newest checkpoint; whether there is one."""
        newest = None
        if self._checkpoints is not None:
            newest = self._parallel.newest(self._checkpoints, self._model, self._average, self._optimizer)
            self._state.resume(newest)
        if self._world > 1:
            check_same_step(self._state.step, self._device)
        return newest is not None

    def _record(self, numbers: Mapping[str, float]) -> None:
        step = self._state.step
        epoch = round(step / self._training.steps_per_epoch(self._objects.epoch_samples), 4)
        row = {"step": step, "epoch": epoch, **numbers}
        self._state.metric_rows.append(row)
        if self._rank == 0:
            self._reporter.row(row)

    def _record_means(self) -> None:
        """Records the means since the last log entry, and the learning rate of the step before."""
        self._nonfinite.check()
        damaged = exchange_damaged(self._loader.quarantine, self._world, self._device)
        lr = self._learning_rate(self._state.step - 1)
        self._record({**self._meter.drain(), "lr": lr, **self._loss_scale.numbers(), **damaged})

    def _learning_rate(self, step: int) -> float:
        return self._training.learning_rate(step, self._total, self._objects.epoch_samples)

    def _evaluate(self) -> None:
        if self._objects.evaluate is None:
            return
        evaluate = self._parallel.evaluation(self._objects.evaluate)
        with self._meter.clock.timed("evaluation"):
            measured = self._exported.measure(lambda module: self._in_eval_mode(evaluate, module))
        self._record(measured)
        if self._early_stopping is not None:
            self._early_stopping.update(self._state.step, measured, self._exported.module)

    def _refreshed(self) -> dict[str, float]:
        refresh, step = self._objects.refresh, self._state.step
        if refresh is None:
            raise WorkError(f"step {step}: the sampling policy waits for a refresh, and the recipe has none")
        return self._in_eval_mode(lambda module: refresh(module, step), self._model)

    def _in_eval_mode(self, measure: Evaluate, model: nn.Module) -> dict[str, float]:
        model.eval()
        with torch.no_grad(), autocast(self._training, self._device):
            return measure(model)

    def _set_training_mode(self) -> None:
        set_training_mode(self._model, freeze_batch_norm=self._objects.freeze_batch_norm)

    def _result(self) -> FitResult:
        state, early_stopping, exported = self._state, self._early_stopping, self._exported
        notes = [
            self._training.short_epoch_note(self._objects.epoch_samples),
            self._training.undivided_note(self._world),
            exported.note(),
            self._nonfinite.note(),
        ]
        best_step = None
        if early_stopping is not None:
            notes.append(early_stopping.note(state.step, self._total))
            if early_stopping.weights:
                load_weights(exported.module, early_stopping.weights)
                best_step = early_stopping.best_step
        return FitResult(
            exported.module.eval(),
            state.metric_rows,
            state.step,
            self._meter.seconds,
            best_step,
            tuple(note for note in notes if note),
            self._meter.all_times(),
        )
