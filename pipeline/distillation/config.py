"""The configuration of distill-student, and its validation before any work."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pipeline.artifacts import Artifact
from pipeline.distillation.loss_config import DistillationLossConfig
from pipeline.errors import InputError
from pipeline.sharding.format.index import SampleIndex
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.model_config import ModelConfig


class DistillationConfig(ClassificationConfig):
    """Training of a student on labels and on a teacher's outputs."""

    model: ModelConfig = Field(ModelConfig(name="deit_micro_distilled"), description="The student model.")
    distillation: DistillationLossConfig = Field(
        DistillationLossConfig(), description="How the student learns from the teacher."
    )

    @model_validator(mode="after")
    def _labels_are_learned_by_cross_entropy(self) -> Self:
        if self.loss != "cross_entropy":
            raise ValueError(f"loss: a student learns the labels by cross_entropy, not {self.loss}")
        return self

    @property
    def uses_stored_outputs(self) -> bool:
        """Whether the teacher's outputs are a joined column, so that no teacher is needed."""
        return self.distillation.teacher_column is not None

    def check(self, shards: Artifact, columns: Artifact | None = None) -> SampleIndex:
        index = super().check(shards, columns)
        self.check_method()
        return index

    def check_method(self) -> None:
        """Checks that the model has a distillation token if the method needs one, and else has none.

        Raises:
            InputError: it does not; or the model does not accept its arguments.
        """
        import torch

        from pipeline.training.classification import without_auxiliary

        with torch.device("meta"):
            outputs = self.build_model(2).train()(torch.empty(2, self.channels, self.image_size, self.image_size))
        has_token = isinstance(without_auxiliary(outputs), tuple)
        if has_token != (self.distillation.method == "token"):
            token_state = "has a distillation token" if has_token else "has no distillation token"
            fitting = "token" if has_token else "soft or hard"
            raise InputError(f"model {self.model.name!r} {token_state}; set student.distillation.method={fitting}")
