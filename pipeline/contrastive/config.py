"""The configuration of pretrain-clip."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config import Config, unkeyed
from pipeline.contrastive.text_backbone_config import TextBackboneConfig
from pipeline.contrastive.tonics import TonicsConfig
from pipeline.evaluation.prompt_templates import check_template
from pipeline.loading.loader_config import LoaderConfig
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
    """An image backbone that is not taken from a trained classifier."""

    model: ModelConfig = Field(
        ModelConfig(name="deit_micro_distilled"), description="The image model; its classification head is dropped."
    )


class ContrastiveConfig(Config):
    """Training of a dual encoder (CLIP) on image-caption pairs."""

    new_tower: NewBackboneConfig = Field(
        NewBackboneConfig(),
        description="The image backbone to use without a trained classifier, e.g. one with pretrained weights "
        "(new_tower.model.pretrained).",
    )
    text: TextBackboneConfig = Field(TextBackboneConfig(), description="The text backbone.")
    embed_dim: int = Field(
        128, ge=2, le=8192, description="Dimension of the joint embedding space of images and texts."
    )
    freeze_tower: bool = Field(False, description="Freeze the image backbone of a trained classifier (LiT, Zhai 2022).")
    policy: PolicyConfig = Field(TonicsConfig(), description="Sampling policy: how the pairs of a batch are chosen.")
    captions: Literal["first", "random"] = Field(
        "random",
        description="Caption of a sample with several. first: always the first one; random: a new random choice "
        "at each draw.",
    )
    templates: tuple[str, ...] = Field(
        ("{}", "an emoji of {}"),
        min_length=1,
        description="Prompt templates for zero-shot classification, each with one {} for the class name, or "
        "{a_label} for the class name with its article.",
    )
    validation_pairs: int = Field(
        1000,
        ge=0,
        le=100_000,
        description="Maximum number of validation pairs on which recall is measured during training.",
    )
    loader: LoaderConfig = Field(LoaderConfig(), description="Data loading: augmentation, decoding, prefetching.")
    training: TrainingConfig = Field(
        TrainingConfig(), description="Training length, batch size, optimiser, schedule and precision."
    )
    runner: RunnerConfig = unkeyed(
        RunnerConfig(), description="Where the training runs, and its workers, CPUs and GPUs."
    )
    captions_from: str | None = captions_from_field()
    keep: KeepRanges = keep_field()

    @model_validator(mode="after")
    def _consistent(self) -> ContrastiveConfig:
        if self.training.auto_micro_batch:
            raise ValueError(
                "training.auto_micro_batch must be false: the negatives of a pair are the other pairs of its step; if "
                "memory is short, use gradient_checkpointing"
            )
        if self.training.accumulation > 1:
            raise ValueError(
                "training.accumulation must be 1: the negatives of a pair are the other pairs of its step, and a "
                "micro-batch has fewer; use more workers or a smaller global_batch"
            )
        if self.training.patience is not None:
            raise ValueError(
                "training.patience: early stopping is for classifiers, which have a validation accuracy; set it to null"
            )
        if self.training.export_weights == "best":
            raise ValueError(
                "training.export_weights: best is for classifiers, which have a validation accuracy; set ema or raw"
            )
        if self.training.parallelism == "fsdp":
            raise ValueError("training.parallelism: fsdp is for classifiers; set it to ddp")
        if self.training.freeze_batch_norm:
            raise ValueError("training.freeze_batch_norm: is for classifiers; leave it out")
        if self.training.optimizer.layer_decay is not None:
            raise ValueError("training.optimizer.layer_decay: layer-wise rates are for classifiers, by their head")
        for template in self.templates:
            check_template(template)
        return self
