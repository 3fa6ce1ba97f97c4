"""A small shards artifact of coloured shapes in three drawing styles, and untrained models for it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from PIL import Image, ImageDraw
from pydantic import Field

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing
from pipeline.sharding.format.index import SampleRow, content_hash
from pipeline.stage import Workspace, run_stage
from tests.small_shards import SmallShards, index_of

SHAPES = ("circle", "square", "triangle")
COLOURS = ("red", "green", "blue", "orange")
HANDS = {"flat": 1.0, "ink": 0.8, "noto": 0.6}  # scale of the same drawing
PIXELS = 32
PREPROCESSING = Preprocessing(PIXELS, 3, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))

BuildModel = Callable[..., Artifact]


class DrawShapes:
    """12 concepts in three styles: "noto" is the test split, orange concepts of the others are val.

    Red circles have no label; green squares and green triangles share their first caption.
    """

    name: ClassVar[str] = "shard-dataset"
    version: ClassVar[int] = 1

    def run(self, config: Config, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        drawn = []
        for hand, scale in HANDS.items():
            for group, (shape, colour) in enumerate((s, c) for s in SHAPES for c in COLOURS):
                split = 2 if hand == "noto" else 1 if colour == "orange" else 0
                drawn.append((split, hand, scale, group, shape, colour))
        drawn.sort(key=lambda entry: entry[0])
        rows = []
        with SmallShards(work.output, 20) as tars:
            for split, hand, scale, group, shape, colour in drawn:
                data = draw(shape, colour, scale)
                member = tars.add(("train", "val", "test")[split], f"{hand}-{colour}-{shape}", [("png", data)])
                name = "something green" if colour == "green" and shape != "circle" else f"{colour} {shape}"
                label = -1 if (shape, colour) == ("circle", "red") else SHAPES.index(shape)
                captions = (name, f"a {shape} in {colour}")
                rows.append(
                    SampleRow(
                        f"{hand}-{colour}-{shape}", member.shard, member.offset, member.length, label, captions,
                        PIXELS, PIXELS, content_hash(data), split, group, -1, hand,
                    )
                )  # fmt: skip
        index = index_of(rows, shard_names=tars.shard_names, label_names=SHAPES)
        index.write(work.output)
        return {"samples": len(index)}


class ModelConfig(Config):
    """The config of an untrained model."""

    kind: Literal["classifier", "dual-encoder"] = Field(description="kind")
    architecture: str = Field(description="name in model_defs")
    kwargs: dict[str, Any] = Field(description="its arguments")
    labels: tuple[str, ...] = Field(SHAPES, description="class names")
    ruin: bool = Field(False, description="put NaN into the weights")


class WriteModel:
    """An untrained model as an artifact."""

    name: ClassVar[str] = "train-teacher"
    version: ClassVar[int] = 1

    def run(self, config: ModelConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        torch.manual_seed(0)
        model = create_model(config.architecture, **config.kwargs)
        if config.ruin:
            next(model.parameters()).data.fill_(float("nan"))
        ExportedModel.write(
            work.output / "model", model, kind=config.kind, architecture=config.architecture, kwargs=config.kwargs,
            preprocessing=PREPROCESSING, labels=config.labels,
            templates=("{}", "a drawing of a {}") if config.kind == "dual-encoder" else (),
        )  # fmt: skip
        return {}


def draw(shape: str, colour: str, scale: float) -> bytes:
    image = Image.new("RGB", (PIXELS, PIXELS), "white")
    pen = ImageDraw.Draw(image)
    low, high = PIXELS / 2 * (1 - scale * 0.9), PIXELS / 2 * (1 + scale * 0.9)
    if shape == "circle":
        pen.ellipse((low, low, high, high), fill=colour)
    elif shape == "square":
        pen.rectangle((low, low, high, high), fill=colour)
    else:
        pen.polygon([(PIXELS / 2, low), (high, high), (low, high)], fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def shapes_store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    folder: Path = tmp_path_factory.mktemp("shapes")
    return ArtifactStore.open(str(folder))


@pytest.fixture(scope="session")
def shapes(shapes_store: ArtifactStore) -> Artifact:
    """The shards."""
    return run_stage(DrawShapes(), Config(), {}, store=shapes_store)


@pytest.fixture(scope="session")
def build_classifier(shapes_store: ArtifactStore) -> BuildModel:
    """An untrained classifier of the shapes."""

    def build(labels: tuple[str, ...] = SHAPES, ruin: bool = False) -> Artifact:
        kwargs = {"num_classes": len(labels), "in_chans": 3, "img_size": PIXELS}
        config = ModelConfig(kind="classifier", architecture="lenet5", kwargs=kwargs, labels=labels, ruin=ruin)
        return run_stage(WriteModel(), config, {}, store=shapes_store)

    return build


@pytest.fixture(scope="session")
def dual_encoder(shapes_store: ArtifactStore) -> Artifact:
    """An untrained dual encoder."""
    kwargs = {
        "image_tower": "lenet5",
        "image_kwargs": {"in_chans": 3, "img_size": PIXELS},
        "text_kwargs": {"width": 32, "depth": 1, "heads": 2, "context_length": 12, "vocabulary_size": 49408},
        "embed_dim": 16,
    }
    config = ModelConfig(kind="dual-encoder", architecture="clip", kwargs=kwargs)
    return run_stage(WriteModel(), config, {}, store=shapes_store)
