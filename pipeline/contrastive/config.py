"""The configuration of pretrain-clip."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config import Config, unkeyed
from pipeline.contrastive.text_backbone import TextBackboneConfig
from pipeline.contrastive.tonics import TonicsConfig
from pipeline.evaluation.zero_shot import check_template
from pipeline.loading.loader import LoaderConfig
from pipeline.loading.policies.mixture import MixtureConfig
from pipeline.loading.policies.shuffled import ShuffledConfig
from pipeline.loading.policies.streams import StreamsConfig
from pipeline.sharding.format.column_options import KeepRanges, captions_from_field, keep_field
from pipeline.training.image_model_config import ImageModelConfig
from pipeline.training.model_config import ModelConfig
from pipeline.training.placement import RunnerConfig
from pipeline.training.training_config import TrainingConfig

PolicyConfig = Annotated[TonicsConfig | ShuffledConfig | StreamsConfig | MixtureConfig, Field(discriminator="kind")]


class NewBackboneConfig(ImageModelConfig):
    """An image backbone with new weights, for runs without a trained classifier."""

    model: ModelConfig = Field(
        ModelConfig(name="deit_micro_distilled"), description="The image model; its head is dropped."
    )


class ContrastiveConfig(Config):
    """Training of a dual encoder on image-caption pairs."""

    new_tower: NewBackboneConfig = Field(
        NewBackboneConfig(), description="The image backbone if no trained classifier is given."
    )
    text: TextBackboneConfig = Field(TextBackboneConfig(), description="The text backbone.")
    embed_dim: int = Field(128, ge=2, le=8192, description="Width of the space that images and texts share.")
    freeze_tower: bool = Field(False, description="Freeze a trained image backbone (Zhai 2022, LiT).")
    policy: PolicyConfig = Field(TonicsConfig(), description="How the pairs of a batch are chosen.")
    captions: Literal["first", "random"] = Field(
        "random", description="The first caption of a sample, or a random one of its captions at each draw."
    )
    templates: tuple[str, ...] = Field(
        ("{}", "an emoji of {}"), min_length=1, description="Prompts for zero-shot use, each with one {} for the name."
    )
    validation_pairs: int = Field(
        1000, ge=0, le=100_000, description="Most validation pairs on which recall is measured."
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
                "training.accumulation must be 1: a pair's negatives come from its step's batch, and a micro-batch has "
                "fewer; use more workers or a smaller global_batch"
            )
        for template in self.templates:
            check_template(template)
        return self
