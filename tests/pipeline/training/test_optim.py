"""Parameter groups and the learning rate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from model_defs import create_model
from pipeline.training.optim import build_optimizer
from pipeline.training.optimizer_config import AdamWConfig, SGDConfig
from pipeline.training.training_config import TrainingConfig


def test_norms_biases_tokens_and_positions_are_not_decayed() -> None:
    model = create_model("deit_micro_distilled", num_classes=5)
    decayed, plain = build_optimizer(model, AdamWConfig(weight_decay=0.3)).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == 0.3
    assert plain["weight_decay"] == 0
    assert all(names[id(p)].endswith("weight") and p.ndim > 1 for p in decayed["params"])
    kept = {names[id(p)] for p in plain["params"]}
    assert {"cls_token", "dist_token", "pos_embed", "head.bias"} <= kept
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_frozen_parameters_cost_no_state() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    groups = build_optimizer(model, SGDConfig()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_the_learning_rate_rises_falls_by_a_cosine_and_ends_low() -> None:
    config = TrainingConfig(optimizer=AdamWConfig(lr=2.0), warmup=0.1, final_lr=0.05)
    rates = [config.learning_rate(step, 101) for step in range(101)]
    assert rates[0] == pytest.approx(2.0 / 11)
    assert rates[10] == pytest.approx(2.0)
    # Half way between the end of the warm-up and the last step stands the mean of peak and end.
    middle = 11 + (100 - 11) / 2
    share = 0.5 * (1 + math.cos(math.pi * (55 - 11) / (100 - 11)))
    assert rates[55] == pytest.approx(0.1 + 1.9 * share)
    assert rates[round(middle)] == pytest.approx(1.05, abs=0.03)
    assert rates[100] == pytest.approx(0.1)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_trainings_have_a_learning_rate(total: int) -> None:
    config = TrainingConfig(warmup=0.9)
    assert all(0 < config.learning_rate(step, total) <= config.peak_lr() for step in range(total))


def test_the_rate_scales_with_the_batch_where_a_reference_is_set() -> None:
    assert TrainingConfig(global_batch=128, optimizer=AdamWConfig(lr=5e-4)).peak_lr() == 5e-4
    scaled = TrainingConfig(global_batch=128, lr_reference_batch=512, optimizer=AdamWConfig(lr=5e-4))
    assert scaled.peak_lr() == pytest.approx(1.25e-4)


def test_steps_go_before_epochs() -> None:
    assert TrainingConfig(epochs=3, global_batch=32).total_steps(100) == 9
    assert TrainingConfig(steps=7).total_steps(100) == 7


@pytest.mark.parametrize("config", [AdamWConfig(), SGDConfig()])
def test_an_optimizer_steps_downhill(config: AdamWConfig | SGDConfig) -> None:
    model = nn.Linear(3, 1)
    optimizer = build_optimizer(model, config)
    inputs = torch.ones(4, 3)
    before = model(inputs).square().mean()
    before.backward()
    optimizer.step()
    assert model(inputs).square().mean() < before
