"""The configuration of a training on labelled shards, and its validation before any work."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.artifacts import Artifact
from pipeline.config import added, unkeyed
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.loading.loader_config import LoaderConfig
from pipeline.loading.policies.mixture import MixtureConfig
from pipeline.loading.policies.shuffled import ShuffledConfig
from pipeline.sharding.format.column_options import KeepRanges, keep_field
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import open_columns
from pipeline.training.class_weights import ClassWeights, class_weights, class_weights_field
from pipeline.training.image_model_config import ImageModelConfig
from pipeline.training.mixing_config import MixingConfig
from pipeline.training.optimizer_config import MuonConfig
from pipeline.training.placement import RunnerConfig
from pipeline.training.policies import PolicyConfig
from pipeline.training.progressive import check_sizes
from pipeline.training.rows import labelled_rows, training_rows
from pipeline.training.training_config import TrainingConfig


class ClassificationConfig(ImageModelConfig):
    """Training of a classifier on the labels of the shards."""

    label_smoothing: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Label smoothing: the fraction (0 to 1) of the target probability that is spread uniformly "
        "over all classes.",
    )
    loss: Literal["cross_entropy", "binary_cross_entropy"] = added(
        "cross_entropy",
        description="Loss on the labels. binary_cross_entropy: each class for itself, mean over the classes; a mixed "
        "image shows both its classes (ResNet strikes back).",
    )
    target_threshold: float | None = added(
        0.2,
        ge=0,
        lt=1,
        description="With binary_cross_entropy: a class of a mixed image has target 1 if its part of the image is "
        "above this, else 0. null: the target is the part.",
    )
    class_weights: ClassWeights = class_weights_field()
    mixing: MixingConfig = Field(MixingConfig(), description="Mixup and CutMix.")
    policy: PolicyConfig = Field(
        ShuffledConfig(), description="Sampling policy: how the samples of a batch are chosen."
    )
    loader: LoaderConfig = Field(LoaderConfig(), description="Data loading: augmentation, decoding, prefetching.")
    training: TrainingConfig = Field(
        TrainingConfig(), description="Training length, batch size, optimiser, schedule and precision."
    )
    runner: RunnerConfig = unkeyed(
        RunnerConfig(), description="Where the training runs, and its workers, CPUs and GPUs."
    )
    keep: KeepRanges = keep_field()

    @model_validator(mode="after")
    def _some_epochs_are_mixed(self) -> Self:
        epochs = self.training.epochs
        if (
            self.training.steps is None
            and epochs is not None
            and self.mixing.is_on
            and self.mixing.off_epochs >= epochs
        ):
            raise ValueError(f"mixing.off_epochs {self.mixing.off_epochs:g}: the training has only {epochs:g} epochs")
        return self

    def mixed_steps(self, epoch_samples: int) -> int | None:
        """Number of the first steps in which batches are mixed; None: all."""
        if self.mixing.off_epochs == 0:
            return None
        unmixed = self.mixing.off_epochs * self.training.steps_per_epoch(epoch_samples)
        return max(0, math.ceil(self.training.total_steps(epoch_samples) - unmixed))

    def check(self, shards: Artifact, columns: Artifact | None = None) -> SampleIndex:
        """Validates the configuration and its inputs before any work; returns the index.

        Raises:
            InputError: the model is unknown, mean or std is still to be read from the pretrained weights, `copies` does
                not divide the batch, class_weights names an unknown label, the shards have too few labels or lack
                labelled rows of the train split (or of val, for `patience` and `export_weights=best`), the columns are
                not the ones that `keep` names, or the model has no blocks for gradient checkpointing.
        """
        import torch

        from pipeline.training.gradient_checkpointing import check_blocks

        self.preprocessing()  # raises without mean and std
        index = SampleIndex.open(shards)
        if len(index.label_names) < 2:
            raise InputError(
                f"{shards.name}: has {counted(len(index.label_names), 'label')}; a classifier needs two at least"
            )
        self.loader.distinct_samples(self.training.global_batch)  # raises if `copies` does not divide the batch
        if len(labelled_rows(index, "train")) == 0:
            raise InputError(f"{shards.name}: no row of the train split has a label; look at its data card")
        if self.training.patience is not None and len(labelled_rows(index, "val")) == 0:
            raise InputError(
                f"training.patience: {shards.name} has no labelled sample in its val split, by which a training stops "
                "early; set patience=null, or shard with split.val_share above 0"
            )
        if self.training.export_weights == "best" and len(labelled_rows(index, "val")) == 0:
            raise InputError(
                f"training.export_weights: best needs labelled samples in the val split of {shards.name}; set ema or "
                "raw, or shard with split.val_share above 0"
            )
        _, joined = open_columns(columns, index, keep=self.keep)
        rows = training_rows(index, joined, self.keep)
        if len(rows) == 0:
            raise InputError(f"keep: no labelled row of the train split is in {dict(self.keep)}; make the ranges wider")
        if self.class_weights != "none":
            class_weights(self.class_weights, index.labels[rows.all()], index.label_names)  # raises if they do not fit
        if isinstance(self.policy, MixtureConfig):
            self.policy.build(index, rows, 1, self.training.seed)  # raises if its weights do not fit the data sets
        with torch.device("meta"):
            model = self.build_model(len(index.label_names))
            check_sizes(model, self.loader, self.channels)
            if self.training.gradient_checkpointing:
                check_blocks(model)
        if isinstance(self.training.optimizer, MuonConfig):
            from pipeline.training.muon import hidden_matrices

            hidden_matrices(model)  # raises if there is none
        return index
