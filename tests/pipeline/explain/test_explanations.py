"""Every model of the zoo gets a method that fits it, and no option is passed over in silence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model_defs import create_model
from pipeline.errors import InputError, UnknownNameError
from pipeline.explain.explanation import Explanation, ExplanationRequest
from pipeline.explain.explanations import explain, fitting_methods, model_image
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing

LABELS = ("circle", "square", "star")
TEXT = {"width": 32, "depth": 1, "heads": 2, "context_length": 12, "vocabulary_size": 49408}
MODELS: dict[str, dict[str, Any]] = {
    "resnet_small": {"img_size": 96, "widths": [8, 8], "depths": [1, 1]},
    "vit_micro": {"img_size": 32, "width": 32, "depth": 2},
    "deit_micro_distilled": {"img_size": 32, "width": 32, "depth": 2},
    "lenet5": {"img_size": 32},
    "lenet5_1998": {"img_size": 32},
    "clip": {
        "image_tower": "vit_micro",
        "image_kwargs": {"img_size": 32, "width": 32, "depth": 2},
        "text_kwargs": TEXT,
    },
}


def exported(folder: Path, name: str, channels: int = 3, **changes: Any) -> ExportedModel:
    torch.manual_seed(0)
    dual = name == "clip"
    kwargs = {**MODELS[name], **({} if dual else {"num_classes": 3, "in_chans": channels}), **changes}
    side = kwargs["image_kwargs"]["img_size"] if dual else kwargs["img_size"]
    return ExportedModel.write(
        folder, create_model(name, **kwargs), kind="dual-encoder" if dual else "classifier", architecture=name,
        kwargs=kwargs, preprocessing=Preprocessing(side, channels, (0.5,) * channels, (0.25,) * channels),
        labels=LABELS, templates=("a {} drawn",) if dual else (),
    )  # fmt: skip


def images(model: ExportedModel, count: int = 2) -> list[torch.Tensor]:
    preprocessing = model.preprocessing
    shape = (preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("resnet_small", {}, ("grad-cam", "occlusion")),
        # Its last map has 2 x 2 places.
        ("resnet_small", {"img_size": 8}, ("occlusion", "grad-cam")),
        ("lenet5", {}, ("deconvnet", "grad-cam", "occlusion")),
        ("lenet5_1998", {}, ("deconvnet", "grad-cam", "occlusion")),
        ("vit_micro", {}, ("rollout", "occlusion")),
        ("deit_micro_distilled", {}, ("rollout", "occlusion")),
        ("clip", {}, ("patch-text",)),
    ],
)
def test_each_kind_of_model_has_its_methods(
    name: str, changes: dict[str, int], expected: tuple[str, ...], tmp_path: Path
) -> None:
    model = exported(tmp_path, name, **changes)
    preprocessing = model.preprocessing
    assert fitting_methods(model.build(), preprocessing.image_size, preprocessing.channels) == expected
    for method in ("auto", *expected):
        explained = explain(model, images(model), method=method)
        assert [one.method for one in explained] == [expected[0] if method == "auto" else method] * 2
        for one in explained:
            assert {panel.picture.dtype for panel in one.panels} == {np.dtype(np.uint8)}
            assert len(one.panels) >= 2
            assert one.caption


def test_the_answer_is_the_models_own_and_the_map_is_of_the_class_asked_about(tmp_path: Path) -> None:
    model = exported(tmp_path, "resnet_small")
    batch = images(model, 3)
    with torch.no_grad():
        probabilities = model.build()(model.preprocessing.normalise(torch.stack(batch))).softmax(dim=1)
    own = explain(model, batch)
    asked = explain(model, batch, request=ExplanationRequest(class_name="star"))
    for one, other, row in zip(own, asked, probabilities, strict=True):
        best = LABELS[int(row.argmax())]
        assert one.answer == other.answer == best
        assert one.score == pytest.approx(float(row.max()))
        assert one.heading == f"{best}, {row.max():.0%}"
        assert other.heading.startswith(f"star, {row[2]:.0%}")
        assert (one.heading == other.heading) == (best == "star")
        assert np.array_equal(one.panels[1].picture, other.panels[1].picture) == (best == "star")


def test_more_images_than_fit_at_once_come_back_in_their_order(tmp_path: Path) -> None:
    model = exported(tmp_path, "vit_micro")
    batch = images(model, 19)
    together = explain(model, batch)
    assert [one.score for one in together] == pytest.approx([explain(model, [image])[0].score for image in batch])
    assert all(
        np.array_equal(one.panels[0].picture, image.permute(1, 2, 0).numpy())
        for one, image in zip(together, batch, strict=True)
    )


def test_a_dual_encoder_shows_the_prompts_in_their_order_or_the_nearest_labels(tmp_path: Path) -> None:
    model = exported(tmp_path, "clip")
    batch = images(model)
    prompts = ("a red house", "a small star", "nothing", "a cat on a mat")
    for one in explain(model, batch, request=ExplanationRequest(prompts=prompts)):
        titles = [panel.title.rpartition("   ")[0] for panel in one.panels[1:]]
        assert titles == list(prompts)
        scores = [float(panel.title.split()[-1]) for panel in one.panels[1:]]
        assert scores[prompts.index(one.answer)] == max(scores)
        assert one.score == pytest.approx(max(scores), abs=0.006)
    for one in explain(model, batch):
        scores = [float(panel.title.split()[-1]) for panel in one.panels[1:]]
        assert scores == sorted(scores, reverse=True)
        assert {panel.title.rpartition("   ")[0] for panel in one.panels[1:]} == {
            "a circle drawn", "a square drawn", "a star drawn"
        }  # fmt: skip


@pytest.mark.parametrize("channels", [1, 5, 7])
def test_the_channels_that_answer_most_are_drawn_back_in_their_order(channels: int, tmp_path: Path) -> None:
    model = exported(tmp_path, "lenet5")
    (image,) = images(model, 1)
    (one,) = explain(model, [image], request=ExplanationRequest(channels=channels))
    net = model.build()
    x = model.preprocessing.normalise(image[None])
    with torch.no_grad():
        peaks = net.convolutions[:5](x).amax(dim=(2, 3))[0]  # the ReLU before the last pooling
    expected = peaks.argsort(descending=True)[:channels].tolist()
    titles = [panel.title for panel in one.panels if panel.title.startswith("channel")]
    assert [int(title.split()[1]) for title in titles] == expected
    assert sum(panel.title == "receptive field" for panel in one.panels) == channels
    rows = -(-channels // 5)
    assert len(one.panels) == 2 * rows * (1 + min(channels, 5))
    seen = next(panel.picture for panel in one.panels if panel.title == "receptive field")
    assert seen.shape[0] <= 14  # conv 5, pooling 2, conv 5


def test_a_layer_is_named_by_its_place(tmp_path: Path) -> None:
    model = exported(tmp_path, "lenet5")
    first, last = (explain(model, images(model, 1), request=ExplanationRequest(layer=layer))[0] for layer in (1, "4"))
    assert first.panels[7].picture.shape[:2] == (5, 5)
    assert last.panels[7].picture.shape[0] > 5
    with pytest.raises(InputError, match="there is no layer 6"):
        explain(model, images(model, 1), request=ExplanationRequest(layer=6))


@pytest.mark.parametrize(
    ("name", "method", "request_", "says"),
    [
        ("vit_micro", "grad-cam", ExplanationRequest(), "grad-cam does not fit vit_micro; use rollout or occlusion"),
        ("vit_micro", "patch-text", ExplanationRequest(), "use rollout or occlusion"),
        ("clip", "grad-cam", ExplanationRequest(), "use patch-text"),
        ("resnet_small", "rollout", ExplanationRequest(), "use grad-cam or occlusion"),
        ("resnet_small", "gradcam", ExplanationRequest(), "did you mean grad-cam"),
        ("resnet_small", "auto", ExplanationRequest(class_name="sqare"), "unknown class 'sqare'; did you mean square"),
        (
            "resnet_small",
            "auto",
            ExplanationRequest(prompts=("a",)),
            "grad-cam takes no --prompt; it belongs to patch-text",
        ),
        ("resnet_small", "auto", ExplanationRequest(channels=3), "takes no --channels; it belongs to deconvnet"),
        ("resnet_small", "occlusion", ExplanationRequest(layer=0), "takes no --layer; it belongs to deconvnet"),
        (
            "vit_micro",
            "auto",
            ExplanationRequest(class_name="star"),
            "rollout takes no --class; it belongs to grad-cam",
        ),
        ("clip", "auto", ExplanationRequest(class_name="star"), "patch-text takes no --class"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(
    name: str, method: str, request_: ExplanationRequest, says: str, tmp_path: Path
) -> None:
    model = exported(tmp_path, name)
    with pytest.raises((InputError, UnknownNameError), match=says):
        explain(model, images(model), method=method, request=request_)


def test_grey_models_are_explained_too(tmp_path: Path) -> None:
    model = exported(tmp_path, "resnet_small", channels=1)
    (one,) = explain(model, images(model, 1))
    assert isinstance(one, Explanation)
    assert one.panels[0].picture.shape == (96, 96, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_an_image_file_comes_in_upright_on_white_and_at_the_models_size(kind: str, tmp_path: Path) -> None:
    model = exported(tmp_path, "resnet_small")
    mode, clear = ("RGBA", (0, 0, 0, 0)) if kind in ("PNG", "WEBP") else ("RGB", (255, 255, 255))
    buffer = io.BytesIO()
    Image.new(mode, (150, 100), clear).save(buffer, kind)
    pixels = model_image(model, buffer.getvalue(), name="a file")
    assert pixels.shape == (3, 96, 96)
    assert int(pixels.min()) > 250


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    model = exported(tmp_path, "resnet_small")
    with pytest.raises(InputError, match=r"notes\.txt: cannot be decoded \(not an image"):
        model_image(model, b"some notes", name="notes.txt")
