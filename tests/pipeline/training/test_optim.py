"""Parameter groups and the learning rate."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.optim import Lamb as TimmLamb
from torch import nn

from model_defs import create_model
from pipeline.errors import InputError
from pipeline.training.lamb import Lamb
from pipeline.training.optim import build_optimizer, set_learning_rate
from pipeline.training.optimizer_config import AdamWConfig, LambConfig, MuonConfig, RMSpropConfig, SGDConfig
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


def test_the_rate_scales_with_the_batch_where_a_reference_is_set() -> None:
    assert TrainingConfig(global_batch=128, optimizer=AdamWConfig(lr=5e-4)).peak_lr() == 5e-4
    scaled = TrainingConfig(global_batch=128, lr_reference_batch=512, optimizer=AdamWConfig(lr=5e-4))
    assert scaled.peak_lr() == pytest.approx(1.25e-4)


def test_steps_go_before_epochs() -> None:
    assert TrainingConfig(epochs=3, global_batch=32).total_steps(100) == 9
    assert TrainingConfig(steps=7).total_steps(100) == 7


@pytest.mark.parametrize("config", [AdamWConfig(), SGDConfig(), LambConfig(), RMSpropConfig()])
def test_an_optimizer_steps_downhill(config: Any) -> None:
    model = nn.Linear(3, 1)
    optimizer = build_optimizer(model, config)
    inputs = torch.ones(4, 3)
    before = model(inputs).square().mean()
    before.backward()
    optimizer.step()
    assert model(inputs).square().mean() < before


def reference_lamb(
    weights: list[torch.Tensor], gradients: list[list[torch.Tensor]], lr: float, decay: list[float]
) -> list[torch.Tensor]:
    """Algorithm 2 of You 2020 in double precision, one parameter after the other; no decay: Adam's step."""
    done = []
    for number, (weight, wd) in enumerate(zip(weights, decay, strict=True)):
        x, m, v = weight.double().clone(), torch.zeros(weight.shape).double(), torch.zeros(weight.shape).double()
        for t, step in enumerate(gradients, start=1):
            g = step[number].double()
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-6)
            direction = r + wd * x
            ratio = x.norm() / direction.norm() if wd and x.norm() > 0 else 1.0
            x = x - lr * ratio * direction
        done.append(x.float())
    return done


def test_lamb_is_the_papers_algorithm_and_timms() -> None:
    torch.manual_seed(0)
    start = [torch.randn(7, 5), torch.randn(4, 3, 3, 3), torch.zeros(2, 2), torch.randn(6)]
    gradients = [[torch.randn(one.shape) * 0.1 for one in start] for _ in range(12)]
    decay = [0.02, 0.02, 0.02, 0.0]
    results = []
    for make in (
        lambda groups: Lamb(groups, lr=0.01),
        lambda groups: TimmLamb(groups, lr=0.01, max_grad_norm=None),
    ):
        parameters = [nn.Parameter(one.clone()) for one in start]
        optimizer = make([{"params": [p], "weight_decay": wd} for p, wd in zip(parameters, decay, strict=True)])
        for step in gradients:
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
        results.append([parameter.detach() for parameter in parameters])
    for ours, timms, plain in zip(*results, reference_lamb(start, gradients, 0.01, decay), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours, timms, rtol=1e-5, atol=1e-6)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with all singular values 1."""
    u, _, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u @ v


def test_muon_moves_hidden_matrices_by_their_orthogonal_part_and_the_rest_as_adamw() -> None:
    model = create_model("vit_micro", num_classes=5, img_size=16, patch_size=4, width=32, depth=1, heads=2)
    other = copy.deepcopy(model)
    optimizer = build_optimizer(model, MuonConfig(lr=0.01, weight_decay=0.1))
    peer = build_optimizer(other, AdamWConfig(lr=0.01, weight_decay=0.1))
    torch.manual_seed(0)
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        one.grad = torch.randn(one.shape)
        same.grad = one.grad.clone()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    peer.step()
    by_muon = {name for name, p in model.named_parameters() if "momentum_buffer" in optimizer.state[p]}
    assert by_muon == {f"blocks.0.{name}.weight" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    for (name, one), same in zip(model.named_parameters(), other.parameters(), strict=True):
        if name in by_muon:
            moved = (before[name] * (1 - 0.01 * 0.1) - one.detach()) / (0.01 * 0.2 * max(one.shape) ** 0.5)
            expected = orthogonal(one.grad)
            # Newton and Schulz's five steps bring singular values between 0.7 and 1.2; the directions are the SVD's.
            assert (moved.double() * expected).sum() / expected.norm() / moved.norm() > 0.97
            assert 0.6 < torch.linalg.svdvals(moved).min() <= torch.linalg.svdvals(moved).max() < 1.3
        else:
            assert torch.equal(one, same), name


def test_muon_needs_a_matrix_below_the_head() -> None:
    with pytest.raises(InputError, match="optimizer muon: the model has no matrix below its head"):
        build_optimizer(create_model("resnet_small", num_classes=5), MuonConfig())


@pytest.mark.parametrize("kind", [LambConfig, MuonConfig, RMSpropConfig])
def test_every_optimizer_has_the_rates_of_the_layers_and_no_decay_of_norms(kind: type[Any]) -> None:
    model = create_model("vit_micro", num_classes=5, img_size=16, patch_size=4, width=32, depth=2, heads=2)
    optimizer = build_optimizer(model, kind(weight_decay=0.3, layer_decay=0.5))
    set_learning_rate(optimizer, 2.0)
    settings = {p: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    found = {name: settings[p] for name, p in model.named_parameters()}
    assert found["head.weight"] == (2.0, 0.3)
    assert found["blocks.1.attn.qkv.weight"] == (1.0, 0.3)
    assert found["blocks.0.mlp.fc1.weight"] == (0.5, 0.3)
    assert found["blocks.0.mlp.fc1.bias"] == (0.5, 0.0)
    assert found["pos_embed"] == (0.25, 0.0)


def test_rmsprop_is_that_of_the_inception_papers() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    model = nn.ParameterList([weight])
    optimizer = build_optimizer(model, RMSpropConfig(lr=0.045, weight_decay=0.0))
    value, square, moving = weight.detach().clone(), torch.zeros(1, 2), torch.zeros(1, 2)
    for step in range(4):
        gradient = torch.tensor([[0.3, -1.0]]) * (step + 1)
        square = 0.9 * square + 0.1 * gradient**2
        moving = 0.9 * moving + gradient / (square.sqrt() + 1.0)
        value = value - 0.045 * moving
        weight.grad = gradient
        optimizer.step()
    torch.testing.assert_close(weight.detach(), value)
