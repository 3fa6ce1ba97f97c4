"""The configuration of a linear probe: its own settings, and the model on whose features it is fitted."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.artifacts import Artifact
from pipeline.config import Config, unkeyed
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.sharding.format.column_options import KeepRanges, keep_field
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import open_columns
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.image_model_config import ImageModelConfig
from pipeline.training.rows import labelled_rows, training_rows

_SAMPLES_PER_CLASS = 2  # max_samples must be at least so many times the number of classes


class LinearProbeConfig(Config):
    """A linear probe of the teacher's pretrained model: only a linear classifier on its features is fitted."""

    max_samples: int | None = Field(
        1024,
        ge=2,
        le=10_000_000,
        description="Maximum number of training images, drawn evenly over the classes, and of validation images. "
        "null: all; their features are held in memory.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Random seed of the draw of images.")
    threads: int = unkeyed(2, ge=1, le=256, description="Number of threads that decode images.")


class ProbedModelConfig(ImageModelConfig):
    """A pretrained model, and the linear probe of its features."""

    probe: LinearProbeConfig = Field(LinearProbeConfig(), description="The draw of images for the linear probe.")
    keep: KeepRanges = keep_field()

    @classmethod
    def of(cls, trained: ClassificationConfig, probe: LinearProbeConfig) -> Self:
        """The probe of the model from which a training starts, on the samples of the training."""
        shared = {name: getattr(trained, name) for name in (*ImageModelConfig.model_fields, "keep")}
        return cls(**shared, probe=probe)

    def head_name(self, classes: int = 2) -> str:
        """The name of the only linear layer that computes the model's class scores.

        Raises:
            InputError: the model has no pretrained weights, or does not end in one such layer.
        """
        if self.model.pretrained is None:
            raise InputError(
                "linear-probe: model.pretrained is not set, and the features of a random model say nothing; set it"
            )
        import torch

        from pipeline.training.linear_head import linear_head_name

        with torch.device("meta"):
            return linear_head_name(self.build_model(classes), self.model.name)

    def check(self, shards: Artifact, columns: Artifact | None = None) -> tuple[SampleIndex, NDArray[np.int64]]:
        """Validates the configuration and its inputs before any work; returns the index and the training rows.

        Raises:
            InputError: mean or std is still to be read from the weights, the model does not end in one linear layer,
                or fewer than two classes have labelled training samples.
        """
        self.preprocessing()  # raises without mean and std
        index = SampleIndex.open(shards)
        self.head_name()
        _, joined = open_columns(columns, index, keep=self.keep)
        rows = training_rows(index, joined, self.keep).all()
        classes = len(np.unique(np.asarray(index.labels)[rows]))
        if classes < 2:
            raise InputError(
                f"{shards.name}: its train split has labelled samples of {counted(classes, 'class', 'classes')}; "
                "a linear probe needs two classes at least"
            )
        limit = self.probe.max_samples
        if limit is not None and limit < _SAMPLES_PER_CLASS * classes:
            raise InputError(
                f"baseline.max_samples: {limit} training images are too few for {classes} classes; set it to "
                f"{_SAMPLES_PER_CLASS * classes} or more, or baseline=null"
            )
        return index, rows

    def validation_rows(self, index: SampleIndex) -> NDArray[np.int64]:
        """The labelled ids of the val split."""
        return labelled_rows(index, "val").all()
