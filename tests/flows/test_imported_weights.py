"""Which stages flows ask for when models start from trained weights; nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from flows import lifecycle, pretrain_clip, train_teacher
from flows.parameters import LifecycleParameters, PretrainClipParameters, TrainTeacherParameters
from flows.preflight import check_ready
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config, digest, parse_config
from pipeline.errors import InputError
from pipeline.registration.config import RegistrationConfig
from pipeline.sharding.config import ShardingConfig
from pipeline.stage import Stage

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Asked:
    """Takes the place of a StageRun and writes down what it is asked for."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store
        self.inputs: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, Config] = {}
        self.after: dict[str, list[str]] = {}
        self.left_out: dict[str, str] = {}

    def submit(
        self,
        stage: Stage[Any],
        config: Config,
        inputs: Mapping[str, Any] | None = None,
        *,
        label: str = "",
        after: Sequence[Any] = (),
        accept: Any = None,
    ) -> str:
        label = label or stage.name
        self.inputs[label], self.configs[label], self.after[label] = dict(inputs or {}), config, list(after)
        return label

    def leave_out(self, label: str, reason: str) -> None:
        self.left_out[label] = reason

    def existing(self, reference: str | None) -> str | None:
        return reference

    def result(self) -> None: ...


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    run = Asked(ArtifactStore.open(str(tmp_path / "store")))

    @contextmanager
    def stage_run(*args: Any, **kwargs: Any) -> Iterator[Asked]:
        yield run

    for module in (lifecycle, pretrain_clip, train_teacher):
        monkeypatch.setattr(module, "stage_run", stage_run)
    monkeypatch.setattr(ShardingConfig, "resolved", lambda self: self)
    monkeypatch.setattr(RegistrationConfig, "resolved", lambda self, store: self)
    return run


@pytest.fixture
def weights(tmp_path: Path) -> str:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


def test_without_pretrained_no_stage_is_added(asked: Asked) -> None:
    lifecycle.lifecycle.fn(LifecycleParameters())
    assert [label for label in asked.inputs if "weights" in label] == []
    assert asked.inputs["train-teacher"] == {"shards": "shard-dataset"}
    assert asked.inputs["pretrain-clip"]["tower"] == "distill-student"


def test_a_teacher_waits_for_its_weights_which_have_a_fingerprint(asked: Asked, weights: str) -> None:
    model = {"name": "resnet18", "pretrained": weights}
    train_teacher.train_teacher.fn(parse_config(TrainTeacherParameters, {"teacher": {"model": model}}, "test"))
    assert asked.inputs["train-teacher"] == {"shards": "shard-dataset", "weights": "import teacher weights"}
    assert asked.configs["import teacher weights"].fingerprint is not None
    # The file states none, the catalogue's row of resnet18 does.
    shape = asked.configs["train-teacher"].preprocessing()
    assert (shape.mean, shape.std) == IMAGENET


def test_every_model_of_a_lifecycle_may_have_weights(asked: Asked, weights: str) -> None:
    values = {
        "teacher": {"model": {"name": "resnet18", "pretrained": weights}},
        "student": {"model": {"name": "deit_micro_distilled", "pretrained": weights}},
        "clip": {"text": {"name": "bert_minilm_l6", "pretrained": weights}},
    }
    lifecycle.lifecycle.fn(parse_config(LifecycleParameters, values, "test"))
    assert asked.inputs["train-teacher"]["weights"] == "import teacher weights"
    assert asked.inputs["distill-student"]["weights"] == "import student weights"
    clip = asked.inputs["pretrain-clip"]
    assert (clip["tower"], clip["text-weights"]) == ("distill-student", "import text backbone weights")
    assert "image-weights" not in clip
    assert asked.configs["import text backbone weights"].reads_texts
    assert asked.configs["train-teacher"].preprocessing().mean == IMAGENET[0]
    assert asked.configs["distill-student"].preprocessing().mean == (0.5,) * 3


def test_an_image_tower_with_weights_takes_the_students_place(asked: Asked, weights: str) -> None:
    values = {"clip": {"new_tower": {"model": {"name": "resnet18", "pretrained": weights}}}}
    pretrain_clip.pretrain_clip.fn(parse_config(PretrainClipParameters, values, "test"))
    assert "distill-student" not in asked.inputs
    assert "tower" not in asked.inputs["pretrain-clip"]
    assert asked.inputs["pretrain-clip"]["image-weights"] == "import image backbone weights"
    assert asked.configs["pretrain-clip"].new_tower.preprocessing().std == IMAGENET[1]


def test_a_given_tower_keeps_the_key_whatever_weights_a_new_one_names(asked: Asked, weights: str) -> None:
    keys = []
    for pretrained in (None, weights):
        values = {"tower": "train-teacher/0a1b2c", "clip": {"new_tower": {"model": {"pretrained": pretrained}}}}
        pretrain_clip.pretrain_clip.fn(parse_config(PretrainClipParameters, values, "test"))
        keys.append(digest(asked.configs["pretrain-clip"]))
    assert keys[0] == keys[1]


def test_weights_that_are_not_there_are_refused_before_the_run(tmp_path: Path) -> None:
    values = {"teacher": {"model": {"name": "resnet18", "pretrained": "gone.pth"}}, "shards": None}
    parameters = parse_config(TrainTeacherParameters, values, "test")
    with pytest.raises(InputError, match=r"^teacher\.model\.pretrained: gone\.pth: there is no such file"):
        check_ready(parameters, ArtifactStore.open(str(tmp_path / "store")))


def test_weights_of_a_model_that_is_given_are_not_asked_for(tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path / "store"))
    (tmp_path / "folder").mkdir()
    store.commit(
        "train-teacher", "0a1b2c", tmp_path / "folder", config={}, inputs={}, summary={}, seconds=0.0, origin={}
    )
    gone = {"model": {"name": "resnet18", "pretrained": "gone.pth"}}
    values = {"teacher": gone, "student": gone | {"distillation": {"method": "soft"}}}
    check_ready(parse_config(PretrainClipParameters, {**values, "tower": "train-teacher/0a1b2c"}, "test"), store)
    given = {**values, "teacher_model": "train-teacher/0a1b2c"}
    with pytest.raises(InputError, match=r"^student\.model\.pretrained: gone\.pth: there is no such file"):
        check_ready(parse_config(PretrainClipParameters, given, "test"), store)


def test_weights_that_state_a_wrong_normalisation_are_refused_before_the_run(tmp_path: Path, weights: str) -> None:
    (tmp_path / "config.json").write_text('{"mean": [0.5, 0.5, 0.5], "std": [0.0, 0.0, 0.0]}')
    values = {"teacher": {"model": {"name": "resnet18", "pretrained": weights}}, "shards": None}
    parameters = parse_config(TrainTeacherParameters, values, "test")
    with pytest.raises(
        InputError, match=r"^teacher\.model\.pretrained: config\.json of the weights: std: must be above"
    ):
        check_ready(parameters, ArtifactStore.open(str(tmp_path / "store")))


def test_a_baseline_is_the_first_thing_and_the_teacher_starts_from_it(asked: Asked, weights: str) -> None:
    model = {"name": "resnet18", "pretrained": weights}
    values = {"teacher": {"model": model, "image_size": 96}, "baseline": {"max_samples": 10}, "leaks": {}}
    lifecycle.lifecycle.fn(parse_config(LifecycleParameters, values, "test"))
    labels = list(asked.inputs)
    assert labels[:5] == ["shard-dataset", "import teacher weights", "linear-probe", "evaluate baseline", "check-leaks"]
    assert asked.inputs["linear-probe"] == {"shards": "shard-dataset", "weights": "import teacher weights"}
    probed = asked.configs["linear-probe"]
    assert (probed.model.name, probed.image_size, probed.probe.max_samples) == ("resnet18", 96, 10)
    assert probed.preprocessing() == asked.configs["train-teacher"].preprocessing()
    assert asked.inputs["train-teacher"] == {**asked.inputs["linear-probe"], "probe": "linear-probe"}
    assert asked.after["check-leaks"] == ["evaluate baseline"]
    assert asked.after["train-teacher"] == ["check-leaks"]
    assert asked.inputs["run-report"]["baseline"] == "linear-probe"
    assert asked.inputs["run-report"]["baseline-evaluation"] == "evaluate baseline"


def test_without_pretrained_weights_a_baseline_is_left_out(asked: Asked) -> None:
    lifecycle.lifecycle.fn(parse_config(LifecycleParameters, {"baseline": {}}, "test"))
    assert "linear-probe" not in asked.inputs
    assert asked.inputs["train-teacher"] == {"shards": "shard-dataset"}
    assert "set teacher.model.pretrained" in asked.left_out["linear-probe"]


def test_a_baseline_of_a_model_with_two_heads_is_refused_before_the_run(tmp_path: Path, weights: str) -> None:
    model = {"name": "deit_micro_distilled", "pretrained": weights}
    parameters = parse_config(LifecycleParameters, {"teacher": {"model": model}, "baseline": {}}, "test")
    with pytest.raises(InputError, match=r"^baseline: linear-probe: deit_micro_distilled does not end in one linear"):
        check_ready(parameters, ArtifactStore.open(str(tmp_path / "store")))


def test_every_flow_trains_the_same_teacher_from_the_head_of_the_baseline(asked: Asked, weights: str) -> None:
    values = {"teacher": {"model": {"name": "resnet18", "pretrained": weights}}, "baseline": {}}
    train_teacher.train_teacher.fn(parse_config(TrainTeacherParameters, values, "test"))
    assert asked.inputs["evaluate baseline"] == {"shards": "shard-dataset", "model": "linear-probe"}
    assert asked.after["train-teacher"] == ["evaluate baseline"]
    alone = asked.inputs["train-teacher"], asked.configs["train-teacher"], asked.configs["linear-probe"]
    pretrain_clip.pretrain_clip.fn(parse_config(PretrainClipParameters, values, "test"))
    assert (asked.inputs["train-teacher"], asked.configs["train-teacher"], asked.configs["linear-probe"]) == alone
    assert alone[0]["probe"] == "linear-probe"
