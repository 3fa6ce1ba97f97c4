"""The one loop on a GPU: it trains what the CPU trains, in bfloat16 too, and goes on where it was stopped."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import WorkError
from pipeline.exported_model import ExportedModel
from pipeline.loading.batch import Batch
from pipeline.loading.part_times import PartTimes
from pipeline.registration.program import write_programs
from pipeline.stage import run_stage
from pipeline.storage.local import LocalStorage
from pipeline.training.checkpoint import Checkpoint, Checkpoints
from pipeline.training.classification import Classification
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.data_parallel import check_same_step, wrap_in_ddp
from pipeline.training.ema import WeightAverage
from pipeline.training.gradient import backward, clip_gradient
from pipeline.training.interruption import StoppedError
from pipeline.training.loop import fit
from pipeline.training.meter import Meter
from pipeline.training.optim import build_optimizer
from pipeline.training.precision import LossScale
from pipeline.training.reporter import NullReporter
from pipeline.training.stage import ClassificationRecipe, TrainTeacher
from pipeline.training.task import StepOutput, TrainingObjects
from pipeline.training.training_config import TrainingConfig
from pipeline.training.worker import CheckpointLocation, train_recipe

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("without_tf32")]

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
BuildConfig = Callable[..., ClassificationConfig]
BuildObjects = Callable[[ClassificationConfig, torch.device], TrainingObjects]
Start = Callable[[ArtifactStore, ClassificationConfig], subprocess.Popen[str]]

EVERY_CHANGE = {"flip": 0.5, "erase": 0.5, "rand_augment": {"layers": 2}, "scale_jitter": [1.1, 1.6]}
MILD = {"flip": 0.1, "erase": 0.2, "rand_augment": {"layers": 1}}
# No dropout: a GPU draws other random numbers than a CPU.
STEADY_VIT = {"name": "vit_micro", "kwargs": {"patch_size": 4, "width": 32, "depth": 2, "heads": 2}}
CONVOLUTIONS = {"name": "resnet_small", "kwargs": {"widths": [8, 16], "depths": [1, 1]}}
MODELS = [pytest.param(STEADY_VIT, id="transformer"), pytest.param(CONVOLUTIONS, id="convolutions")]


@pytest.fixture
def build_objects(store: ArtifactStore, digits: Artifact) -> BuildObjects:
    """Builds the arguments of the loop on a device."""

    def build(config: ClassificationConfig, device: torch.device) -> TrainingObjects:
        torch.manual_seed(0)
        return ClassificationRecipe(config, store.storage.url, digits.name).build(device, 0, 1)

    return build


def trained(
    objects: TrainingObjects, config: ClassificationConfig, device: torch.device, **more: Any
) -> dict[str, Any]:
    """The state after training, on the CPU, and the rows, by the loop alone."""
    result = fit(objects, config.training, device=device, **more)
    return {
        "state": {name: value.cpu() for name, value in result.model.state_dict().items()},
        "rows": result.metric_rows,
    }


def losses(rows: list[dict[str, Any]]) -> list[float]:
    return [row["train/loss"] for row in rows if "train/loss" in row]


def assert_near(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor's distance is small beside the tensor (and beside what is nearly zero)."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        distance = float((value.double() - other[name].double()).norm())
        assert distance <= tolerance * (float(value.double().norm()) + 0.1), (name, distance)


@pytest.mark.parametrize("model", MODELS)
def test_a_classifier_learns_in_bfloat16_from_images_that_are_varied_on_the_gpu(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, model: dict[str, Any]
) -> None:
    config = small_config(
        model=model,
        loader={"augment": MILD, "copies": 2},
        mixing={"mixup": 0.8, "cutmix": 1.0, "probability": 0.2},
        steps=400,
        global_batch=64,
        accumulation=2,
        clip_norm=0.5,
        precision="auto",
        evaluate_every_epochs=5,
        optimizer={"kind": "adamw", "lr": 4e-3},
    )
    artifact = run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    run_info = json.loads(artifact.read("training.json"))
    rows = [json.loads(line) for line in artifact.read("metrics.jsonl").decode().splitlines()]
    assert run_info["device"] == torch.cuda.get_device_name(GPU)
    assert losses(rows)[-1] < 0.9 * losses(rows)[0]
    measured = [row["val/loss"] for row in rows if "val/loss" in row]
    assert measured[-1] < 0.75 * measured[0]
    assert artifact.summary["val_accuracy"] > 0.4
    weights = ExportedModel.open(artifact).weights()
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("model", MODELS)
def test_a_gpu_trains_what_a_cpu_trains(
    build_objects: BuildObjects, small_config: BuildConfig, model: dict[str, Any]
) -> None:
    """The same seed: initial weights, order, views, mixtures, average; in float32, so only rounding differs."""
    config = small_config(
        model=model,
        loader={"augment": EVERY_CHANGE},
        mixing={"mixup": 0.8, "cutmix": 1.0},
        steps=12,
        accumulation=2,
        clip_norm=0.5,
        log_every_steps=1,
        optimizer={"kind": "sgd", "lr": 0.05},
    )
    on_cpu, on_gpu = (
        trained(objects, config, device, evaluate=objects.evaluate)
        for device in (CPU, GPU)
        for objects in [build_objects(config, device)]
    )
    assert losses(on_gpu["rows"]) == pytest.approx(losses(on_cpu["rows"]), rel=2e-3)
    assert_near(on_cpu["state"], on_gpu["state"], 5e-3)
    last_of_both = [run["rows"][-1] for run in (on_cpu, on_gpu)]
    assert last_of_both[0]["val/loss"] == pytest.approx(last_of_both[1]["val/loss"], rel=5e-3)


def test_bfloat16_is_near_float32(build_objects: BuildObjects, small_config: BuildConfig) -> None:
    runs = []
    for precision in ("float32", "bfloat16", "auto"):
        config = small_config(model=STEADY_VIT, precision=precision, steps=40, log_every_steps=8)
        runs.append(losses(trained(build_objects(config, GPU), config, GPU)["rows"]))
    assert runs[1] == pytest.approx(runs[0], rel=0.05)
    assert runs[1] != runs[0]
    assert runs[2] == pytest.approx(runs[1], rel=1e-3)


class StopAfter(NullReporter):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_stopped_run_goes_on_to_the_same_result(
    tmp_path: Path, build_objects: BuildObjects, small_config: BuildConfig, kind: str
) -> None:
    """With dropout: the GPU's random numbers are those of the step too."""
    config = small_config(loader={"augment": EVERY_CHANGE}, optimizer={"kind": kind, "lr": 0.01})
    checkpoints = Checkpoints(LocalStorage(tmp_path / "checkpoints"), "here")
    for stop_after in (7, 8):
        with pytest.raises(StoppedError):
            trained(build_objects(config, GPU), config, GPU, checkpoints=checkpoints, reporter=StopAfter(stop_after))
    resumed = trained(build_objects(config, GPU), config, GPU, checkpoints=checkpoints)
    straight = trained(build_objects(config, GPU), config, GPU)
    # Some kernels add in any order, so not to the bit.
    assert_near(straight["state"], resumed["state"], 1e-4)
    # A row in which it stopped tells the mean of the steps since.
    assert losses(resumed["rows"])[-1] == pytest.approx(losses(straight["rows"])[-1], rel=1e-4)


def test_a_run_that_a_gpu_began_ends_on_a_machine_without_one(
    store: ArtifactStore,
    digits: Artifact,
    small_config: BuildConfig,
    build_objects: BuildObjects,
    child_training: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = small_config(model=CONVOLUTIONS, steps=30, checkpoint_every_steps=5, evaluate_every_epochs=0)
    straight = trained(build_objects(config, GPU), config, GPU)
    whole = Classification.training_step

    def cut(self: Classification, model: nn.Module, batch: Batch) -> StepOutput:
        if batch.step == 22:
            raise ConnectionError("the power went")
        return whole(self, model, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Classification, "training_step", cut)
        with pytest.raises(ConnectionError):
            run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    child = child_training(store, config)
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 0, said
    artifact = store.resolve(said.split()[-1])  # built train-teacher/KEY
    run_info = json.loads(artifact.read("training.json"))
    assert (run_info["device"], run_info["steps"]) == ("cpu", 30)
    assert_near(straight["state"], ExportedModel.open(artifact).weights(), 5e-3)


def test_a_model_from_a_gpu_is_exported_and_predicts_the_same_on_a_cpu(
    tmp_path: Path, store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    config = small_config(model=CONVOLUTIONS, precision="auto", steps=40)
    exported = ExportedModel.open(run_stage(TrainTeacher(), config, {"shards": digits}, store=store))
    pixels = torch.randint(0, 256, (9, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        on_cpu = exported.build()(exported.preprocessing.normalise(pixels))
        on_gpu = exported.build().to(GPU)(exported.preprocessing.normalise(pixels.to(GPU))).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-4)
    (name,) = write_programs(exported, tmp_path)
    program: Any = torch.export.load(tmp_path / f"{name}.pt2").module()
    torch.testing.assert_close(program(pixels), on_cpu, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_a_step_does_not_wait_for_the_gpu(
    build_objects: BuildObjects, small_config: BuildConfig, model: dict[str, Any], no_waiting: Any
) -> None:
    """So that the CPU prepares the next step meanwhile; only rows and checkpoints wait."""
    config = small_config(
        model=model,
        loader={"augment": EVERY_CHANGE},
        mixing={"mixup": 0.8, "cutmix": 1.0},
        accumulation=2,
        precision="auto",
    )
    objects, training = build_objects(config, GPU), config.training
    optimizer, meter = build_optimizer(objects.model, training.optimizer), Meter(GPU, 1, PartTimes())
    average = WeightAverage(objects.model, 0.9)
    objects.model.train()
    for batch in objects.loader.batches(0, 4):
        with no_waiting(batch.step):
            meter.start_step()
            backward(objects.task, objects.model, batch.to(GPU), training, 1, meter, LossScale(training, GPU))
            meter.add_step(clip_gradient(objects.model, training.clip_norm))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(batch.step)
    assert meter.drain()["train/loss"] > 0


def test_a_loss_that_is_not_finite_is_told_with_its_step_at_the_next_row(
    build_objects: BuildObjects, small_config: BuildConfig
) -> None:
    config = small_config(log_every_steps=10)
    objects = build_objects(config, GPU)

    class Broken(Classification):
        def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
            output = super().training_step(model, batch)
            return StepOutput(output.loss * (float("inf") if batch.step == 6 else 1.0), output.metrics)

    objects.task = Broken(config.preprocessing())
    with pytest.raises(WorkError, match="step 6: the loss or its gradient"):
        trained(objects, config, GPU)


@pytest.fixture
def nccl(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/group", rank=0, world_size=1, device_id=GPU)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("nccl")
@pytest.mark.parametrize("model", MODELS)
def test_distributed_training_over_nccl_is_training(
    build_objects: BuildObjects, small_config: BuildConfig, model: dict[str, Any]
) -> None:
    config = small_config(model=model, accumulation=2, ema_decay=None, optimizer={"kind": "sgd", "lr": 0.05})
    alone = trained(build_objects(config, GPU), config, GPU)
    objects = build_objects(config, GPU)
    check_same_step(0, GPU)
    objects.model = wrap_in_ddp(objects.model, GPU)
    assert isinstance(objects.model, DistributedDataParallel)
    shared = trained(objects, config, GPU)
    state = {name.removeprefix("module."): value for name, value in shared["state"].items()}
    assert_near(alone["state"], state, 1e-3)


@pytest.mark.usefixtures("nccl")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_divided_over_nccl_trains_and_is_restored_as_a_whole_one(tmp_path: Path, precision: str) -> None:
    """One rank has all parts; the shards, messages and files are those of several."""
    from pipeline.training.fsdp.fully_sharded import FullyShardedDataParallel
    from pipeline.training.fsdp.tensor_parts import load_optimizer, load_weights

    torch.manual_seed(0)
    whole = create_model("vit_micro", num_classes=10, img_size=32, patch_size=8, depth=2).to(GPU)
    divided, parallel = copy.deepcopy(whole), FullyShardedDataParallel(GPU, 0)
    average = parallel.average(divided, 0.9)
    assert average is not None
    config, images = TrainingConfig().optimizer, torch.randn(8, 3, 32, 32, device=GPU)
    models, optimizers = (whole, divided), (build_optimizer(whole, config), build_optimizer(divided, config))
    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model(images).float().square().mean()
            loss.backward()
            clip_gradient(model, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average.update(step)
    trained = {name: value.full_tensor() for name, value in divided.named_parameters()}
    for name, value in whole.named_parameters():
        torch.testing.assert_close(trained[name], value, rtol=1e-3, atol=1e-4)

    checkpoints = Checkpoints(LocalStorage(tmp_path / "checkpoints"), "here")
    tensors = {"model": divided.state_dict(), "optimizer": optimizers[1].state_dict()}
    writer = parallel.writer(checkpoints)
    assert writer is not None
    writer.start(Checkpoint(3, {**tensors, "average": average.module.state_dict()}, {}))
    writer.wait()
    for parameter in divided.parameters():
        parameter.data.zero_()
    found = parallel.newest(checkpoints, divided, average, optimizers[1])
    assert found is not None
    load_weights(divided, found.tensors["model"])
    load_optimizer(optimizers[1], found.tensors["optimizer"])
    for name, value in divided.named_parameters():
        assert torch.equal(value.full_tensor(), trained[name]), name


def test_two_ranks_on_one_gpu_train_what_one_trains(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, train_ranks: Callable[..., CheckpointLocation]
) -> None:
    config = small_config(model=STEADY_VIT, optimizer={"kind": "sgd", "lr": 0.05})
    recipe = ClassificationRecipe(config, store.storage.url, digits.name)
    alone = CheckpointLocation(store.storage.url, "work/alone")
    train_recipe(recipe, GPU, 0, 1, alone, NullReporter())
    # NCCL wants a GPU for each rank, gloo does not.
    shared = train_ranks(store, config, 2, "cuda")
    one, two = (location.open().newest() for location in (alone, shared))
    assert one is not None
    assert two is not None
    assert_near(one.tensors["average"], two.tensors["average"], 1e-3)
    last = [found.notes["rows"][-1]["val/loss"] for found in (one, two)]
    assert last[0] == pytest.approx(last[1], rel=1e-3)
