"""Auxiliary heads learn the label beside the net's own head, in training and in distillation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model_defs import create_model
from model_defs.auxiliary import AuxiliaryLogits
from pipeline.artifacts import Artifact
from pipeline.distillation.config import DistillationConfig
from pipeline.distillation.loss_config import DistillationLossConfig, Method
from pipeline.distillation.task import Distillation
from pipeline.distillation.teacher import FrozenTeacher
from pipeline.errors import InputError
from pipeline.loading.batch import Batch
from pipeline.preprocessing import Preprocessing
from pipeline.training.classification import Classification
from pipeline.training.mixing import draw_mix
from pipeline.training.mixing_config import MixingConfig

PREPROCESSING = Preprocessing(image_size=4, channels=1, mean=(0.5,), std=(0.5,))
WEIGHT = 0.3


class ThreeHeads(nn.Module):
    """Pixels 0 to 8 as the logits of three heads, moved by a bias each; the own head alone if asked."""

    def __init__(self, auxiliary: bool = True) -> None:
        super().__init__()
        self.auxiliary = auxiliary
        self.bias = nn.Parameter(torch.zeros(3, 3))

    def forward(self, x: Tensor) -> Tensor | AuxiliaryLogits:
        own, *others = (x.flatten(1)[:, 3 * index : 3 * index + 3] + self.bias[index] for index in range(3))
        return AuxiliaryLogits(own, tuple(others), WEIGHT) if self.auxiliary else own


@pytest.fixture
def batch() -> Batch:
    images = torch.randint(0, 256, (4, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(4)
    return Batch(images, ids, torch.tensor([0, 2, 1, 2]), ids, None, 3, 0, 4)


def cross_entropies(images: Tensor, labels: Tensor, smoothing: float) -> list[Tensor]:
    """Of the three heads at the start, by the definition."""
    pixels = ((images.float() / 255 - 0.5) / 0.5).flatten(1)
    targets = F.one_hot(labels, 3) * (1 - smoothing) + smoothing / 3
    heads = [pixels[:, start : start + 3] for start in (0, 3, 6)]
    return [-(targets * (head.exp() / head.exp().sum(1, keepdim=True)).log()).sum() / len(labels) for head in heads]


def test_the_loss_is_the_own_heads_and_the_weighted_sum_of_the_others(batch: Batch) -> None:
    output = Classification(PREPROCESSING, smoothing=0.1).training_step(ThreeHeads(), batch)
    own, *others = cross_entropies(batch.images, batch.labels, 0.1)
    torch.testing.assert_close(output.loss, own + WEIGHT * (others[0] + others[1]))
    alone = Classification(PREPROCESSING, smoothing=0.1).training_step(ThreeHeads(auxiliary=False), batch)
    torch.testing.assert_close(alone.loss, own)
    assert output.metrics == alone.metrics


def test_auxiliary_heads_see_the_mixed_labels_too(batch: Batch) -> None:
    mixing = MixingConfig(mixup=1.0)
    mix = draw_mix(mixing, 1, batch.step)
    assert mix is not None
    pixels, labels = batch.images.float(), batch.labels[[1, 0, 3, 2]]
    mixed = mix.weight * pixels + (1 - mix.weight) * pixels[[1, 0, 3, 2]]
    first, second = (cross_entropies(mixed, which, 0.0) for which in (batch.labels, labels))
    own, *others = (mix.weight * a + (1 - mix.weight) * b for a, b in zip(first, second, strict=True))
    loss = Classification(PREPROCESSING, mixing=mixing, seed=1).training_step(ThreeHeads(), batch).loss
    torch.testing.assert_close(loss, own + WEIGHT * (others[0] + others[1]))


@pytest.mark.parametrize("method", ["soft", "hard"])
def test_a_teacher_teaches_the_own_head_and_the_label_all(method: Method, batch: Batch) -> None:
    class Backwards(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, [2, 1, 0]]

    teacher = FrozenTeacher(Backwards(), PREPROCESSING, torch.device("cpu"))
    task = Distillation(teacher, PREPROCESSING, DistillationLossConfig(method=method), smoothing=0.1)
    with_heads, without = ThreeHeads(), ThreeHeads(auxiliary=False)
    output, alone = task.training_step(with_heads, batch), task.training_step(without, batch)
    others = cross_entropies(batch.images, batch.labels, 0.1)[1:]
    torch.testing.assert_close(output.loss, alone.loss + WEIGHT * (others[0] + others[1]))
    assert output.metrics == alone.metrics
    output.loss.backward()
    alone.loss.backward()
    torch.testing.assert_close(with_heads.bias.grad[0], without.bias.grad[0])


def test_auxiliary_heads_are_no_distillation_token(digits: Artifact) -> None:
    values = {"model": {"name": "googlenet"}, "image_size": 32, "channels": 1, "loader": {"augment": None}}
    with pytest.raises(InputError, match=r"'googlenet' has no distillation token; set .*=soft or hard"):
        DistillationConfig.model_validate(values).check(digits)
    DistillationConfig.model_validate({**values, "distillation": {"method": "soft"}}).check(digits)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("ways", [{}, {"find_unused_parameters": True}, {"static_graph": True}])
def test_auxiliary_logits_pass_through_distributed_training(ways: dict[str, bool]) -> None:
    torch.manual_seed(0)
    model = create_model("googlenet", num_classes=3, img_size=31).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images = torch.randn(2, 3, 31, 31)
    alone = model(images)
    distributed = DistributedDataParallel(model, **ways)  # the backward pass needs it alive
    outputs = distributed(images)
    assert isinstance(outputs, AuxiliaryLogits)
    torch.testing.assert_close(outputs, alone)
    (outputs.logits.sum() + outputs.weight * sum(logits.sum() for logits in outputs.auxiliary)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
