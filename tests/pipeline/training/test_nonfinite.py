"""Steps that are not finite: what is skipped, what stays the same, and what is saved of them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.loading.batch import Batch, rank_rows
from pipeline.loading.part_times import PartTimes
from pipeline.stage import run_stage
from pipeline.storage.local import LocalStorage
from pipeline.training import stage as training_stage
from pipeline.training.bad_batch import load_batch, save_batch
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.classification import Classification
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.interruption import StoppedError
from pipeline.training.loop import FitResult, fit
from pipeline.training.nonfinite import NonFiniteError
from pipeline.training.reporter import NullReporter
from pipeline.training.stage import TrainTeacher
from pipeline.training.task import StepOutput, TrainingObjects
from pipeline.training.training_config import TrainingConfig
from tests.forked import Forked

CPU = torch.device("cpu")


class Policy:
    global_batch, version = 10, 0

    def batch(self, step: int) -> Any:
        return np.arange(10) + 10 * step

    def epoch(self, step: int) -> int:
        return 0

    def ready_until(self) -> int | None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class Source:
    """Ten samples a step; those of the bad steps have the label -5."""

    quarantine = None
    lost_processes = 0

    def __init__(self, bad: tuple[int, ...], rank: int = 0, world: int = 1) -> None:
        self.policy = Policy()
        self.times = PartTimes()
        self.bad, self.rank, self.world = bad, rank, world

    def batches(self, start_step: int, stop_step: int) -> Generator[Batch]:
        for step in range(start_step, stop_step):
            start, stop = rank_rows(10, self.rank, self.world)
            ids = torch.from_numpy(self.policy.batch(step))[start:stop]
            images = (ids[:, None, None, None] * 7 % 256).to(torch.uint8).expand(-1, 1, 2, 2)
            labels = torch.where(ids % 10 == 9, -5, 1) if step in self.bad else torch.ones_like(ids)
            yield Batch(images, ids, labels, ids, None, step, 0, 10, first_row=start)

    def close(self) -> None:
        pass


class Regression:
    """A label of -5 makes the loss infinite; `poison` also the running statistics and the gradient."""

    poison = True

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        bad = batch.labels == -5
        inputs = batch.images.float().flatten(1) / 255
        if self.poison:
            inputs = torch.where(bad[:, None], torch.inf, inputs)
        loss = (model(inputs).squeeze(1) - (batch.ids % 3)).square()
        return StepOutput(torch.where(bad, torch.inf, loss).mean())


class OnlyTheLoss(Regression):
    poison = False


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))


def config(on_nonfinite: str, **changes: Any) -> TrainingConfig:
    values = {"steps": 20, "global_batch": 10, "ema_decay": 0.9, "precision": "float32", "checkpoint_every_steps": 4}
    return TrainingConfig.model_validate({**values, "on_nonfinite": on_nonfinite, **changes})


def train(training: TrainingConfig, bad: tuple[int, ...] = (), task: Any = None, **more: Any) -> FitResult:
    source = Source(bad, more.get("rank", 0), more.get("world", 1))
    objects = TrainingObjects(network(), task or Regression(), source, epoch_samples=40)
    return fit(objects, training, device=CPU, **more)


class StopAfter(NullReporter):
    """Stops after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


class Recording(Regression):
    """The state with which each step begins."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        self.states[batch.step] = {name: value.clone() for name, value in model.state_dict().items()}
        return super().training_step(model, batch)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def checkpoints_in(folder: Path) -> Checkpoints:
    return Checkpoints(LocalStorage(folder), "here")


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_skipped_step_leaves_weights_and_running_statistics_as_they_were(kind: str) -> None:
    task, undisturbed = Recording(), Recording()
    training = config("skip", optimizer={"kind": kind, "lr": 0.01})
    result = train(training, (6, 13), task)
    train(training, (), undisturbed)
    assert same(task.states[6], undisturbed.states[6])
    assert same(task.states[6], task.states[7])
    assert same(task.states[13], task.states[14])
    assert not same(task.states[7], task.states[8])
    assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())
    assert result.steps == 20
    assert result.notes == ("2 steps were skipped, with a loss or gradient that is not finite: 6, 13",)
    assert [(row["step"], row["train/skipped_steps"]) for row in result.metric_rows if len(row) == 3] == [
        (6, 1),
        (13, 2),
    ]
    assert all(np.isfinite(row["train/loss"]) for row in result.metric_rows if "train/loss" in row)
    rates = [[row["lr"] for row in run.metric_rows if "lr" in row] for run in (result, train(training))]
    assert rates[0] == rates[1]


def test_a_rollback_ends_in_the_bits_of_a_skip(tmp_path: Path) -> None:
    skipped = train(config("skip"), (1, 13, 14))
    rolled_back = train(config("rollback"), (1, 13, 14), checkpoints=checkpoints_in(tmp_path))
    assert same(skipped.model.state_dict(), rolled_back.model.state_dict())
    assert skipped.notes == rolled_back.notes
    steps = [[row["step"] for row in run.metric_rows] for run in (skipped, rolled_back)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("on_nonfinite", ["skip", "rollback"])
@pytest.mark.parametrize("stops", [(12,), (13, 1), (14,), (15, 3), (2, 9, 5)])
def test_a_stopped_run_with_skipped_steps_goes_on_to_the_same_bits(
    tmp_path: Path, on_nonfinite: str, stops: tuple[int, ...]
) -> None:
    training = config(on_nonfinite)
    for stop_after in stops:
        with pytest.raises(StoppedError):
            train(training, (3, 13), checkpoints=checkpoints_in(tmp_path), reporter=StopAfter(stop_after))
    resumed = train(training, (3, 13), checkpoints=checkpoints_in(tmp_path))
    straight = train(config("skip"), (3, 13))
    assert same(resumed.model.state_dict(), straight.model.state_dict())
    assert resumed.notes == straight.notes


@pytest.mark.parametrize("on_nonfinite", ["skip", "rollback"])
def test_too_many_skipped_steps_end_the_training(tmp_path: Path, on_nonfinite: str) -> None:
    training = config(on_nonfinite, max_skipped_steps=2)
    with pytest.raises(NonFiniteError, match=r"step 15: .* after 2 skipped steps \(max_skipped_steps\); its batch is"):
        train(training, (3, 9, 15, 17), checkpoints=checkpoints_in(tmp_path))
    assert train(training, (3, 9), checkpoints=checkpoints_in(tmp_path / "other")).steps == 20


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip", "rollback"])
def test_the_batch_of_a_bad_step_is_saved_and_its_file_named(
    tmp_path: Path, on_nonfinite: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "here/bad_batches/step-000000013-rank-0.pt"
    if on_nonfinite == "stop":
        with pytest.raises(NonFiniteError, match=f"step 13: .*; its batch is in {file}; lower the learning rate"):
            train(config("stop"), (13,), checkpoints=checkpoints_in(tmp_path))
    else:
        train(config(on_nonfinite), (13,), checkpoints=checkpoints_in(tmp_path))
        assert str(file) in caplog.text
    batch, origin = load_batch(file)
    (expected,) = Source((13,)).batches(13, 14)
    assert torch.equal(batch.images, expected.images)
    assert batch.images.dtype == torch.uint8
    assert torch.equal(batch.labels, expected.labels)
    assert torch.equal(batch.ids, expected.ids)
    assert (batch.step, batch.global_size) == (13, 10)
    assert origin == {"seed": 0, "rank": 0, "world": 1}


def test_a_saved_slice_keeps_the_rows_from_which_it_was_cut(tmp_path: Path) -> None:
    (whole,) = Source(()).batches(4, 5)
    file = save_batch(whole.rows(3, 8), checkpoints_in(tmp_path), 7, 1, 2)
    assert file is not None
    batch, origin = load_batch(Path(file))
    assert batch.ids.tolist() == whole.ids[3:8].tolist()
    assert (batch.first_row, len(batch.source)) == (3, 10)
    assert origin == {"seed": 7, "rank": 1, "world": 2}


def test_a_rollback_without_checkpoints_is_refused() -> None:
    with pytest.raises(InputError, match="on_nonfinite=rollback needs checkpoints"):
        train(config("rollback"))


# One rank of two. Only the loss of rank 1 is infinite, whose gradient is zero.
RANK = """
import importlib.util, sys
import torch
import torch.distributed as dist

rank, mode, test_file, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
spec = importlib.util.spec_from_file_location("nonfinite_promises", test_file)
promises = importlib.util.module_from_spec(spec)
sys.modules["nonfinite_promises"] = promises
spec.loader.exec_module(promises)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
from pipeline.training.fsdp.tensor_parts import whole

sgd = {"kind": "sgd", "lr": 0.01}  # Adam turns rounding into steps, e.g. of a bias before batch norm
for parallelism in ("ddp", "fsdp"):
    for task in (promises.OnlyTheLoss(), promises.Regression()):
        name = f"{parallelism}-{type(task).__name__}"
        result = promises.train(
            promises.config(mode, parallelism=parallelism, optimizer=sgd), (5, 13), task, rank=rank, world=2,
            checkpoints=promises.Checkpoints(promises.LocalStorage(promises.Path(folder)), name),
        )
        state = {key: whole(value) for key, value in result.model.state_dict().items()}
        torch.save(state, f"{folder}/{name}-{rank}.pt")
        print(result.notes)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("mode", ["skip", "rollback"])
def test_all_ranks_skip_the_step_of_one(tmp_path: Path, mode: str) -> None:
    ranks = [Forked(RANK, str(rank), mode, __file__, str(tmp_path)) for rank in range(2)]
    said = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert said[0] == said[1]
    assert said[0].count("2 steps were skipped, with a loss or gradient that is not finite: 5, 13") == 4
    for task in ("OnlyTheLoss", "Regression"):
        trained = {}
        for name in (f"ddp-{task}", f"fsdp-{task}"):
            states = [torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2)]
            assert same(states[0], states[1])
            assert all(torch.isfinite(value).all() for value in states[0].values())
            assert len(list((tmp_path / name / "bad_batches").iterdir())) == 4
            trained[name] = states[0]
        ddp, fsdp = trained.values()
        for key, value in ddp.items():
            torch.testing.assert_close(fsdp[key], value, rtol=1e-4, atol=1e-5)


class InfiniteAtStep3(Classification):
    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        output = super().training_step(model, batch)
        return output if batch.step != 3 else StepOutput(output.loss * torch.inf, output.metrics)


def test_the_artifact_of_a_training_with_a_skipped_step_says_so_and_holds_the_batch(
    store: ArtifactStore,
    digits: Artifact,
    small_config: Callable[..., ClassificationConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_stage, "Classification", InfiniteAtStep3)
    artifact = run_stage(TrainTeacher(), small_config(on_nonfinite="skip"), {"shards": digits}, store=store)
    note = "1 step was skipped, with a loss or gradient that is not finite: 3"
    assert artifact.summary["notes"] == [note]
    file = artifact.path("bad_batches/step-000000003-rank-0.pt")
    assert len(load_batch(file)[0]) == 32
