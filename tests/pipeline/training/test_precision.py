"""float16 with a scaled loss, TF32 and memory formats: what they change, and where they are refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import canonical_json
from pipeline.errors import InputError, WorkError
from pipeline.exported_model import ExportedModel
from pipeline.loading.batch import Batch
from pipeline.loading.part_times import PartTimes
from pipeline.stage import run_stage
from pipeline.storage.local import LocalStorage
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.interruption import StoppedError
from pipeline.training.loop import FitResult, fit
from pipeline.training.precision import LossScale, tf32_as_configured
from pipeline.training.reporter import NullReporter
from pipeline.training.stage import TrainTeacher
from pipeline.training.task import StepOutput, TrainingObjects
from pipeline.training.training_config import TrainingConfig
from pipeline.training.worker import CheckpointLocation

BuildConfig = Callable[..., ClassificationConfig]
CPU = torch.device("cpu")


class Policy:
    global_batch, version = 8, 0

    def batch(self, step: int) -> Any:
        return np.arange(8) + step

    def epoch(self, step: int) -> int:
        return 0

    def ready_until(self) -> int | None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class Source:
    policy, quarantine, lost_processes, times = Policy(), None, 0, PartTimes()

    def batches(self, start_step: int, stop_step: int) -> Generator[Batch]:
        for step in range(start_step, stop_step):
            ids = torch.from_numpy(self.policy.batch(step))
            images = (ids[:, None, None, None] % 13).to(torch.uint8).expand(-1, 1, 2, 2)
            yield Batch(images, ids, ids % 3, ids, None, step, 0, 8)

    def close(self) -> None:
        pass


class Regression:
    """Fits the remainder by 3; at the steps in `overflowing` the gradient is too large for float16."""

    def __init__(self, overflowing: set[int] = set()) -> None:  # noqa: B006
        self.overflowing = overflowing

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        outputs = model(batch.images.float().flatten(1) / 13).squeeze(1)
        loss: Tensor = 0.01 * (outputs - batch.labels).float().square().mean()
        if batch.step in self.overflowing:
            loss.register_hook(lambda gradient: gradient * math.inf)
        return StepOutput(loss)


def training(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "steps": 12,
            "global_batch": 8,
            "ema_decay": 0.9,
            "precision": "float16",
            "log_every_steps": 1,
            "optimizer": {"kind": "adamw", "lr": 0.01},
            **changes,
        }
    )


def trained(config: TrainingConfig, task: Regression | None = None, **more: Any) -> FitResult:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
    objects = TrainingObjects(model, task or Regression(), Source(), epoch_samples=40)
    return fit(objects, config, device=CPU, **more)


class StopAt(NullReporter):
    def __init__(self, calls: int) -> None:
        self.left = calls

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


def losses(result: FitResult) -> list[float]:
    return [row["train/loss"] for row in result.metric_rows]


def test_float16_trains_as_float32_does() -> None:
    half, single = trained(training(), Regression()), trained(training(precision="float32"))
    assert half.metric_rows[-1]["train/overflowed_steps"] == 0
    assert half.metric_rows[-1]["train/gradient_norm"] == pytest.approx(
        single.metric_rows[-1]["train/gradient_norm"], rel=0.05
    )
    assert losses(half) == pytest.approx(losses(single), rel=0.02)
    assert losses(half) != losses(single)


def test_a_step_whose_gradient_overflows_is_skipped_counted_and_halves_the_scale() -> None:
    rows = trained(training(), Regression({4, 5})).metric_rows
    assert [row["train/overflowed_steps"] for row in rows] == [0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 2]
    assert rows[3]["train/loss_scale"] == 4 * rows[5]["train/loss_scale"] == 65536
    assert all(math.isfinite(row["train/loss"]) and math.isfinite(row["train/gradient_norm"]) for row in rows)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_skipped_step_changes_no_weight_and_no_state_of_the_optimiser(kind: str) -> None:
    config = training(optimizer={"kind": kind, "lr": 0.01}, clip_norm=0.5)
    parameter = nn.Parameter(torch.ones(3))
    from pipeline.training.optim import build_optimizer

    module = nn.Module()
    module.weight = parameter
    optimizer, scale = build_optimizer(module, config.optimizer), LossScale(config, CPU)
    for factor in (1.0, math.inf, 1.0):
        before = parameter.detach().clone()
        scale.scaled((parameter * factor).sum()).backward()
        scale.unscale(optimizer)
        assert parameter.grad is not None
        scale.checked(parameter.grad.norm())
        scale.step(optimizer)
        optimizer.zero_grad()
        assert torch.equal(before, parameter) == math.isinf(factor)
    assert scale.numbers() == {"train/loss_scale": 32768.0, "train/overflowed_steps": 1}
    if kind == "adamw":
        assert float(optimizer.state[parameter]["step"]) == 2


def test_a_stopped_float16_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    task = Regression({1, 6})
    checkpoints = Checkpoints(LocalStorage(tmp_path), "here")
    for stop_after in (3, 4):
        with pytest.raises(StoppedError):
            trained(training(), task, checkpoints=checkpoints, reporter=StopAt(stop_after))
    resumed, straight = trained(training(), task, checkpoints=checkpoints), trained(training(), task)
    for one, other in zip(resumed.model.state_dict().values(), straight.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    names = ("train/overflowed_steps", "train/loss_scale")
    assert [[row[name] for name in names] for row in resumed.metric_rows] == [
        [row[name] for name in names] for row in straight.metric_rows
    ]


def test_gradients_that_overflow_at_every_scale_end_the_training() -> None:
    with pytest.raises(WorkError, match="float16: gradients overflow at any scale"):
        trained(training(steps=40), Regression(set(range(40))))


def test_a_loss_that_is_not_finite_is_an_error_in_float16_too() -> None:
    class Broken(Regression):
        def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
            output = super().training_step(model, batch)
            return StepOutput(output.loss * math.inf) if batch.step == 3 else output

    with pytest.raises(WorkError, match="step 3: the loss or its gradient"):
        trained(training(), Broken())


def test_two_ranks_train_in_float16_what_one_trains(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, train_ranks: Callable[..., CheckpointLocation]
) -> None:
    config = small_config(precision="float16", optimizer={"kind": "sgd", "lr": 0.05}, model={
        "name": "vit_micro", "kwargs": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2}
    })  # fmt: skip
    shared = train_ranks(store, config, 2).open().newest()
    alone = run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    assert shared is not None
    for name, value in ExportedModel.open(alone).weights().items():
        torch.testing.assert_close(shared.tensors["average"][name], value, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("channels_last", ["yes", "no"])
def test_a_memory_format_changes_rounding_only(
    store: ArtifactStore, other_store: ArtifactStore, digits: Artifact, small_config: BuildConfig, channels_last: str
) -> None:
    weights = []
    for where, value in ((store, "auto"), (other_store, channels_last)):
        config = small_config(
            model={"name": "resnet_small", "kwargs": {"widths": [8, 16], "depths": [1, 1]}},
            steps=8,
            channels_last=value,
            optimizer={"kind": "sgd", "lr": 0.05},
        )
        shards = where.resolve(digits.name)
        exported = ExportedModel.open(run_stage(TrainTeacher(), config, {"shards": shards}, store=where))
        weights.append(exported.weights())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels_last", ["yes", "no"])
def test_every_call_gets_images_of_the_memory_format(channels_last: str) -> None:
    from pipeline.training.memory_format import set_memory_format

    seen: list[bool] = []
    net = nn.Sequential(nn.Conv2d(2, 2, 3))
    net[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    set_memory_format(net, channels_last)  # type: ignore[arg-type]
    images = torch.randn(2, 2, 5, 5)
    for given in (images, images.contiguous(memory_format=torch.channels_last)):
        net(given)
    assert seen == [channels_last == "yes"] * 2


def test_tf32_is_set_for_the_training_only() -> None:
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    for value, wanted in (("yes", (True, True)), ("no", (False, False)), ("auto", before)):
        with tf32_as_configured(training(tf32=value)):
            assert (products.allow_tf32, convolutions.allow_tf32) == wanted
        assert (products.allow_tf32, convolutions.allow_tf32) == before


def test_tf32_is_refused_on_a_device_without_it(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    config = small_config(tf32="yes", runner={"use_gpu": "no"})
    with pytest.raises(InputError, match="tf32=yes: a CPU has no TF32"):
        run_stage(TrainTeacher(), config, {"shards": digits}, store=store)


def test_keys_of_configs_without_the_new_fields_stay_valid() -> None:
    text = canonical_json(TrainingConfig())
    assert not any(name in text for name in ("tf32", "channels_last", "compile", "gradient_checkpointing"))
