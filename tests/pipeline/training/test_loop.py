"""The loop, on a model of four numbers: what it computes, when it evaluates, how it stops."""

from __future__ import annotations

import contextlib
import copy
import errno
import subprocess
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import InputError, WorkError
from pipeline.loading.batch import Batch
from pipeline.loading.part_times import PartTimes
from pipeline.storage.local import LocalStorage
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.interruption import StoppedError
from pipeline.training.loop import FitResult, fit
from pipeline.training.reporter import NullReporter
from pipeline.training.task import Evaluate, Refresh, StepOutput, TrainingObjects
from pipeline.training.training_config import TrainingConfig

CPU = torch.device("cpu")
EPOCH_SAMPLES = 40


class Policy:
    """Ids in a circle; with `refresh_every`, a curriculum whose version shifts them."""

    def __init__(self, global_batch: int, refresh_every: int | None = None) -> None:
        self.global_batch = global_batch
        self.version = 0
        self.refresh_every = refresh_every

    def batch(self, step: int) -> NDArray[np.int64]:
        return (np.arange(self.global_batch) + step * self.global_batch + 7 * self.version) % EPOCH_SAMPLES

    def epoch(self, step: int) -> int:
        return 0

    def ready_until(self) -> int | None:
        return None if self.refresh_every is None else (self.version + 1) * self.refresh_every

    def state(self) -> dict[str, Any]:
        return {"version": self.version}

    def load_state(self, state: dict[str, Any]) -> None:
        self.version = state["version"]


class Source:
    quarantine = None

    def __init__(self, policy: Policy, bad_step: int = -1) -> None:
        self.policy = policy
        self.bad_step = bad_step
        self.closed = 0
        self.lost_processes = 0
        self.times = PartTimes()

    def batches(self, start_step: int, stop_step: int) -> Generator[Batch]:
        try:
            for step in range(start_step, stop_step):
                ids = torch.from_numpy(self.policy.batch(step))
                images = (ids[:, None, None, None] % 13).to(torch.uint8).expand(-1, 1, 2, 2)
                labels = torch.full_like(ids, -5 if step == self.bad_step else 1)
                yield Batch(images, ids, labels, ids, None, step, self.policy.version, self.policy.global_batch)
        finally:
            self.closed += 1

    def close(self) -> None:
        pass


class Regression:
    """Fits the id's remainder by 3; a label of -5 makes the loss infinite."""

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        wanted = (batch.ids % 3).float()
        off = (model(batch.images.float().flatten(1)).squeeze(1) - wanted).square()
        return StepOutput(torch.where(batch.labels == -5, torch.inf, off).mean(), {"rows": torch.tensor(1.0)})


def network(dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.Linear(8, 1))


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {"steps": 20, "global_batch": 10, "ema_decay": 0.9, "clip_norm": 1.0, "precision": "float32", **changes}
    )


def train(
    training: TrainingConfig,
    source: Source | None = None,
    model: nn.Module | None = None,
    evaluate: Evaluate | None = None,
    refresh: Refresh | None = None,
    **more: Any,
) -> FitResult:
    source = source or Source(Policy(training.global_batch))
    objects = TrainingObjects(model or network(), Regression(), source, EPOCH_SAMPLES, evaluate, refresh)
    return fit(objects, training, device=CPU, **more)


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class StopAt(NullReporter):
    def __init__(self, calls: int) -> None:
        self.left = calls

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lamb", "muon", "rmsprop"])
@pytest.mark.parametrize(("refresh_every", "layer_decay"), [(None, None), (None, 0.5), (4, None)])
def test_a_stopped_run_goes_on_to_the_same_bits(
    tmp_path: Path, kind: str, refresh_every: int | None, layer_decay: float | None
) -> None:
    training = config(optimizer={"kind": kind, "lr": 0.01, "layer_decay": layer_decay})
    refreshed: list[int] = []

    def sourced(to: list[int]) -> dict[str, Any]:
        policy = Policy(10, refresh_every)

        def refresh(model: nn.Module, step: int) -> dict[str, float]:
            to.append(step)
            policy.version += 1
            return {"curriculum/version": float(policy.version)}

        return {"source": Source(policy), "refresh": refresh}

    checkpoints = Checkpoints(LocalStorage(tmp_path), "here")
    for stop_after in (3, 5, 4):
        with pytest.raises(StoppedError, match="of 20"):
            train(training, checkpoints=checkpoints, reporter=StopAt(stop_after), **sourced(refreshed))
    resumed = train(training, checkpoints=checkpoints, **sourced(refreshed))
    straight = train(training, **sourced([]))
    assert same_bits(resumed.model, straight.model)
    assert refreshed.count(8) <= 2
    keep = ("step", "train/loss", "curriculum/version")
    histories = [[{k: row[k] for k in keep if k in row} for row in run.metric_rows] for run in (resumed, straight)]
    assert [row["step"] for row in histories[0]] == [row["step"] for row in histories[1]]


class UploadsWait(LocalStorage):
    """Stores a file when it may; after `full`, the disk is full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.may_write = threading.Event()
        self.full = False

    def upload(self, local: Path, path: str) -> None:
        assert self.may_write.wait(30), "the training waits for its checkpoint"
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().upload(local, path)


class AtStep(NullReporter):
    """Calls a function at the end of a step."""

    def __init__(self, step: int, then: Callable[[], None]) -> None:
        self.left = step
        self.then = then

    def stop_requested(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.then()
        return False


def test_steps_go_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    storage = UploadsWait(tmp_path)
    checkpoints = Checkpoints(storage, "here")
    training = config(checkpoint_every_steps=15)
    train(training, checkpoints=checkpoints, reporter=AtStep(19, storage.may_write.set))
    (tmp_path / "here/step-000000020.json").unlink()  # the end; what a kill at step 19 leaves
    resumed = train(training, checkpoints=checkpoints)
    assert same_bits(resumed.model, train(training).model)


def test_a_disk_that_stays_full_ends_the_run_in_one_line_and_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    storage = UploadsWait(tmp_path)
    storage.may_write.set()
    checkpoints = Checkpoints(storage, "here")
    training = config(checkpoint_every_steps=5)

    def fill() -> None:
        wait_for_writes()
        storage.full = True

    with pytest.raises(WorkError, match=r"the last checkpoint cannot be written \(.*No space left on device\)"):
        train(training, checkpoints=checkpoints, reporter=AtStep(7, fill))
    last = checkpoints.newest()
    assert last is not None
    assert last.step == 5
    storage.full = False
    assert same_bits(train(training, checkpoints=checkpoints).model, train(training).model)


def wait_for_writes() -> None:
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join(30)


def test_a_disk_that_is_really_full_for_a_while_costs_a_checkpoint_and_no_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system of 1 MiB, which a file fills from step 7 to step 14; the checkpoint of step 10 does not fit."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        checkpoints = Checkpoints(LocalStorage(disk), "here")
        training = config(checkpoint_every_steps=5)
        filling = disk / "filling"
        whole: list[list[str]] = []

        def fill() -> None:
            wait_for_writes()
            with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1024))

        def make_room() -> None:
            wait_for_writes()
            whole.append(sorted(path.name for path in (disk / "here").iterdir() if path.is_file()))
            filling.unlink()

        class FullForAWhile(NullReporter):
            steps = 0

            def stop_requested(self) -> bool:
                self.steps += 1
                if self.steps in (7, 14):
                    {7: fill, 14: make_room}[self.steps]()
                return False

        result = train(training, checkpoints=checkpoints, reporter=FullForAWhile())
        assert whole == [["step-000000005.json", "step-000000005.pt"]], "half a checkpoint, or the old one is gone"
        assert "here: a checkpoint was not written" in caplog.text
        assert "the training goes on" in caplog.text
        last = checkpoints.newest()
        assert last is not None
        assert last.step == 20
        assert same_bits(result.model, train(training).model)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("accumulation", [2, 3, 10, 64])
def test_accumulation_gives_the_gradient_of_the_whole_batch(accumulation: int) -> None:
    whole = train(config(), model=network(0.0))
    cut = train(config(accumulation=accumulation), model=network(0.0))
    for one, other in zip(whole.model.state_dict().values(), cut.model.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_names_its_step_and_ends_the_loader(tmp_path: Path) -> None:
    source = Source(Policy(10), bad_step=13)
    checkpoints = Checkpoints(LocalStorage(tmp_path), "here")
    with pytest.raises(WorkError, match="step 13: the loss or its gradient"):
        train(config(checkpoint_every_steps=5), source, checkpoints=checkpoints)
    assert source.closed == 1
    last = checkpoints.newest()
    assert last is not None
    assert last.step == 10


def test_the_averaged_model_is_evaluated_in_eval_mode_when_an_epoch_ends() -> None:
    seen = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append((model.training, torch.is_grad_enabled(), any(p.requires_grad for p in model.parameters())))
        return {"val/accuracy": 0.5}

    result = train(config(evaluate_every_epochs=2), evaluate=evaluate)
    # The average, then the raw weights.
    assert seen == [(False, False, False), (False, False, True)] * 3
    assert [row["step"] for row in result.metric_rows if "val/accuracy" in row] == [8, 16, 20]


def test_a_policy_that_waits_for_a_refresh_nobody_gives_is_an_error() -> None:
    with pytest.raises(WorkError, match="step 4: the sampling policy waits"):
        train(config(), Source(Policy(10, refresh_every=4)))


def test_more_workers_than_rows_of_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match="11 workers share global_batch=10"):
        train(config(), world=11)


def test_bfloat16_is_near_float32_and_keeps_its_weights_in_float32() -> None:
    half, full = (train(config(precision=precision), model=network(0.0)) for precision in ("bfloat16", "float32"))
    assert half.metric_rows[-1]["train/loss"] == pytest.approx(full.metric_rows[-1]["train/loss"], rel=0.05)
    assert half.metric_rows[-1]["train/loss"] != full.metric_rows[-1]["train/loss"]
    assert {value.dtype for value in half.model.state_dict().values()} == {torch.float32}


def test_rows_hold_the_mean_over_their_steps() -> None:
    losses: list[float] = []

    class Listening(Regression):
        def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
            output = super().training_step(model, batch)
            losses.append(output.loss.item())
            return output

    objects = TrainingObjects(network(), Listening(), Source(Policy(10)), EPOCH_SAMPLES)
    result = fit(objects, config(log_every_steps=10), device=CPU)
    logged = [row["train/loss"] for row in result.metric_rows if "train/loss" in row]
    assert logged == pytest.approx([np.mean(losses[:10]), np.mean(losses[10:])])


class Accuracies:
    """Evaluations with given accuracies, first that of the initial weights; the last holds for all later ones.

    The raw weights, which are measured too, have an accuracy of 0.
    """

    def __init__(self, values: tuple[float, ...], done: int = 0) -> None:
        self.values, self.done = values, done

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if any(parameter.requires_grad for parameter in model.parameters()):
            return {"val/accuracy": 0.0}
        self.done += 1
        return {"val/accuracy": self.values[min(self.done, len(self.values)) - 1]}


def test_a_training_that_gains_nothing_more_stops_early_and_exports_its_best_weights() -> None:
    training = config(steps=40, patience=3)  # an evaluation every 4 steps
    result = train(training, evaluate=Accuracies((0.1, 0.3, 0.5, 0.5, 0.4, 0.5)))
    assert (result.steps, result.best_step) == (20, 8)
    assert [row["step"] for row in result.metric_rows if "val/accuracy" in row] == [0, 4, 8, 12, 16, 20]
    assert result.notes == (
        "stopped early at step 20 of 40: patience=3; the weights of step 8 (val accuracy 50.0%) are exported",
    )
    at_best: list[nn.Module] = []

    def keep(model: nn.Module) -> dict[str, float]:
        if not any(parameter.requires_grad for parameter in model.parameters()):
            at_best.append(copy.deepcopy(model))
        return {"val/accuracy": 0.5}

    train(config(steps=40), evaluate=keep)
    assert same_bits(result.model, at_best[1])
    assert not same_bits(result.model, at_best[2])


def test_a_training_that_makes_its_initial_weights_worse_exports_them() -> None:
    initial = {name: value.clone() for name, value in network().state_dict().items()}
    result = train(config(steps=40, patience=3), evaluate=Accuracies((0.6, 0.3, 0.6, 0.5)))
    assert (result.steps, result.best_step) == (12, 0)
    initial_weights = "no later weights were better than the initial ones (val accuracy 60.0%), which are exported"
    assert result.notes == (f"stopped early at step 12 of 40: patience=3; {initial_weights}",)
    assert train(config(steps=4, patience=3), evaluate=Accuracies((0.6, 0.3))).notes == (initial_weights,)
    exported = result.model.state_dict()
    assert all(torch.equal(value, exported[name]) for name, value in initial.items())


def test_what_was_measured_since_the_last_log_entry_is_logged_when_a_training_stops_early() -> None:
    result = train(config(steps=40, patience=1, log_every_steps=3), evaluate=Accuracies((0.1, 0.3, 0.2)))
    assert result.steps == 8
    assert [row["step"] for row in result.metric_rows if "train/loss" in row] == [3, 6, 8]


def test_a_training_that_gains_runs_to_its_last_step() -> None:
    result = train(config(steps=20, patience=1), evaluate=Accuracies((0.0, 0.1, 0.2, 0.3, 0.4, 0.5)))
    assert (result.steps, result.best_step, result.notes) == (20, 20, ())
    assert train(config(steps=20), evaluate=Accuracies((0.5,))).best_step is None


def test_a_stopped_run_stops_early_at_the_same_step(tmp_path: Path) -> None:
    training = config(steps=40, patience=3)
    values = (0.1, 0.3, 0.5, 0.4, 0.5, 0.2)
    straight = train(training, evaluate=Accuracies(values))
    checkpoints = Checkpoints(LocalStorage(tmp_path), "here")
    for stop_after in (9, 5, 3):  # at steps 9, 14 and 17
        last = checkpoints.newest()
        evaluate = Accuracies(values, done=last.step // 4 + 1 if last is not None else 0)
        with pytest.raises(StoppedError, match="of 40"):
            train(training, checkpoints=checkpoints, reporter=StopAt(stop_after), evaluate=evaluate)
    resumed = train(training, checkpoints=checkpoints, evaluate=Accuracies(values, done=5))
    again = train(training, checkpoints=checkpoints)  # killed after its last checkpoint: nothing is left to do
    for run in (resumed, again):
        assert (
            (run.steps, run.best_step, run.notes)
            == (straight.steps, straight.best_step, straight.notes)
            == (20, 8, run.notes)
        )
        assert same_bits(run.model, straight.model)


def test_an_epoch_that_is_less_than_a_step_is_noted() -> None:
    result = train(TrainingConfig(epochs=1, global_batch=512, precision="float32"))
    assert result.steps == 1
    assert result.notes == (
        "an epoch of 40 samples is less than a step of global_batch=512: 1 step is 12.8 epochs; set global_batch to 40 "
        "or less",
    )
    assert train(TrainingConfig(epochs=1, global_batch=40, precision="float32")).notes == ()
