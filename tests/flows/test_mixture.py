"""Mixtures in the flows' parameters: named data sets, checked before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from flows.catalog import FLOWS
from flows.cli.parameters_file import apply_settings, validated_model
from flows.preflight import check_ready
from flows.presets import PRESETS
from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError


def parameters(flow: str, *settings: str) -> Any:
    values = PRESETS["emoji"].parameters(flow).model_dump(mode="json")
    return validated_model(FLOWS[flow].parameter_model(), apply_settings(values, settings), "here")


def commit(store: ArtifactStore, stage: str, key: str) -> None:
    (store.local / key).mkdir(parents=True)
    (store.local / key / "index.arrow").write_text("rows")
    store.commit(stage, key, store.local / key, config={}, inputs={}, summary={}, seconds=0, origin={})


@pytest.mark.parametrize("flow", FLOWS)
def test_every_flow_takes_a_mixture(flow: str) -> None:
    made = parameters(flow, "mixture={emoji: shard-dataset/0a1b, photos: shard-dataset/2c3d}")
    assert made.mixture == {"emoji": "shard-dataset/0a1b", "photos": "shard-dataset/2c3d"}


def test_weights_come_from_the_shell() -> None:
    made = parameters("train-teacher", "teacher.policy={kind: mixture, weights: {emoji: 2, photos: 1}}")
    assert made.teacher.policy.weights == {"emoji": 2.0, "photos": 1.0}
    assert parameters("pretrain-clip", "clip.policy={kind: mixture, temperature: 2}").clip.policy.temperature == 2.0


def test_shards_and_a_mixture_are_not_both_named() -> None:
    with pytest.raises(InputError, match="mixture: name either shards, or the data sets"):
        parameters("train-teacher", "shards=shard-dataset/0a1b", "mixture={a: shard-dataset/0a1b, b: shard-dataset/0a}")


@pytest.mark.parametrize(
    ("mixture", "words"),
    [
        ("{emoji: shard-dataset/0a1b, photos: shard-dataset/ffff}", "unknown artifact 'shard-dataset/ffff'"),
        (
            "{emoji: shard-dataset/0a1b, photos: evaluate/2c3d}",
            r"mixture.photos: evaluate/2c3d is an artifact of evaluate",
        ),
        ("{emoji: shard-dataset/0a1b}", "at least two data sets, and names 1"),
        ("{emoji: shard-dataset/0a1b, My Set: shard-dataset/0a1b}", "'My Set' cannot name a data set"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused_before_the_run(mixture: str, words: str) -> None:
    store = ArtifactStore.open()
    commit(store, "shard-dataset", "0a1b")
    commit(store, "evaluate", "2c3d")
    with pytest.raises(InputError, match=words):
        check_ready(parameters("train-teacher", f"mixture={mixture}", "teacher.runner.runner=process"), store)
