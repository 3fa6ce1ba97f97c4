"""The stage train-teacher: labelled shards -> an exported classifier, and its metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import nn

from model_defs import ModelError, create_model
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config, canonical_json, unkeyed
from pipeline.errors import InputError, WorkError
from pipeline.exported_model import ExportedModel, Preprocessing
from pipeline.loading.batch import rank_slice
from pipeline.loading.evaluation_batches import HeldBatches, evaluation_batches
from pipeline.loading.loader import LoaderConfig
from pipeline.loading.policies.mixture import MixtureConfig, samples_per_epoch
from pipeline.loading.policies.shuffled import ShuffledConfig
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.choice import KeepRanges, keep_field, open_columns
from pipeline.sharding.format.index import SampleIndex
from pipeline.stage import Workspace
from pipeline.training.classification import Classification, ClassifierEvaluation
from pipeline.training.mixing import MixingConfig
from pipeline.training.placement import RunnerConfig
from pipeline.training.policies import PolicyConfig
from pipeline.training.progressive import check_sizes
from pipeline.training.rows import labelled_rows, training_rows
from pipeline.training.runner import TrainingResult, execute
from pipeline.training.starting_weights import StartingWeights, starting_report, write_report
from pipeline.training.task import Parts, Task
from pipeline.training.training_config import TrainingConfig


class ModelConfig(Config):
    """A model of the zoo; `tutelage models` lists them."""

    name: str = Field("resnet_small", description="Name in the zoo.")
    kwargs: dict[str, Any] = Field({}, description="Keyword arguments of that model, e.g. widths or depth.")
    # Not in the key: what it names then is, as the artifact of import-weights that the training starts from.
    pretrained: str | None = unkeyed(
        None,
        min_length=1,
        max_length=1000,
        description="Trained weights to start from: DEFAULT (those of the catalogue), a torchvision name, a file or"
        " folder, hf:ORG/NAME, models:/NAME@alias, STAGE/KEY of the store; null: fresh ones.",
    )

    @model_validator(mode="after")
    def _pretrained_beside(self) -> ModelConfig:
        if "pretrained" in self.kwargs:
            raise ValueError("kwargs.pretrained would be fetched by every worker; set pretrained beside kwargs")
        return self

    def build(self, *, num_classes: int, in_chans: int, img_size: int) -> nn.Module:
        """A new model with fresh weights.

        Raises:
            InputError: there is no such model, or it does not take these arguments.
        """
        try:
            return create_model(self.name, num_classes=num_classes, in_chans=in_chans, img_size=img_size, **self.kwargs)
        except ModelError as error:
            raise InputError(f"model: {error}") from None

    def check(self, *, in_chans: int, img_size: int) -> None:
        """Builds it without memory.

        Raises:
            InputError: there is no such model, or it does not take these arguments.
        """
        with torch.device("meta"):
            self.build(num_classes=2, in_chans=in_chans, img_size=img_size)


class ClassificationConfig(Config):
    """Training of a classifier on the labels of the shards."""

    model: ModelConfig = Field(ModelConfig(), description="What is trained.")
    image_size: int = Field(64, ge=8, le=1024, description="Side of the model's square input in pixels.")
    channels: int = Field(3, ge=1, le=3, description="3 for RGB, 1 for grey.")
    mean: float = Field(0.5, ge=0, le=1, description="Subtracted from pixels in 0..1 before the model.")
    std: float = Field(0.25, gt=0, le=1, description="Pixels are divided by this after the mean is subtracted.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of a target that is spread over all classes.")
    mixing: MixingConfig = Field(MixingConfig(), description="Mixup and CutMix.")
    policy: PolicyConfig = Field(ShuffledConfig(), description="Which samples make a batch.")
    loader: LoaderConfig = Field(LoaderConfig(), description="Decoding and augmentation.")
    training: TrainingConfig = Field(TrainingConfig(), description="Length, batch, optimiser, precision.")
    runner: RunnerConfig = unkeyed(RunnerConfig(), description="Where it runs.")
    keep: KeepRanges = keep_field()

    def preprocessing(self) -> Preprocessing:
        """How this classifier wants its images."""
        return Preprocessing(
            image_size=self.image_size,
            channels=self.channels,
            mean=(self.mean,) * self.channels,
            std=(self.std,) * self.channels,
        )

    def build_model(self, classes: int) -> nn.Module:
        """The model with fresh weights, which depend on torch's seed."""
        return self.model.build(num_classes=classes, in_chans=self.channels, img_size=self.image_size)

    def check(self, shards: Artifact, columns: Artifact | None = None) -> SampleIndex:
        """Refuses what cannot be trained, before any work.

        Raises:
            InputError: the model is unknown, the shards have too few labels or no labelled training rows, or the
                columns are not those that `keep` names.
        """
        index = SampleIndex.open(shards)
        if len(index.label_names) < 2:
            raise InputError(f"{shards.uri}: has {len(index.label_names)} labels; a classifier needs two at least")
        self.loader.distinct(self.training.global_batch)
        if len(labelled_rows(index, "train")) == 0:
            raise InputError(f"{shards.uri}: no row of the train split has a label; look at its data card")
        _, joined = open_columns(columns, index, keep=self.keep)
        rows = training_rows(index, joined, self.keep)
        if len(rows) == 0:
            raise InputError(f"keep: no labelled row of the train split is in {dict(self.keep)}; make the ranges wider")
        if isinstance(self.policy, MixtureConfig):
            self.policy.build(index, rows, 1, self.training.seed)
        with torch.device("meta"):
            model = self.build_model(len(index.label_names))
            check_sizes(model, self.loader, self.channels)
        return index


def build_parts(
    config: ClassificationConfig,
    shards: Artifact,
    task: Task,
    device: torch.device,
    rank: int,
    world: int,
    weights: Artifact | None = None,
    columns: Artifact | None = None,
) -> Parts:
    """The parts of a training on labelled shards: what a classifier and a distilled student have in common.

    Args:
        weights: imported ones that the model starts from.
        columns: joined to the shards, for `config.keep`; they come with the batches.
    """
    index = SampleIndex.open(shards)
    _, joined = open_columns(columns, index, keep=config.keep)
    reader = SampleReader.open(shards, remote=config.loader.remote, verify=config.loader.verify)
    seed = config.training.seed
    rows = training_rows(index, joined, config.keep)
    policy = config.policy.build(index, rows, config.loader.distinct(config.training.global_batch), seed)
    loader = config.loader.build(
        reader,
        index,
        policy,
        image_size=config.image_size,
        channels=config.channels,
        seed=seed,
        samples=len(rows),
        rank=rank,
        world=world,
        columns=joined,
        device=device,
    )
    held_out = labelled_rows(index, "val").all()
    evaluation = None
    if len(held_out):
        batches = partial(
            evaluation_batches,
            reader,
            index,
            image_size=config.image_size,
            channels=config.channels,
            batch_size=256,
            threads=config.loader.threads,
        )
        held = HeldBatches(batches, rank_slice(held_out, rank, world), config.loader.evaluation_megabytes)
        evaluation = ClassifierEvaluation(held, config.preprocessing(), device=device, world=world, prefix="val")
    torch.manual_seed(seed)  # initial weights depend on nothing that came before
    model = config.build_model(len(index.label_names))
    if weights is not None:
        StartingWeights.open(weights).load_into(model)
    # Convolutions run on this layout without conversions: resnet_small trains 1.2x faster on CPUs.
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Parts(model, task, loader, rows=samples_per_epoch(policy, len(rows)), evaluate=evaluation)


def open_artifact(store_url: str, uri: str) -> Artifact:
    """The artifact STAGE/KEY of a store, as a worker opens it on its own machine.

    Raises:
        WorkError: it cannot be seen from here.
    """
    stage, _, key = uri.partition("/")
    artifact = ArtifactStore.open(store_url).find(stage, key)
    if artifact is None:
        raise WorkError(
            f"{store_url}: artifact {uri} is not there; workers on other machines need a store they all see"
        )
    return artifact


def open_optional(store_url: str, uri: str | None) -> Artifact | None:
    """As `open_artifact`; None if there is none to open."""
    return None if uri is None else open_artifact(store_url, uri)


@dataclass(frozen=True)
class ClassificationRecipe:
    """The TrainingRecipe of a classifier; `weights` names imported ones that it starts from."""

    config: ClassificationConfig
    store_url: str
    shards: str
    weights: str | None = None
    columns: str | None = None

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    def build(self, device: torch.device, rank: int, world: int) -> Parts:
        task = Classification(
            self.config.preprocessing(),
            smoothing=self.config.label_smoothing,
            mixing=self.config.mixing,
            seed=self.config.training.seed,
        )
        shards = open_artifact(self.store_url, self.shards)
        weights, columns = (open_optional(self.store_url, uri) for uri in (self.weights, self.columns))
        return build_parts(self.config, shards, task, device, rank, world, weights, columns)


def export(config: ClassificationConfig, labels: tuple[str, ...], result: TrainingResult, work: Workspace) -> None:
    """Writes the trained classifier to `work.output`/model."""
    ExportedModel.write(
        work.output / "model",
        result.state,
        kind="classifier",
        architecture=config.model.name,
        kwargs={
            **config.model.kwargs,
            "num_classes": len(labels),
            "in_chans": config.channels,
            "img_size": config.image_size,
        },
        preprocessing=config.preprocessing(),
        labels=labels,
    )


def summary(result: TrainingResult) -> dict[str, Any]:
    """The headline numbers of a training."""
    measured = {
        name.replace("/", "_"): round(value, 4)
        for name in ("val/accuracy", "val/accuracy_top5", "val/agreement", "train/loss")
        if (value := result.last(name)) is not None
    }
    return {**measured, **result.headline_facts()}


class TrainTeacher:
    """Trains a classifier: CNN or transformer, in process or on Ray Train."""

    name: ClassVar[str] = "train-teacher"
    version: ClassVar[int] = 2

    def run(self, config: ClassificationConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Fills `work.output` with model/, metrics.jsonl and training.json.

        Args:
            inputs: "shards"; "weights", imported ones, if model.pretrained is set; "columns", joined ones, if keep is.
        """
        shards, weights = inputs["shards"], inputs.get("weights")
        index = config.check(shards, inputs.get("columns"))
        report = starting_report(config.model.pretrained, weights, lambda: config.build_model(len(index.label_names)))
        uris = {name: artifact.uri for name, artifact in inputs.items()}
        recipe = ClassificationRecipe(
            config, work.store.storage.url, shards.uri, uris.get("weights"), uris.get("columns")
        )
        result = execute(recipe, config.runner, work, params={**json.loads(canonical_json(config)), **uris})
        if report is not None:
            write_report(report, work.output)
        export(config, index.label_names, result, work)
        return summary(result)
