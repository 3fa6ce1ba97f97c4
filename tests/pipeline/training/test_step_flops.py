"""The operations of a step, and the machine's state, against what is known from elsewhere."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipeline.training.meter import step_percentiles
from pipeline.training.step_flops import image_flops, peak_tflops
from pipeline.training.system_metrics import SystemMetrics


def test_operations_are_those_written_out_and_the_model_is_unchanged() -> None:
    convolutions = [nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5)]
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(1600, 10)).train()
    before = copy.deepcopy(model.state_dict())
    counted = image_flops(model, torch.zeros(4, 1, 32, 32))
    # Multiply-adds of the forward pass: maps of 28 and of 10 pixels, then the linear layer.
    first = 28 * 28 * 6 * 25
    rest = 10 * 10 * 16 * 6 * 25 + 1600 * 10
    # The backward pass has twice as many, but the first layer needs no gradient of the images.
    assert counted == 2 * (2 * first + 3 * rest)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_takes_more_than_images_is_not_counted() -> None:
    assert image_flops(nn.Bilinear(4, 4, 2), torch.zeros(2, 4)) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-40GB", 312.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_the_peak_is_that_of_the_whole_name(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


def test_percentiles_of_steps() -> None:
    assert step_percentiles([0.001 * n for n in range(101)]) == {"time/step_ms_p50": 50.0, "time/step_ms_p95": 95.0}
    assert step_percentiles([]) == {}


def test_the_state_of_the_machine_has_the_names_of_mlflow() -> None:
    machine = SystemMetrics()
    sum(n * n for n in range(1_000_000))
    values = machine.read()
    assert 0 < values["system/cpu_utilization_percentage"] <= 100
    assert 0 < values["system/system_memory_usage_percentage"] < 100
