"""The learning rate at each step: torch's schedulers, re-derived; and the words of the configuration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from pipeline.config import canonical_json, parse_config
from pipeline.errors import InputError
from pipeline.training.training_config import TrainingConfig

KINDS: list[Any] = [
    "cosine",
    "constant",
    {"kind": "polynomial", "power": 2},
    {"kind": "step", "every_epochs": 3},
    {"kind": "warmup_stable_decay", "decay": 0.4},
    "one_cycle",
]


def rates(total: int, epoch_samples: int = 10, **changes: Any) -> list[float]:
    """The learning rates of a training whose peak is 1 and whose batch has 10 samples."""
    config = parse_config(
        TrainingConfig, {"optimizer": {"kind": "adamw", "lr": 1.0}, "global_batch": 10, **changes}, "training"
    )
    return [config.learning_rate(step, total, epoch_samples) for step in range(total)]


def torchs(total: int, make: Any, lr: float = 1.0) -> list[float]:
    """The learning rates of one of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    seen = []
    for step in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < total - 1:
            scheduler.step()
    return seen


def test_the_learning_rate_rises_falls_by_a_cosine_and_ends_low() -> None:
    found = rates(101, optimizer={"kind": "adamw", "lr": 2.0}, warmup=0.1, final_lr=0.05)
    assert found[0] == pytest.approx(2.0 / 11)
    assert found[10] == pytest.approx(2.0)
    # Half way between the end of the warm-up and the last step stands the mean of peak and end.
    middle = 11 + (100 - 11) / 2
    share = 0.5 * (1 + math.cos(math.pi * (55 - 11) / (100 - 11)))
    assert found[55] == pytest.approx(0.1 + 1.9 * share)
    assert found[round(middle)] == pytest.approx(1.05, abs=0.03)
    assert found[100] == pytest.approx(0.1)


def test_cosine_and_linear_warmup_are_torchs() -> None:
    expected = torchs(60, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=59, eta_min=0.02))
    assert rates(60, warmup=0, final_lr=0.02) == pytest.approx(expected)
    expected = torchs(30, lambda o: lr_scheduler.LinearLR(o, start_factor=1 / 6, total_iters=5))
    assert rates(30, schedule="constant", warmup=0.2) == pytest.approx(expected)


@pytest.mark.parametrize("power", [1.0, 0.9, 2.0])
def test_polynomial_decay_is_torchs(power: float) -> None:
    expected = torchs(40, lambda o: lr_scheduler.PolynomialLR(o, total_iters=39, power=power))
    assert rates(40, schedule={"kind": "polynomial", "power": power}, warmup=0, final_lr=0) == pytest.approx(expected)
    ends = rates(40, schedule={"kind": "polynomial", "power": power}, final_lr=0.1)
    assert (ends[2], ends[-1]) == (1.0, pytest.approx(0.1))


@pytest.mark.parametrize("epoch_samples", [10, 30, 70])
def test_step_decay_counts_the_epochs_of_the_training(epoch_samples: int) -> None:
    steps = epoch_samples // 10  # in an epoch
    expected = torchs(12 * steps, lambda o: lr_scheduler.MultiStepLR(o, [3 * steps, 8 * steps], gamma=0.3))
    schedule = {"kind": "step", "milestones": [3, 8], "gamma": 0.3}
    assert rates(12 * steps, epoch_samples, schedule=schedule, epochs=12, warmup=0) == pytest.approx(expected)
    expected = torchs(12 * steps, lambda o: lr_scheduler.StepLR(o, 2 * steps, gamma=0.94))
    schedule = {"kind": "step", "every_epochs": 2, "gamma": 0.94}
    assert rates(12 * steps, epoch_samples, schedule=schedule, epochs=12, warmup=0) == pytest.approx(expected)


def test_step_decay_comes_with_the_first_step_of_the_epoch_where_an_epoch_is_no_whole_number_of_steps() -> None:
    found = rates(30, 25, schedule={"kind": "step", "milestones": [1, 3]}, epochs=12, warmup=0)
    assert [found.index(pytest.approx(value)) for value in (1.0, 0.1, 0.01)] == [0, 3, 8]


@pytest.mark.parametrize("pct_start", [0.1, 0.3])
def test_one_cycle_is_torchs(pct_start: float) -> None:
    def peer(optimizer: torch.optim.Optimizer) -> lr_scheduler.OneCycleLR:
        return lr_scheduler.OneCycleLR(
            optimizer, 1.0, total_steps=100, pct_start=pct_start, cycle_momentum=False, final_div_factor=40
        )

    found = rates(100, schedule="one_cycle", warmup=pct_start, final_lr=1 / (25 * 40))
    assert found == pytest.approx(torchs(100, peer))


@pytest.mark.parametrize(
    ("shape", "left"),
    [
        ("linear", lambda p: 1 - p),
        ("cosine", lambda p: math.cos(p * math.pi / 2) ** 2),
        ("sqrt", lambda p: 1 - p**0.5),
    ],
)
def test_warmup_stable_decay_stays_at_the_peak_until_its_last_part(shape: str, left: Any) -> None:
    found = rates(50, schedule={"kind": "warmup_stable_decay", "shape": shape}, warmup=0.1, final_lr=0.1)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5:40] == [1.0] * 35
    assert found[40:] == pytest.approx([0.1 + 0.9 * left(number / 10) for number in range(1, 11)])


def test_linear_warmup_stable_decay_is_torchs_schedulers_in_sequence() -> None:
    def peer(optimizer: torch.optim.Optimizer) -> lr_scheduler.SequentialLR:
        stable = lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
        decay = lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=10)
        return lr_scheduler.SequentialLR(optimizer, [stable, decay], milestones=[39])

    schedule = {"kind": "warmup_stable_decay"}
    assert rates(50, schedule=schedule, warmup=0, final_lr=0.1) == pytest.approx(torchs(50, peer))


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("schedule", KINDS, ids=str)
@pytest.mark.parametrize("warmup", [0, 0.3, 0.9])
def test_the_shortest_trainings_have_a_learning_rate(total: int, schedule: Any, warmup: float) -> None:
    assert all(0 < rate <= 1 for rate in rates(total, schedule=schedule, warmup=warmup))


@pytest.mark.parametrize("schedule", KINDS, ids=str)
def test_after_the_warmup_no_schedule_rises(schedule: Any) -> None:
    found = rates(100, schedule=schedule, warmup=0.2)
    assert all(one < other for one, other in itertools.pairwise(found[:20]))
    assert found[19] == pytest.approx(1)
    assert all(one >= other for one, other in itertools.pairwise(found[19:]))


def test_a_kind_alone_is_the_schedule_with_its_defaults_and_old_keys_stay() -> None:
    for kind in ("cosine", "constant"):
        config = TrainingConfig(schedule=kind)
        assert config == TrainingConfig.model_validate({"schedule": {"kind": kind}})
        assert f'"schedule":"{kind}"' in canonical_json(config)
    written = canonical_json(TrainingConfig(schedule={"kind": "polynomial", "power": 2.0}))
    assert '"schedule":{"kind":"polynomial","power":2.0}' in written
    assert TrainingConfig.model_validate_json(written).schedule.power == 2.0


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("cosin", "schedule: input tag 'cosin' found using"),
        ({"kind": "cosine", "gamma": 0.1}, "unknown key 'schedule.gamma'"),
        ({"kind": "step", "gamma": 1.5}, r"schedule.gamma: input should be less than 1 \(got 1.5\)"),
        ({"kind": "step", "milestones": [30, 60]}, "milestones: epoch 60 is not within the training's 10"),
        ("step", "every_epochs: epoch 30 is not within the training's 10"),
        ({"kind": "step", "milestones": [6, 3]}, "give rising epochs above 0"),
        ({"kind": "step", "milestones": [0]}, "give rising epochs above 0"),
    ],
)
def test_a_wrong_schedule_is_refused_in_one_line(schedule: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(TrainingConfig, {"schedule": schedule}, "training")


def test_the_form_of_a_run_accepts_a_kind_alone_and_an_object() -> None:
    choices = TrainingConfig.model_json_schema()["properties"]["schedule"]["anyOf"]
    assert {"cosine", "one_cycle"} <= set(choices[1]["enum"])
    assert choices[0]["discriminator"]["propertyName"] == "kind"
