"""A store with a registry, pictures of three colours, and classifiers of them: a good one and defective ones."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from model_defs import create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.stage import EvaluateModel
from pipeline.exported_model import ExportedModel
from pipeline.preprocessing import Preprocessing
from pipeline.registration.config import RegistrationConfig
from pipeline.registration.stage import RegisterModel
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.sources.image_folder import ImageFolderConfig
from pipeline.sharding.stage import ShardDataset
from pipeline.sharding.writing.split_config import SplitConfig
from pipeline.stage import Workspace, run_stage

LABELS = ("blue", "green", "red")
SIZE = 16
PREPROCESSING = Preprocessing(SIZE, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASSIFIER = {"widths": [8], "depths": [1], "num_classes": 3, "in_chans": 3, "img_size": SIZE}
CLIP = {
    "image_tower": "lenet5",
    "image_kwargs": {"img_size": SIZE},
    "text_kwargs": {"width": 16, "depth": 1, "heads": 2, "context_length": 12},
    "embed_dim": 8,
}


def picture(label: str, number: int) -> bytes:
    """A noisy square of one colour, PNG."""
    generator = np.random.default_rng([number, LABELS.index(label)])
    pixels = generator.integers(0, 120, (SIZE, SIZE, 3))
    pixels[..., {"red": 0, "green": 1, "blue": 2}[label]] += 130
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


class TrainedConfig(Config):
    """The label that a classifier never predicts, if any."""

    forgets: str | None = Field(None, description="this label gets a hopeless logit")


class Trained:
    """A classifier of the colours, trained for a second."""

    name: ClassVar[str] = "train-teacher"
    version: ClassVar[int] = 1

    def run(self, config: TrainedConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        torch.manual_seed(0)
        model = create_model("resnet_small", **CLASSIFIER)
        images, labels = _pixels(100)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(PREPROCESSING.normalise(images)), labels).backward()
            optimizer.step()
        if config.forgets is not None:
            model.fc.bias.data[LABELS.index(config.forgets)] = -1000.0
        ExportedModel.write(
            work.output / "model",
            model,
            kind="classifier",
            architecture="resnet_small",
            kwargs=CLASSIFIER,
            preprocessing=PREPROCESSING,
            labels=LABELS,
        )
        return {}


class UntrainedClip:
    """An untrained dual encoder."""

    name: ClassVar[str] = "pretrain-clip"
    version: ClassVar[int] = 1

    def run(self, config: Config, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        torch.manual_seed(0)
        ExportedModel.write(
            work.output / "model",
            create_model("clip", **CLIP),
            kind="dual-encoder",
            architecture="clip",
            kwargs=CLIP,
            preprocessing=PREPROCESSING,
            labels=LABELS,
            templates=("a {} square", "{}"),
        )
        return {}


def _pixels(per_label: int) -> tuple[Tensor, Tensor]:
    pictures = [(picture(label, 1000 + n), place) for place, label in enumerate(LABELS) for n in range(per_label)]
    arrays = [np.array(Image.open(io.BytesIO(data))) for data, _ in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2), torch.tensor([place for _, place in pictures])


@dataclass(frozen=True)
class Colours:
    """The store, its shards, and the artifacts built from them."""

    store: ArtifactStore
    shards: Artifact

    def picture(self, label: str, number: int = 0) -> bytes:
        return picture(label, number)

    def classifier(self, forgets: str | None = None) -> Artifact:
        return run_stage(Trained(), TrainedConfig(forgets=forgets), {"shards": self.shards}, store=self.store)

    def clip(self) -> Artifact:
        return run_stage(UntrainedClip(), Config(), {"shards": self.shards}, store=self.store)

    def evaluate(self, model: Artifact) -> Artifact:
        inputs = {"shards": self.shards, "model": model}
        return run_stage(EvaluateModel(), EvaluationConfig(), inputs, store=self.store)

    def inputs(self, model: Artifact) -> dict[str, Artifact]:
        return {"model": model, "evaluation": self.evaluate(model), "shards": self.shards}

    def register(self, model: Artifact, **changes: Any) -> Artifact:
        config = RegistrationConfig(**changes).resolved(self.store)
        return run_stage(RegisterModel(), config, self.inputs(model), store=self.store)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Colours:
    """Shards of 180 pictures in their own store."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    folder: Path = tmp_path_factory.mktemp("colours")
    for label in LABELS:
        (folder / "pictures" / label).mkdir(parents=True)
        for number in range(60):
            (folder / "pictures" / label / f"{number}.png").write_bytes(picture(label, number))
    store = ArtifactStore.open(str(folder / "store"))
    source = ImageFolderConfig(
        folder=folder / "pictures", caption="a {label} square", licence="CC0-1.0", author="the tests"
    )
    config = ShardingConfig(source=source, split=SplitConfig(test_share=0.5)).resolved()
    return Colours(store, run_stage(ShardDataset(), config, {}, store=store))
