"""Gradient checkpointing: the bits of a training without it, from less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.stage import run_stage
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.gradient_checkpointing import checkpoint_blocks
from pipeline.training.model_blocks import model_blocks
from pipeline.training.stage import TrainTeacher
from pipeline.training.worker import CheckpointLocation
from tests.forked import Forked

BuildConfig = Callable[..., ClassificationConfig]
CONVOLUTIONS = {"name": "resnet_small", "kwargs": {"widths": [8, 16], "depths": [1, 2]}}
NETS: list[tuple[str, dict[str, Any]]] = [
    ("resnet_small", {"widths": [8, 16], "depths": [1, 2]}),
    ("vit_micro", {"img_size": 32, "width": 32, "depth": 3, "heads": 2, "drop_path": 0.3}),
    ("densenet121", {}),
    ("googlenet", {}),
    ("efficientnet_lite0", {}),
]


@pytest.mark.parametrize(("name", "kwargs"), NETS)
def test_gradients_and_running_statistics_have_the_same_bits(name: str, kwargs: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = create_model(name, num_classes=5, in_chans=3, **kwargs).train()
    less = copy.deepcopy(plain)
    checkpoint_blocks(less)
    assert list(less.state_dict()) == list(plain.state_dict())
    images = torch.randn(3, 3, 32, 32) if name != "googlenet" else torch.randn(2, 3, 64, 64)
    for step in range(2):
        for model in (plain, less):
            torch.manual_seed(step)
            outputs = model(images)
            logits = getattr(outputs, "logits", outputs)
            logits.square().mean().backward()
    for one, other in zip(plain.parameters(), less.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
    for (key, one), other in zip(plain.state_dict().items(), less.state_dict().values(), strict=True):
        assert torch.equal(one, other), key


def test_blocks_are_the_repeated_parts_of_a_network() -> None:
    with torch.device("meta"):
        nets = {
            name: create_model(name, num_classes=5)
            for name in ("resnet50", "vit_tiny_patch16_224", "vgg11_bn", "googlenet")
        }
    counts = {name: len(model_blocks(net)) for name, net in nets.items()}
    assert counts["resnet50"] == 16
    assert counts["vit_tiny_patch16_224"] == 12
    assert counts["vgg11_bn"] == 0
    assert sum(type(block).__name__ == "Branches" for block in model_blocks(nets["googlenet"])) == 9


def test_a_training_has_the_same_bits_with_average_accumulation_and_evaluation(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig, other_store: ArtifactStore
) -> None:
    weights = []
    for where, less in ((store, False), (other_store, True)):
        config = small_config(model=CONVOLUTIONS, accumulation=2, gradient_checkpointing=less)
        shards = where.resolve(digits.name)
        weights.append(ExportedModel.open(run_stage(TrainTeacher(), config, {"shards": shards}, store=where)).weights())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_it_is_not_part_of_the_key_so_a_run_without_memory_goes_on_with_it(small_config: BuildConfig) -> None:
    from pipeline.config import canonical_json

    assert canonical_json(small_config(gradient_checkpointing=True)) == canonical_json(small_config())


def test_two_ranks_train_what_they_train_without_it(
    store: ArtifactStore, other_store: ArtifactStore, digits: Artifact, small_config: BuildConfig,
    train_ranks: Callable[..., CheckpointLocation],
) -> None:  # fmt: skip
    found = []
    for where, less in ((store, False), (other_store, True)):
        config = small_config(model=CONVOLUTIONS, steps=6, sync_batch_norm=True, gradient_checkpointing=less)
        checkpoint = train_ranks(where, config, 2).open().newest()
        assert checkpoint is not None
        found.append(checkpoint.tensors["model"])
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-6, atol=1e-7)


def test_a_model_without_blocks_is_refused_before_work(
    store: ArtifactStore, digits: Artifact, small_config: BuildConfig
) -> None:
    config = small_config(model={"name": "lenet5", "kwargs": {}}, gradient_checkpointing=True)
    with pytest.raises(InputError, match="gradient_checkpointing: the model has no repeated blocks"):
        run_stage(TrainTeacher(), config, {"shards": digits}, store=store)
    with pytest.raises(InputError, match="no repeated blocks"):
        checkpoint_blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


# The largest resident set of two steps, in MB.
_CHILD = """
import sys, torch
from model_defs import create_model
from pipeline.training.gradient_checkpointing import checkpoint_blocks

def peak():  # unlike getrusage's, not that of the parent process
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

model = create_model("vit_tiny_patch16_224", num_classes=5, img_size=128).train()
if sys.argv[1] == "less":
    checkpoint_blocks(model)
model(torch.randn(1, 3, 128, 128)).sum().backward()
before = peak()
model(torch.randn(24, 3, 128, 128)).sum().backward()
print((peak() - before) // 1024)
"""


def test_activations_need_less_than_half_of_the_memory() -> None:
    used = [int(Forked(_CHILD, kind).communicate(timeout=120)) for kind in ("all", "less")]
    assert used[1] < used[0] / 2, used
