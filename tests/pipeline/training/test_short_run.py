"""The short training of a plan, and what is computed from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.short_run import ShortRun, evaluation_count, short_run
from pipeline.training.stage import TrainTeacher
from pipeline.training.training_config import TrainingConfig


@pytest.mark.parametrize("every", [0, 0.01, 0.3, 1, 2.5, 50])
@pytest.mark.parametrize("patience", [None, 3])
@pytest.mark.parametrize(("epochs", "samples"), [(3, 1000), (2.2, 640), (7, 63)])
def test_evaluations_are_those_that_the_loop_makes(
    every: float, patience: int | None, epochs: float, samples: int
) -> None:
    if patience and not every:
        pytest.skip("refused by the config")
    training = TrainingConfig(epochs=epochs, global_batch=64, evaluate_every_epochs=every, patience=patience)
    total = training.total_steps(samples)
    due = sum(training.evaluation_due(done, total, samples) for done in range(1, total + 1))
    assert evaluation_count(training, samples) == due + (patience is not None)


def test_the_time_is_that_of_steps_evaluations_and_what_is_done_once() -> None:
    measured = ShortRun(0.5, 2.0, 10.0, 1280, 900, 4_000_000, 12_000_000)
    training = TrainingConfig(epochs=2, global_batch=128)
    assert measured.seconds(training) == 10 + 20 * 0.5 + 2 * 2.0
    assert measured.seconds(training, extra_step_s=0.1) == pytest.approx(26.0)
    assert measured.disk_bytes() == 28_000_000


def test_steps_after_the_first_epoch_take_the_time_with_decoded_images() -> None:
    measured = ShortRun(0.5, 0.0, 10.0, 1290, 900, 4_000_000, 12_000_000, later_step_s=0.2)
    # Of 30 steps of 128 images, the eleventh has the last ten of the first epoch.
    assert measured.seconds(TrainingConfig(steps=30, global_batch=128)) == pytest.approx(10 + 11 * 0.5 + 19 * 0.2)
    assert measured.seconds(TrainingConfig(steps=8, global_batch=128)) == pytest.approx(10 + 8 * 0.5)


def test_a_plan_measures_later_epochs_with_the_images_of_the_first(
    store: ArtifactStore, digits: Artifact, small_config: Callable[..., ClassificationConfig]
) -> None:
    config = small_config(steps=5000)
    assert short_run(TrainTeacher(), config, {"shards": digits}, store, steps=10).later_step_s is not None
    without = config.model_copy(update={"loader": config.loader.model_copy(update={"decoded_megabytes": 0})})
    assert short_run(TrainTeacher(), without, {"shards": digits}, store, steps=10).later_step_s is None
    assert [path.name for path in (store.local / "decoded").glob("*")] == ["lock"]


def test_a_short_training_measures_and_leaves_nothing(
    store: ArtifactStore, digits: Artifact, small_config: Callable[..., ClassificationConfig]
) -> None:
    config = small_config(steps=5000, patience=2)
    before = {path for path in store.local.rglob("*") if path.is_file()}
    measured = short_run(TrainTeacher(), config, {"shards": digits}, store)
    after = {path for path in store.local.rglob("*") if path.is_file()}
    assert {path.name for path in after - before} <= {"lock"}
    assert list(store.names("train-teacher")) == []
    assert measured.epoch_samples == 228
    assert 0 < measured.step_s < 1
    assert measured.evaluation_s > 0
    assert measured.inference_s is not None
    # Weights, their average and the moments of the optimiser.
    assert measured.checkpoint_bytes > 3 * 0.9 * measured.artifact_bytes > 0
    assert measured.memory_mb > 100
    step_s = measured.step_s if measured.later_step_s is None else measured.later_step_s
    assert measured.seconds(config.training) > 5000 * step_s
