"""Narrow strided 1x1 convolutions train on a CPU: their memory stays whole, and their gradients are right."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.narrow_convolutions import SubsampledConvolution, subsample_narrow_convolutions
from tests.forked import Forked

# Without the guard, torch 2.14.1 ends this by "double free or corruption" or a segmentation fault (2 to 7 channels and
# more than one image on AVX2). The C library checks its heap at each call, and ends the process where it is damaged.
_REPRODUCTION = """
import torch
from torch import nn
from pipeline.training.narrow_convolutions import subsample_narrow_convolutions

for channels in (1, 3, 4, 7, 8, 15):
    for rows in (1, 2, 7):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(channels, 16, 1, stride=2, bias=False)).to(memory_format=torch.channels_last)
        subsample_narrow_convolutions(net)
        for precision, limit in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
            for _ in range(3):
                images = torch.randn(rows, channels, 16, 16).contiguous(memory_format=torch.channels_last)
                net.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
                    out = net(images)
                gradient = torch.randn_like(out)
                out.backward(gradient)
                pixels = images.double()[:, :, ::2, ::2]
                expected = torch.einsum("nohw,nihw->oi", gradient.double(), pixels)
                error = (net[0].weight.grad.double()[:, :, 0, 0] - expected).abs().max() / expected.abs().max()
                assert error < limit, (channels, rows, precision, error)
print("whole")
"""


def checking_the_heap() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc checks the heap")
def test_the_smallest_cases_leave_the_heap_whole_and_have_the_right_gradients() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _REPRODUCTION], capture_output=True, text=True, check=False, env=checking_the_heap()
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


def test_a_training_of_a_narrow_net_ends(
    store: ArtifactStore,
    digits: Artifact,
    small_config: Callable[..., ClassificationConfig],
    forked_training: Callable[[ArtifactStore, ClassificationConfig], Forked],
) -> None:
    """In a process of its own: without the guard it crashes at its first steps."""
    config = small_config(model={"name": "resnet_small", "kwargs": {"widths": [4, 8], "depths": [1, 1]}}, steps=6)
    child = forked_training(store, config)
    said = child.communicate(timeout=240)
    assert child.returncode == 0, said
    assert "built train-teacher/" in said


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"stride": (1, 3), "bias": False},
        {"stride": (2, 1), "groups": 2},
        {"stride": 2, "padding": "valid"},
    ],
)
def test_values_and_gradients_are_those_of_the_strided_convolution(options: dict[str, Any]) -> None:
    """In float64, which oneDNN does not compute."""
    torch.manual_seed(0)
    strided = nn.Sequential(nn.Conv2d(6, 4, 1, dtype=torch.float64, **options))
    other = copy.deepcopy(strided)
    subsample_narrow_convolutions(other)
    assert type(strided[0]) is nn.Conv2d
    assert type(other[0]) is SubsampledConvolution
    images = torch.randn(3, 6, 9, 8, dtype=torch.float64)
    found = []
    for net in (strided, other):
        inputs = images.clone().requires_grad_()
        out = net(inputs)
        out.square().sum().backward()
        found.append((out, inputs.grad, *(parameter.grad for parameter in net.parameters())))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-12, atol=1e-12)


def test_only_convolutions_with_that_fault_are_replaced() -> None:
    kept = [
        nn.Conv2d(16, 8, 1, stride=2),
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(4, 8, 3, stride=2),
        nn.Conv2d(4, 8, 1, stride=2, padding=1),
        nn.Conv2d(64, 64, 1, stride=2, groups=2),
    ]
    replaced = [nn.Conv2d(15, 8, 1, stride=2), nn.Conv2d(64, 64, 1, stride=2, groups=8)]
    subsample_narrow_convolutions(nn.Sequential(*kept, *replaced))
    assert {type(module) for module in kept} == {nn.Conv2d}
    assert {type(module) for module in replaced} == {SubsampledConvolution}


def test_the_exported_parameters_are_those_of_the_model() -> None:
    model = create_model("resnet_small", num_classes=3, widths=(8, 16), depths=(1, 1), img_size=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    subsample_narrow_convolutions(model)
    replaced = [name for name, module in model.named_modules() if isinstance(module, SubsampledConvolution)]
    assert replaced == ["stages.1.0.downsample.0"]
    after = copy.deepcopy(model).state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
