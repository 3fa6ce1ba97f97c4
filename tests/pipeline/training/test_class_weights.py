"""Class weights: from counts or by label, refused where they mean nothing, and used by teacher and student."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import digest, parse_config
from pipeline.distillation.config import DistillationConfig
from pipeline.errors import InputError
from pipeline.training.class_weights import class_weights
from pipeline.training.classification_config import ClassificationConfig

NAMES = ("cat", "dog", "owl", "eel")
LABELS = np.array([0] * 6 + [1] * 3 + [2], np.int16)


def test_balanced_weights_are_inverse_to_the_counts_with_mean_1_over_the_samples() -> None:
    weights = class_weights("balanced", LABELS, NAMES)
    assert weights is not None
    assert weights.dtype == np.float32
    assert weights[LABELS].mean() == pytest.approx(1)
    assert weights[:3] * [6, 3, 1] == pytest.approx([10 / 3] * 3)  # every class has the same total
    assert np.isfinite(weights).all()  # also that of eel, which has no sample


def test_weights_by_label_are_used_as_they_are() -> None:
    assert class_weights("none", LABELS, NAMES) is None
    weights = class_weights({"owl": 4.0}, LABELS, NAMES)
    assert weights is not None
    assert weights.tolist() == [1, 1, 4, 1]
    with pytest.raises(InputError, match=r"class_weights: label.*owls.*owl"):
        class_weights({"owls": 2.0}, LABELS, NAMES)
    with pytest.raises(InputError, match="all training samples are 0"):
        class_weights({"cat": 0, "dog": 0, "owl": 0}, LABELS, NAMES)


@pytest.mark.parametrize("config", [ClassificationConfig, DistillationConfig])
def test_the_key_changes_only_with_weights(config: type[ClassificationConfig]) -> None:
    assert digest(config()) == digest(config(class_weights="none")) != digest(config(class_weights="balanced"))
    for value, says in (
        ("balance", "give none, balanced or weights by label such as {cat: 2} (got 'balance')"),
        ({"cat": -1}, "the weight of cat must be a number from 0 to 1,000,000, not -1"),
        ({"cat": True}, "the weight of cat must be a number from 0 to 1,000,000, not True"),
    ):
        with pytest.raises(InputError) as caught:
            parse_config(config, {"class_weights": value}, "here")
        assert str(caught.value) == f"here: class_weights: {says}"
