"""The artifacts of a small run: a real evaluation of drawn shapes, with names that would break an unescaped page."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pydantic import Field

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.stage import EvaluateModel
from pipeline.exported_model import ExportedModel
from pipeline.leaks.bounds import LeakCheckConfig
from pipeline.leaks.stage import CheckLeaks
from pipeline.preprocessing import Preprocessing
from pipeline.sharding.format.index import SampleRow, content_hash
from pipeline.stage import Workspace, run_stage
from tests.small_shards import SmallShards, index_of

HOSTILE = '<script>alert("x")</script> & $\\frac{1}$'
LABELS = ("circle", HOSTILE, "a|b\"c'd")
COLOURS = ("red", "green", "blue", "orange")
PIXELS = 32


class FilesConfig(Config):
    """The output of a fake stage."""

    files: dict[str, str] = Field({}, description="name -> content")
    summary: dict[str, Any] = Field({}, description="headline")
    note: str = Field(HOSTILE, description="shown among the configuration")


class Files:
    """A stage that writes given files under a given name."""

    version: ClassVar[int] = 1

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, config: FilesConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        for name, text in config.files.items():
            (work.output / name).write_text(text, encoding="utf-8")
        return config.summary


class DrawShapes:
    """12 concepts in two styles; one style is the test split, orange concepts of the other are val."""

    name: ClassVar[str] = "shard-dataset"
    version: ClassVar[int] = 1

    def run(self, config: Config, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        cells = [(hand, label, colour) for hand in ("flat", "noto") for label in range(3) for colour in COLOURS]
        cells.sort(key=lambda cell: split_of(cell[0], cell[2]))
        rows = []
        with SmallShards(work.output, 100) as tars:
            for hand, label, colour in cells:
                key, data = f"{hand}-{label}-{colour}", draw(label, colour)
                split = split_of(hand, colour)
                location = tars.add(("train", "val", "test")[split], key, [("png", data)])
                group = label * len(COLOURS) + COLOURS.index(colour)
                rows.append(
                    SampleRow(
                        key, location.shard, location.offset, location.length, label, (f"{colour} {LABELS[label]}",),
                        PIXELS, PIXELS, content_hash(data), split, group, -1, hand,
                    )
                )  # fmt: skip
        index_of(rows, shard_names=tars.shard_names, label_names=LABELS).write(work.output)
        card = {
            "title": f"Shapes {HOSTILE}",
            "samples": len(rows),
            "labels": 3,
            "content_groups": 12,
            "captions": len(rows),
            "splits": {"train": 9, "val": 3, "test": 12},
            "per_label": [{"label": name, "samples": 8, "train": 3, "val": 1, "test": 4} for name in LABELS],
            "per_source": [
                {"source": hand, "samples": 12, "train": 9, "val": 3, "test": 0} for hand in ("flat", "noto")
            ],
            "duplicates": {"dropped_copies_of_held_out": 1, "dropped_repeats": 2},
            "unreadable": {"count": 4},
            "credits": [{"work": "Shapes", "author": HOSTILE, "licence": "CC0", "url": "https://example.org/<b>"}],
        }
        (work.output / "data_card.json").write_text(json.dumps(card), encoding="utf-8")
        Image.new("RGB", (64, 64), "white").save(work.output / "contact_sheet.png")
        return {"samples": len(rows), "labels": 3, "headline": f"{len(rows)} images, 3 labels"}


class WriteModel:
    """An untrained model with the log of a successful training."""

    version: ClassVar[int] = 1

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = "train-teacher" if kind == "classifier" else "pretrain-clip"

    def run(self, config: Config, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        torch.manual_seed(0)
        image = {"in_chans": 3, "img_size": PIXELS}
        classifier: dict[str, Any] = {"num_classes": 3, **image}
        text = {"width": 32, "depth": 1, "heads": 2, "context_length": 24, "vocabulary_size": 49408}
        dual: dict[str, Any] = {"image_tower": "lenet5", "image_kwargs": image, "text_kwargs": text, "embed_dim": 16}
        name, kwargs = ("lenet5", classifier) if self.kind == "classifier" else ("clip", dual)
        ExportedModel.write(
            work.output / "model", create_model(name, **kwargs), kind=self.kind,  # type: ignore[arg-type]
            architecture=name, kwargs=kwargs, preprocessing=Preprocessing(PIXELS, 3, (0.5,) * 3, (0.25,) * 3),
            labels=LABELS, templates=("{}",) if self.kind != "classifier" else (),
        )  # fmt: skip
        rows: list[dict[str, Any]] = [
            {"step": step, "epoch": step / 10, "train/loss": float(np.exp(-step / 50))} for step in range(10, 401, 10)
        ]
        quality = "val/accuracy" if self.kind == "classifier" else "val/image_recall_at_1"
        rows[-1][quality] = 0.61
        write_lines(work, "metrics.jsonl", rows)
        statistics = {
            "steps": 400,
            "seconds": 12.5,
            "images_per_s": 431.0,
            "parameters": 61706,
            "device": "cpu",
            "world": 1,
        }
        (work.output / "training.json").write_text(json.dumps(statistics))
        if self.kind != "classifier":
            first: dict[str, Any] = {"step": 100, "version": 1, "P": {"all": 1.0}, "accuracy": {"all": 0.2}}
            second: dict[str, Any] = {
                "step": 200,
                "version": 2,
                "P": {"all": 0.1, HOSTILE: 0.9},
                "accuracy": {"all": 0.6},
            }
            lines = [{**line, "frontier": list(line["P"]), "chance": 0.1} for line in (first, second)]
            write_lines(work, "curriculum.jsonl", lines)
        return {"val_accuracy": 0.61, "steps": 400}


def split_of(hand: str, colour: str) -> int:
    return 2 if hand == "noto" else 1 if colour == "orange" else 0


def write_lines(work: Workspace, name: str, rows: list[dict[str, Any]]) -> None:
    (work.output / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def draw(label: int, colour: str) -> bytes:
    image = Image.new("RGB", (PIXELS, PIXELS), "white")
    pen = ImageDraw.Draw(image)
    if label == 0:
        pen.ellipse((4, 4, 28, 28), fill=colour)
    elif label == 1:
        pen.rectangle((4, 4, 28, 28), fill=colour)
    else:
        pen.polygon([(16, 4), (28, 28), (4, 28)], fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def report_store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path_factory.mktemp("report")))


@pytest.fixture(scope="session")
def artifact_of(report_store: ArtifactStore) -> Callable[..., Artifact]:
    """Builds an artifact of any stage name with given files, summary and inputs."""

    def build(stage: str, files: dict[str, str], summary: dict[str, Any], **inputs: Artifact) -> Artifact:
        writes: Any = Files(stage)
        return run_stage(writes, FilesConfig(files=files, summary=summary), inputs, store=report_store)

    return build


@pytest.fixture(scope="session")
def run_inputs(report_store: ArtifactStore, artifact_of: Callable[..., Artifact]) -> dict[str, Artifact]:
    """Every artifact that a report accepts, by name."""
    shards = run_stage(DrawShapes(), Config(), {}, store=report_store)
    classifier: Any = WriteModel("classifier")
    dual_encoder: Any = WriteModel("dual-encoder")
    teacher = run_stage(classifier, Config(), {"shards": shards}, store=report_store)
    student = run_stage(classifier, Config(), {"shards": shards, "teacher": teacher}, store=report_store)
    clip = run_stage(dual_encoder, Config(), {"shards": shards}, store=report_store)

    def evaluated(model: Artifact) -> Artifact:
        inputs = {"shards": shards, "model": model}
        return run_stage(EvaluateModel(), EvaluationConfig(kept_examples=6), inputs, store=report_store)

    nodes = [{"name": "all", "path": "all", "parent": -1}, {"name": HOSTILE, "path": HOSTILE, "parent": 0}]
    return {
        "shards": shards,
        "leaks": run_stage(CheckLeaks(), LeakCheckConfig(), {"shards": shards}, store=report_store),
        "teacher": teacher,
        "student": student,
        "ontology": artifact_of(
            "build-ontology", {"ontology.json": json.dumps({"rule": "", "nodes": nodes})}, {"nodes": 2}
        ),
        "clip": clip,
        "teacher-evaluation": evaluated(teacher),
        "student-evaluation": evaluated(student),
        "clip-evaluation": evaluated(clip),
        "classifier-registration": artifact_of(
            "register-model",
            {},
            {
                "name": "emoji-classifier",
                "version": 3,
                "promoted": True,
                "reason": f"better than version 2 (p = 0.003) {HOSTILE}",
                "lookup": 'mlflow.pyfunc.load_model("models:/emoji-classifier@champion")',
            },
        ),
        "clip-registration": artifact_of(
            "register-model",
            {},
            {"name": "emoji-clip", "version": 2, "promoted": False, "reason": "not better than version 1 (p = 0.41)"},
        ),
    }
