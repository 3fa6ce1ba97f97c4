"""keep: a classifier is trained on the samples whose joined column is in a range, and on no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.loading.batch import Batch
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.sharding.joining.stage import JoinColumns
from pipeline.stage import run_stage
from pipeline.training.classification import Classification
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.stage import TrainTeacher
from pipeline.training.task import StepOutput

Config = Callable[..., ClassificationConfig]


@pytest.fixture
def columns(store: ArtifactStore, digits: Artifact, tmp_path: Path) -> Artifact:
    """quality = number % 10 of every digit; a caption of each."""
    lines = "".join(f"digit{number:03d},{number % 10},digit\n" for number in range(300))
    (tmp_path / "quality.csv").write_text("key,quality,caption\n" + lines)
    config = JoinColumnsConfig(source=str(tmp_path / "quality.csv")).resolved()
    return run_stage(JoinColumns(), config, {"shards": digits}, store=store)


def test_only_what_is_in_the_range_is_trained_on(
    store: ArtifactStore, digits: Artifact, columns: Artifact, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    whole = Classification.training_step

    def noted(self: Classification, model: torch.nn.Module, batch: Batch) -> StepOutput:
        seen.extend(batch.ids.tolist())
        assert torch.equal(batch.columns["quality"], batch.ids % 10)
        return whole(self, model, batch)

    monkeypatch.setattr(Classification, "training_step", noted)
    config = small_config(keep={"quality": [7, None]})
    artifact = run_stage(TrainTeacher(), config, {"shards": digits, "columns": columns}, store=store)
    # Of the 240 training rows those with 7, 8 or 9, without the unlabelled 19, 39, ...
    assert set(seen) == {number for number in range(240) if number % 10 >= 7 and number % 20 != 19}
    assert artifact.manifest["inputs"]["columns"] == columns.name


@pytest.mark.parametrize(
    ("keep", "joined", "words"),
    [
        ({"quality": [5, 9]}, False, "keep: quality: no columns were joined"),
        ({"qualty": [5, 9]}, True, "'qualty'; did you mean quality"),
        ({"caption": [5, 9]}, True, "'caption' is text"),
        ({"quality": [50, 90]}, True, "no labelled row of the train split is in"),
    ],
)
def test_a_range_that_cannot_be_asked_for_is_refused(
    store: ArtifactStore,
    digits: Artifact,
    columns: Artifact,
    small_config: Config,
    keep: dict[str, Any],
    joined: bool,
    words: str,
) -> None:
    inputs = {"shards": digits, **({"columns": columns} if joined else {})}
    with pytest.raises(InputError, match=words):
        run_stage(TrainTeacher(), small_config(keep=keep), inputs, store=store)


@pytest.mark.parametrize(
    ("ends", "words"),
    [((None, None), "null for one"), ((2, 1), "is empty"), ((0, float("inf")), "finite number")],
)
def test_a_range_without_meaning_is_refused(small_config: Config, ends: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small_config(keep={"quality": ends})
