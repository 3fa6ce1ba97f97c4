"""Synchronised batch norm on one rank; test_running_statistics.py has it in trainings on two."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pipeline.config import canonical_json
from pipeline.errors import InputError
from pipeline.training.synced_batch_norm import CpuSyncBatchNorm, with_synced_batch_norm
from pipeline.training.training_config import TrainingConfig

CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (7, 3)])
def test_on_one_rank_it_is_batch_norm(shape: tuple[int, ...], affine: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    # As under autocast, a bfloat16 input has float32 weights.
    plain = norm(3, affine=affine, dtype=torch.promote_types(dtype, torch.float32))
    if affine:
        nn.init.uniform_(plain.weight)
        nn.init.uniform_(plain.bias)
    synced = with_synced_batch_norm(copy.deepcopy(plain), CPU)
    assert isinstance(synced, CpuSyncBatchNorm)
    values = (torch.randn(shape) * 3 + 100).to(dtype)
    upstream = torch.randn(shape).to(dtype)
    outputs, gradients = [], []
    for module in (plain, synced):
        given = values.clone().requires_grad_()
        output = module(given)
        output.backward(upstream)
        outputs.append(output)
        gradients.append([given.grad, *(parameter.grad for parameter in module.parameters())])
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype != torch.bfloat16 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(outputs[1], outputs[0], **tolerance)
    for ours, expected in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(ours, expected, **tolerance)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(synced.state_dict()[name], value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(synced.eval()(values), plain.eval()(values))


def test_a_batch_norm_that_does_more_than_torchs_is_refused() -> None:
    class WithActivation(nn.BatchNorm2d):
        pass

    with pytest.raises(InputError, match=r"sync_batch_norm: 1 of the model is a WithActivation"):
        with_synced_batch_norm(nn.Sequential(nn.BatchNorm2d(2), WithActivation(2)), CPU)


def test_a_rank_without_a_row_for_each_micro_batch_is_refused() -> None:
    training = TrainingConfig(global_batch=9, accumulation=3, sync_batch_norm=True)
    training.check_workers(3)
    with pytest.raises(InputError, match="2 rows of global_batch=9 for accumulation=3"):
        training.check_workers(4)
    TrainingConfig(global_batch=9, accumulation=3).check_workers(4)


def test_keys_from_before_it_are_unchanged() -> None:
    assert "sync_batch_norm" not in canonical_json(TrainingConfig())
