"""What a model is fed: mean and deviation, one for all channels or one for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.config import canonical_json, parse_config
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.distillation.config import DistillationConfig
from pipeline.errors import InputError
from pipeline.training.classification_config import ClassificationConfig

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def config(**values: Any) -> ClassificationConfig:
    return parse_config(ClassificationConfig, values, "teacher")


@pytest.mark.parametrize("channels", [1, 3])
def test_one_number_is_that_of_every_channel(channels: int) -> None:
    shape = config(channels=channels, mean=0.1, std=0.5).preprocessing()
    assert (shape.mean, shape.std) == ((0.1,) * channels, (0.5,) * channels)


def test_a_number_that_yaml_reads_as_text_is_one() -> None:
    shape = config(mean="2e-1", std=["3e-1", 0.4, "0.5"]).preprocessing()
    assert (shape.mean, shape.std) == ((0.2,) * 3, (0.3, 0.4, 0.5))


def test_a_pixel_is_normalised_by_its_channel_s_own_numbers() -> None:
    pixel = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    seen = config(mean=list(MEAN), std=list(STD)).preprocessing().normalise(pixel)
    # 255, 0 and 51 of 255 are 1, 0 and 0.2.
    expected = torch.tensor([(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(seen.flatten(), expected)


def test_without_weights_the_default_is_what_it_was() -> None:
    for one in (ClassificationConfig(), DistillationConfig(), ContrastiveConfig().new_tower):
        shape = one.preprocessing()
        assert (shape.mean, shape.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mean": [0.5, 0.5]}, "teacher: mean: 2 numbers for 3 channels; give one number, or one for each channel"),
        ({"std": [0.5] * 4}, "teacher: std: 4 numbers for 3 channels"),
        ({"mean": [0.5] * 3, "channels": 1}, "teacher: mean: 3 numbers for 1 channel;"),
        ({"std": []}, "teacher: std: 0 numbers for 3 channels"),
        ({"std": 0}, "teacher: std: must be above 0 and at most 1, for pixels in 0..1, not 0"),
        ({"std": [0.2, -0.2, 0.2]}, "teacher: std: must be above 0 and at most 1, for pixels in 0..1, not -0.2"),
        ({"std": float("nan")}, "teacher: std: must be above 0 and at most 1, for pixels in 0..1, not nan"),
        ({"std": float("inf")}, "teacher: std: must be above 0"),
        ({"mean": [0.5, float("nan"), 0.5]}, "teacher: mean: must be at least 0 and at most 1"),
        ({"mean": 127}, "teacher: mean: must be at least 0 and at most 1, for pixels in 0..1, not 127"),
        ({"mean": True}, "teacher: mean: give a number, or a list of one for each channel, not True"),
        ({"mean": "0.5, 0.5"}, "teacher: mean: give a number, or a list of one for each channel"),
    ],
)
def test_wrong_numbers_are_refused_in_one_line(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        config(**values)
    assert str(caught.value).startswith(words)


def test_one_meaning_has_one_key_and_the_old_one() -> None:
    # 0.5 and 0.25 were the numbers of every config before they could differ by channel.
    old = canonical_json(config())
    assert '"mean":0.5' in old and '"std":0.25' in old  # noqa: PT018
    for same in (config(mean=0.5, std=0.25), config(mean=[0.5] * 3, std=[0.25] * 3)):
        assert canonical_json(same) == old
    assert '"mean":[0.485,0.456,0.406]' in canonical_json(config(mean=list(MEAN)))


def test_a_config_that_waits_for_its_weights_is_no_other_s_twin_and_trains_nothing() -> None:
    waiting = config(model={"pretrained": "ResNet18_Weights"}, mean=0.5)
    assert canonical_json(waiting) != canonical_json(config(mean=0.5))
    with pytest.raises(InputError, match=r"model\.pretrained is 'ResNet18_Weights', and mean or std is not set"):
        waiting.preprocessing()
    assert config(model={"pretrained": "x"}, mean=0.5, std=0.25).preprocessing() == config().preprocessing()
