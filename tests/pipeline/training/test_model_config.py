"""A model's arguments in a config are refused before any work, in one line with their path."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import parse_config
from pipeline.contrastive.text_backbone_config import TextBackboneConfig
from pipeline.errors import InputError
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.model_config import ModelConfig


@pytest.mark.parametrize(
    ("name", "kwargs", "line"),
    [
        ("vit_micro", {"depth": 0}, "model.kwargs.depth: must be 1 to 1,000, not 0 (vit_micro)"),
        ("vit_micro", {"depth": "4"}, "model.kwargs.depth: must be a whole number, not '4' (vit_micro)"),
        ("vit_micro", {"drop_path": 1.5}, "model.kwargs.drop_path: must be at least 0 and below 1, not 1.5 (vit"),
        ("resnet_small", {"widths": "8,16"}, "model.kwargs.widths: must be a list, not '8,16' (resnet_small)"),
        ("resnet_small", {"widths": [8, -1]}, "model.kwargs.widths.1: must be 1 to 65,536, not -1 (resnet_small)"),
        ("lenet5", {"name": "x"}, "model.kwargs.name: no such argument; known: img_size, in_chans, num"),
        ("resnet18", {"layers": 50}, "model.kwargs.layers: the name of the model fixes it; leave it out (resnet18)"),
        ("vit_micro", {"heads": 5}, "model: attention: width 128 cannot be split over 5 heads evenly"),
        ("vit_micro", {"width": 10, "heads": 1, "mlp_ratio": 0.05}, "model: transformer: an MLP of width 10 has no"),
    ],
)  # fmt: skip
def test_an_argument_out_of_bounds_is_named_with_its_path(name: str, kwargs: dict[str, Any], line: str) -> None:
    config = parse_config(ModelConfig, {"name": name, "kwargs": kwargs}, "test")
    with pytest.raises(InputError) as caught:
        config.check(in_chans=3, img_size=64)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("kwargs", "advice"),
    [
        ({"num_classes": 5}, "kwargs.num_classes is the number of labels of the data; leave it out"),
        ({"in_chans": 1}, "kwargs.in_chans is set by channels, next to model"),
        ({"img_size": 32}, "kwargs.img_size is set by image_size, next to model"),
        (
            {"pretrained": "DEFAULT"},
            "kwargs.pretrained would be fetched by every worker; set pretrained next",
        ),
    ],
)
def test_an_argument_that_another_field_sets_is_not_given_twice(kwargs: dict[str, Any], advice: str) -> None:
    with pytest.raises(InputError, match=f"teacher: model: {advice}"):
        parse_config(ClassificationConfig, {"model": {"kwargs": kwargs}}, "teacher")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"name": "bert", "kwargs": {"depth": 0}}, "clip.text.kwargs.depth: must be 1 to 1,000, not 0 (bert)"),
        ({"name": "bert", "kwargs": {"dept": 1}}, "clip.text.kwargs.dept: no such argument; did you mean depth?"),
        ({"kwargs": {"end_of_text": "."}}, "clip.text.kwargs.end_of_text: must be a whole number, not '.'"),
        ({"name": "bert", "kwargs": {"heads": 5}}, "clip.text: attention: width 768 cannot be split over 5 heads"),
    ],
)
def test_so_are_those_of_a_text_backbone(values: dict[str, Any], line: str) -> None:
    config = parse_config(TextBackboneConfig, values, "test")
    with pytest.raises(InputError) as caught:
        config.check("clip.text")
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kwargs": {"width": 64}}, "kwargs.width is a field of its own; set width next to kwargs"),
        ({"name": "bert", "kwargs": {"context_length": 8}}, "kwargs.context_length is a field of its own"),
        ({"name": "bert", "kwargs": {"vocabulary_size": 8}}, "kwargs.vocabulary_size follows from the tokenizer"),
        ({"kwargs": {"output_dim": 8}}, "kwargs.output_dim follows from embed_dim; leave it out"),
    ],
)
def test_a_text_backbone_s_arguments_are_not_given_twice(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_config(TextBackboneConfig, values, "text")


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_images_are_grey_or_rgb(channels: int) -> None:
    with pytest.raises(InputError, match=r"teacher: channels: "):
        parse_config(ClassificationConfig, {"channels": channels}, "teacher")
    if channels == 2:
        with pytest.raises(InputError, match=r"channels: must be 3 for RGB or 1 for greyscale \(got 2\)"):
            parse_config(ClassificationConfig, {"channels": channels}, "teacher")
