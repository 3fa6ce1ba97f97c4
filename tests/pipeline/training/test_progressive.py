"""Progressive resizing follows the epochs of the training, whatever a sampling policy counts as one."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor
from typing import Any

import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.loading.policies.class_balanced import ClassBalancedConfig
from pipeline.loading.policies.mixture import MixtureConfig
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import ClassificationRecipe

BuildConfig = Callable[..., ClassificationConfig]
POLICIES: dict[str, dict[str, Any]] = {
    "shuffled": {"kind": "shuffled"},
    "streams": {"kind": "streams", "streams": 4, "block": 10, "window_blocks": 2},
    "class-balanced": {"kind": "class-balanced"},
    "mixture": {"kind": "mixture", "weights": {"digits": 3, "bars": 1}},
}
RESNET = {"name": "resnet_small", "kwargs": {"widths": [8, 16], "depths": [1, 1]}}


def sides_by_definition(config: ClassificationConfig, epoch_samples: int) -> list[int]:
    """The side of each step's images: the stage of `loader.smaller_sizes` that its epoch, an exact fraction, is in."""
    steps = config.training.total_steps(epoch_samples)
    epochs = [Fraction(step * config.training.global_batch, epoch_samples) for step in range(steps)]
    sides = [*config.loader.smaller_sizes, config.image_size]
    return [sides[min(floor(epoch / config.loader.epochs_a_size), len(sides) - 1)] for epoch in epochs]


@pytest.mark.parametrize(("copies", "epochs", "a_size"), [(1, 5, 2), (4, 3, 1)])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_resolution_of_each_step_is_that_of_its_epoch_and_resumes_at_any_step(
    store: ArtifactStore,
    digits: Artifact,
    both: Artifact,
    small_config: BuildConfig,
    policy: str,
    copies: int,
    epochs: int,
    a_size: int,
) -> None:
    config = small_config(
        model=RESNET, policy=POLICIES[policy], epochs=epochs, steps=None,
        loader={"copies": copies, "smaller_sizes": [8, 12], "epochs_a_size": a_size, "prefetch": 1},
    )  # fmt: skip
    shards = both if policy == "mixture" else digits
    objects = ClassificationRecipe(config, store.storage.url, shards.name).build(torch.device("cpu"), 0, 1)
    expected = sides_by_definition(config, objects.epoch_samples)
    assert {8, 12, 16} == set(expected)
    batches = list(objects.loader.batches(0, len(expected)))
    assert [batch.images.shape[-1] for batch in batches] == expected
    for step, batch in enumerate(batches):
        resumed = next(objects.loader.batches(step, len(expected)))
        assert torch.equal(resumed.images, batch.images)
        assert torch.equal(resumed.ids, batch.ids)


def test_these_policies_count_other_epochs_than_the_training(
    store: ArtifactStore, digits: Artifact, both: Artifact, small_config: BuildConfig
) -> None:
    """Otherwise the test above could not fail: the augmentation's number is not the epoch of the training."""
    for name, kind, shards in (("class-balanced", ClassBalancedConfig, digits), ("mixture", MixtureConfig, both)):
        config = small_config(policy=POLICIES[name], epochs=3, steps=None)
        assert isinstance(config.policy, kind)
        objects = ClassificationRecipe(config, store.storage.url, shards.name).build(torch.device("cpu"), 0, 1)
        steps = range(config.training.total_steps(objects.epoch_samples))
        epochs = [step * config.training.global_batch // objects.epoch_samples for step in steps]
        assert [objects.loader.policy.epoch(step) for step in steps] != epochs
