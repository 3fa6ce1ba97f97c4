"""How a dual encoder is trained: its configuration, and the parts that a worker makes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from model_defs import LoadingReport, ModelError, create_model
from model_defs.clip import CLIP
from pipeline.artifacts import Artifact
from pipeline.config import Config, unkeyed
from pipeline.contrastive.held_out import HeldOutPairs
from pipeline.contrastive.inputs import WEIGHTS_INPUTS, Inputs
from pipeline.contrastive.measures import CurriculumRefresh, ValidationRetrieval
from pipeline.contrastive.pair_encoder import PairEncoder
from pipeline.contrastive.task import ContrastiveTask
from pipeline.contrastive.text_tower import TextTowerConfig
from pipeline.contrastive.tonics import Tonics, TonicsConfig
from pipeline.errors import InputError
from pipeline.evaluation.zero_shot import check_template
from pipeline.exported_model import ExportedModel, Preprocessing
from pipeline.loading.loader import LoaderConfig
from pipeline.loading.policies.base import SamplingPolicy
from pipeline.loading.policies.mixture import MixtureConfig, samples_per_epoch
from pipeline.loading.policies.row_runs import RowRuns
from pipeline.loading.policies.shuffled import ShuffledConfig
from pipeline.loading.policies.streams import StreamsConfig
from pipeline.loading.reader import SampleReader
from pipeline.sharding.format.choice import KeepRanges, captions_from_field, keep_field
from pipeline.training.placement import RunnerConfig
from pipeline.training.stage import ModelConfig, open_artifact
from pipeline.training.starting_weights import check_given
from pipeline.training.task import Parts
from pipeline.training.training_config import TrainingConfig

PolicyConfig = Annotated[TonicsConfig | ShuffledConfig | StreamsConfig | MixtureConfig, Field(discriminator="kind")]


class NewTowerConfig(Config):
    """An image tower with fresh weights, where no trained one is given."""

    model: ModelConfig = Field(
        ModelConfig(name="deit_micro_distilled"), description="The image model; its head is dropped."
    )
    image_size: int = Field(64, ge=8, le=1024, description="Side of its square input in pixels.")
    channels: int = Field(3, ge=1, le=3, description="3 for RGB, 1 for grey.")
    mean: float = Field(0.5, ge=0, le=1, description="Subtracted from pixels in 0..1 before the model.")
    std: float = Field(0.25, gt=0, le=1, description="Pixels are divided by this after the mean is subtracted.")


class ContrastiveConfig(Config):
    """Training of a dual encoder on image-caption pairs."""

    new_tower: NewTowerConfig = Field(NewTowerConfig(), description="Image tower, where no trained one is an input.")
    text: TextTowerConfig = Field(TextTowerConfig(), description="Text tower.")
    embed_dim: int = Field(128, ge=2, le=8192, description="Width of the space that images and texts share.")
    freeze_tower: bool = Field(False, description="Keep a trained image tower as it is (Zhai 2022, LiT).")
    policy: PolicyConfig = Field(TonicsConfig(), description="Which pairs make a batch.")
    captions: Literal["first", "random"] = Field(
        "random", description="The first caption of a sample, or one of them drawn anew each time."
    )
    templates: tuple[str, ...] = Field(
        ("{}", "an emoji of {}"), min_length=1, description="Prompts for zero-shot use, each with one {} for the name."
    )
    validation_pairs: int = Field(
        1000, ge=0, le=100_000, description="Most validation pairs that recall is measured on."
    )
    loader: LoaderConfig = Field(LoaderConfig(), description="Decoding and augmentation.")
    training: TrainingConfig = Field(TrainingConfig(), description="Length, batch, optimiser, precision.")
    runner: RunnerConfig = unkeyed(RunnerConfig(), description="Where it runs.")
    captions_from: str | None = captions_from_field()
    keep: KeepRanges = keep_field()

    @model_validator(mode="after")
    def _consistent(self) -> ContrastiveConfig:
        if self.training.accumulation > 1:
            raise ValueError(
                "training.accumulation must be 1: a pair's negatives are its step's batch, and parts of it would have "
                "fewer; use more workers or a smaller global_batch"
            )
        for template in self.templates:
            check_template(template)
        return self


@dataclass(frozen=True)
class ContrastiveRecipe:
    """The TrainingRecipe of a dual encoder.

    Args:
        inputs: name -> STAGE/KEY of what `Inputs.open` opens.
    """

    config: ContrastiveConfig
    store_url: str
    inputs: tuple[tuple[str, str], ...]

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    def build(self, device: torch.device, rank: int, world: int) -> Parts:
        config, seed = self.config, self.config.training.seed
        artifacts = {name: open_artifact(self.store_url, uri) for name, uri in self.inputs}
        inputs = Inputs.open(artifacts, captions_from=config.captions_from, keep=config.keep)
        policy, held_out = build_policy(config, inputs)
        samples = len(inputs.training_pairs())
        preprocessing = preprocessing_of(config, inputs.tower)
        tokenizer = config.text.build_tokenizer(inputs.text_weights)
        reader = SampleReader.open(inputs.shards, remote=config.loader.remote, verify=config.loader.verify)
        loader = config.loader.build(
            reader,
            inputs.index,
            policy,
            image_size=preprocessing.image_size,
            channels=preprocessing.channels,
            seed=seed,
            samples=samples,
            rank=rank,
            world=world,
            tokenizer=tokenizer,
            captions=config.captions,
            columns=inputs.columns,
            device=device,
        )
        encoder = PairEncoder(reader, inputs.index, preprocessing, tokenizer, device, config.loader.threads)
        pairs = inputs.validation_pairs(config.validation_pairs, seed)
        evaluate = None
        if len(pairs) > 1:
            groups = np.asarray(inputs.index.groups)[pairs].astype(np.int64)
            contents = np.where(groups >= 0, groups, -1 - pairs)
            evaluate = ValidationRetrieval(encoder, pairs, contents, rank, world)
        refresh = None
        if isinstance(policy, Tonics) and held_out is not None:
            refresh = CurriculumRefresh(policy, held_out, encoder, rank, world)
        return Parts(
            build_model(config, inputs).to(device),
            ContrastiveTask(preprocessing, world=world, freeze_tower=config.freeze_tower),
            loader,
            rows=samples_per_epoch(policy, samples),
            evaluate=evaluate,
            refresh=refresh,
        )


def build_policy(config: ContrastiveConfig, inputs: Inputs) -> tuple[SamplingPolicy, HeldOutPairs | None]:
    """The policy, and for a curriculum what moves it.

    Raises:
        InputError: the policy cannot be made from these inputs.
    """
    training, policy = config.training, config.policy
    batch = config.loader.distinct(training.global_batch)
    if isinstance(policy, ShuffledConfig | StreamsConfig | MixtureConfig):
        rows = inputs.training_pairs()
        if len(rows) == 0:
            kept = " and is kept" if config.keep else ""
            raise InputError(
                f"{inputs.shards.uri}: no training sample has a caption{kept}; shard a data set with captions"
            )
        return policy.build(inputs.index, RowRuns.of_rows(rows), batch, training.seed), None
    if inputs.ontology is None:
        raise InputError("policy tonics: needs an ontology; run build-ontology first, or set policy.kind=shuffled")
    tonics = policy.build(inputs.ontology, batch, training.seed)
    held_out = None
    if tonics.ready_until() is not None:
        held_out = HeldOutPairs(inputs.ontology, policy.held_out_batch, policy.held_out_batches, training.seed)
    return tonics, held_out


def preprocessing_of(config: ContrastiveConfig, tower: ExportedModel | None) -> Preprocessing:
    """The trained tower's own preprocessing, else that of the new tower."""
    if tower is not None:
        return tower.preprocessing
    new = config.new_tower
    return Preprocessing(new.image_size, new.channels, (new.mean,) * new.channels, (new.std,) * new.channels)


def model_kwargs(config: ContrastiveConfig, inputs: Inputs) -> dict[str, Any]:
    """The arguments of `create_model("clip", ...)`, plain JSON values."""
    tower = inputs.tower
    if tower is not None:
        name, kwargs = tower.architecture, {key: tower.kwargs[key] for key in tower.kwargs if key != "num_classes"}
    else:
        new = config.new_tower
        name = new.model.name
        kwargs = {**new.model.kwargs, "img_size": new.image_size, "in_chans": new.channels}
    text = config.text.model_kwargs(config.text.build_tokenizer(inputs.text_weights).vocabulary_size)
    return {"image_tower": name, "image_kwargs": kwargs, **text, "embed_dim": config.embed_dim}


def build_model(config: ContrastiveConfig, inputs: Inputs) -> CLIP:
    """A dual encoder; its image tower has the trained tower's weights, but for the head, or imported ones.

    Raises:
        InputError: the arguments do not fit, or the weights do not.
    """
    trained = inputs.tower is not None or inputs.image_weights is not None
    if config.freeze_tower and not trained:
        raise InputError("freeze_tower=true: there is no trained tower to keep; give one as input, or set it to false")
    model = _fresh_model(config, inputs)
    if inputs.tower is not None:
        load_tower(model.image, inputs.tower)
    elif inputs.image_weights is not None:
        inputs.image_weights.load_into(model.image)
    if inputs.text_weights is not None:
        inputs.text_weights.load_into(model.text)
    for parameter in model.image.parameters():
        parameter.requires_grad_(not config.freeze_tower)
    config.text.freeze_in(model.text)
    return model


def _fresh_model(config: ContrastiveConfig, inputs: Inputs) -> CLIP:
    try:
        model = create_model("clip", **model_kwargs(config, inputs))
    except (ModelError, TypeError) as error:
        raise InputError(f"dual encoder: {error}") from None
    assert isinstance(model, CLIP)
    return model


def starting_reports(config: ContrastiveConfig, inputs: Mapping[str, Artifact]) -> list[LoadingReport]:
    """What will become of imported weights, tower by tower.

    Raises:
        InputError: they are not weights of these towers, or the config and the inputs do not say the same.
    """
    asked = (config.new_tower.model.pretrained if "tower" not in inputs else None, config.text.pretrained)
    given = [
        check_given(pretrained, inputs.get(name), field, name)
        for pretrained, name, field in zip(
            asked, WEIGHTS_INPUTS, ("new_tower.model.pretrained", "text.pretrained"), strict=True
        )
    ]
    with torch.device("meta"):
        model = _fresh_model(config, Inputs.open(inputs, captions_from=config.captions_from, keep=config.keep))
    towers = (model.image, model.text)
    return [weights.load_into(tower) for weights, tower in zip(given, towers, strict=True) if weights is not None]


def load_tower(image: nn.Module, tower: ExportedModel) -> None:
    """Gives the image tower a classifier's weights; what the tower does not have is the classifier's head."""
    weights = tower.weights()
    wanted = image.state_dict()
    wrong = [name for name, value in wanted.items() if name not in weights or weights[name].shape != value.shape]
    if wrong:
        raise InputError(f"{tower.folder}: its weights do not fit the image tower: {', '.join(wrong[:3])}")
    image.load_state_dict({name: weights[name] for name in wanted})
