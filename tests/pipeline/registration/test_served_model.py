"""What the registered code does with images: as the training does, without anything of ours."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from model_defs import create_model
from pipeline.exported_model import ExportedModel
from pipeline.loading import bpe, wordpiece
from pipeline.loading.decode import decode as decode_in_training
from pipeline.loading.tokenizer import Tokenizer
from pipeline.preprocessing import Preprocessing
from pipeline.registration.package import served_code, write_served_files
from pipeline.registration.served_model import ServedModel, decode, resize_to_square
from pipeline.sharding.writing.images import prepare_image

SIZE = 32


def photo(width: int = 90, height: int = 61, mode: str = "RGB") -> Image.Image:
    """A picture with gradients, edges and, where the mode has it, transparency."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    image = Image.fromarray(np.stack([across, down, (across + down) / 2, across], axis=2).astype(np.uint8), "RGBA")
    ImageDraw.Draw(image).ellipse((10, 10, width // 2, height - 5), fill=(250, 20, 60, 200))
    return image.convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def in_training(data: bytes, channels: int = 3) -> torch.Tensor:
    """What training sees of an image, uint8 [C, SIZE, SIZE]."""
    return torch.from_numpy(decode_in_training(data, size=SIZE, channels=channels)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("mode", "kind", "channels"),
    [
        *((mode, kind, channels) for mode in ("RGB", "L") for kind in ("JPEG", "PNG") for channels in (1, 3)),
        ("RGB", "WEBP", 3),
    ],
)
@pytest.mark.parametrize("shape", [(90, 61), (40, 200), (32, 32), (20, 20)])
def test_pixels_are_those_of_training_bit_for_bit(mode: str, kind: str, shape: tuple[int, int], channels: int) -> None:
    data = encoded(photo(*shape, mode=mode), kind)
    served = resize_to_square(decode(data, channels), SIZE)
    assert torch.equal(served, in_training(data, channels))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_images_are_flattened_on_white_as_in_the_shards(kind: str) -> None:
    data = encoded(photo(mode="RGBA"), kind, **({"lossless": True} if kind == "WEBP" else {}))
    stored = np.array(Image.open(io.BytesIO(prepare_image(data).data)))
    assert np.abs(decode(data, 3).permute(1, 2, 0).numpy().astype(int) - stored).max() <= 1


def test_palettes_turned_photos_and_animations_become_plain_pictures() -> None:
    assert decode(encoded(photo().convert("P"), "PNG"), 3).shape == (3, 61, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(photo(), "JPEG", exif=exif.tobytes()), 3).shape == (3, 90, 61)
    animation = encoded(photo(), "GIF", save_all=True, append_images=[photo().rotate(90), photo().rotate(180)])
    assert decode(animation, 3).shape == (3, 61, 90)
    assert decode(encoded(photo(), "GIF"), 1).shape == (1, 61, 90)
    assert decode(encoded(photo(), "WEBP"), 1).shape == (1, 61, 90)


def test_the_code_imports_only_what_a_service_has() -> None:
    allowed = {"torch", "pandas", "numpy", "PIL", "mlflow", "__future__"} | sys.stdlib_module_names
    for source in (served_code(), *(Path(module.__file__).read_text() for module in (bpe, wordpiece))):
        for node in ast.walk(ast.parse(source)):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert {name.partition(".")[0] for name in names} <= allowed


def loaded(exported: ExportedModel, folder: Path) -> ServedModel:
    folder.mkdir()
    write_served_files(exported, folder)
    model = ServedModel()
    model.load_context(SimpleNamespace(artifacts={"served": str(folder)}))
    return model


def test_a_classifier_answers_as_its_model_does_for_any_number_of_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kwargs = {"num_classes": 7, "in_chans": 3, "img_size": SIZE, "widths": [8, 8], "depths": [1, 1]}
    shape = Preprocessing(SIZE, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    exported = ExportedModel.write(
        tmp_path / "model",
        create_model("resnet_small", **kwargs),
        kind="classifier",
        architecture="resnet_small",
        kwargs=kwargs,
        preprocessing=shape,
        labels=[f"label {n}" for n in range(7)],
    )
    served = loaded(exported, tmp_path / "served")
    images = [encoded(photo(40 + n, 50), "PNG") for n in range(70)]
    answer = served.predict(images)
    pixels = torch.stack([in_training(data) for data in images])
    with torch.no_grad():
        wanted = exported.build()(shape.normalise(pixels)).softmax(1)
    assert answer["label"].tolist() == [f"label {n}" for n in wanted.argmax(1).tolist()]
    np.testing.assert_allclose(answer["score"], wanted.max(1).values, rtol=1e-4)
    assert [len(best) for best in answer["top_k"]] == [5] * 70
    assert answer["top_k"][0][0] == {"label": answer["label"][0], "score": answer["score"][0]}
    assert len(served.predict(images[:1])) == 1
    assert list(served.predict([]).columns) == ["label", "score", "top_k"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not an image of a format that is read"),
        (encoded(photo(), "PNG")[:200], "truncated"),
        (encoded(photo(), "PNG").replace(b"IDAT", b"IDAU"), "not an image of a format that is read"),
    ],
)
def test_an_unreadable_image_is_named_by_its_place(tmp_path: Path, data: bytes, reason: str) -> None:
    model = ServedModel()
    model.service = {"image_size": SIZE, "channels": 3, "labels": ["a"]}
    model.programs, model.encoder = {}, None
    with pytest.raises(ValueError, match=rf"image 2 of 3 \({len(data)} bytes\) cannot be decoded: .*{reason}") as error:
        model.predict([encoded(photo(), "PNG"), data, b"never reached"])
    assert "\n" not in str(error.value)


def test_a_dual_encoder_ranks_prompts_as_its_model_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kwargs = {
        "image_tower": "deit_micro_distilled",
        "image_kwargs": {"img_size": SIZE, "width": 32, "depth": 1},
        "text_kwargs": {"width": 16, "depth": 1, "heads": 2, "context_length": 10},
        "embed_dim": 8,
    }
    shape = Preprocessing(SIZE, 3, (0.48, 0.45, 0.4), (0.3, 0.2, 0.25))
    exported = ExportedModel.write(
        tmp_path / "model",
        create_model("clip", **kwargs),
        kind="dual-encoder",
        architecture="clip",
        kwargs=kwargs,
        preprocessing=shape,
        labels=["food-fruit", "sky"],
        templates=["an emoji of {}", "{}"],
    )
    served = loaded(exported, tmp_path / "served")
    images = [encoded(photo(40, 50), "PNG"), encoded(photo(60, 40), "JPEG")]
    prompts = ["a red heart", "Ein Bär, größer als 3 m", "cat 🐱", "x " * 40]
    answer = served.predict(images, {"prompts": prompts})
    model: Any = exported.build()
    pixels = torch.stack([in_training(data) for data in images])
    with torch.no_grad():
        texts = model.encode_text(Tokenizer().encode(prompts, 10))
        cosines = model.encode_image(shape.normalise(pixels)) @ texts.T
    for row, wanted in zip(answer.itertuples(), cosines, strict=True):
        order = wanted.argsort(descending=True).tolist()
        assert [entry["label"] for entry in row.ranking] == [prompts[place] for place in order]
        np.testing.assert_allclose([entry["cosine"] for entry in row.ranking], wanted[order], atol=1e-5)
        scores = (wanted * model.logit_scale.exp()).softmax(0)
        assert row.score == pytest.approx(float(scores.max().detach()), rel=1e-3)
        assert row.label == prompts[order[0]]
    assert set(served.predict(images)["label"]) <= {"food-fruit", "sky"}
    service = json.loads((tmp_path / "served" / "service.json").read_text())
    assert service["label_prompts"][0] == ["an emoji of food fruit", "food fruit"]


def test_a_dual_encoder_on_word_pieces_brings_its_own_tokenizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = {"tokens": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "heart", "##s", "sky"], "lowercase": True}
    kwargs = {
        "image_tower": "deit_micro_distilled",
        "image_kwargs": {"img_size": SIZE, "width": 32, "depth": 1},
        "text_tower": "bert",
        "text_kwargs": {"width": 16, "depth": 1, "heads": 2, "context_length": 6, "vocabulary_size": 9},
        "embed_dim": 8,
    }
    shape = Preprocessing(SIZE, 3, (0.48, 0.45, 0.4), (0.3, 0.2, 0.25))
    exported = ExportedModel.write(
        tmp_path / "model",
        create_model("clip", **kwargs),
        kind="dual-encoder",
        architecture="clip",
        kwargs=kwargs,
        preprocessing=shape,
        labels=["heart", "sky"],
        templates=["a {}"],
        vocabulary=words,
    )
    served = loaded(exported, tmp_path / "served")
    assert not (tmp_path / "served" / "bpe.py").exists()
    image, prompts = encoded(photo(40, 50), "PNG"), ["A red heart", "hearts", "sky"]
    ranking = served.predict([image], {"prompts": prompts})["ranking"][0]
    model: Any = exported.build()
    pixels = in_training(image)[None]
    tokens = torch.tensor([[2, 4, 5, 6, 3, 0], [2, 6, 7, 3, 0, 0], [2, 8, 3, 0, 0, 0]])
    with torch.no_grad():
        wanted = (model.encode_image(shape.normalise(pixels)) @ model.encode_text(tokens).T)[0]
    by_name = {entry["label"]: entry["cosine"] for entry in ranking}
    np.testing.assert_allclose([by_name[prompt] for prompt in prompts], wanted, atol=1e-5)
    assert set(served.predict([image])["label"]) <= {"heart", "sky"}
