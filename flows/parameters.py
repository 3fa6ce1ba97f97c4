"""The parameters of each flow: one model per flow, which validates Prefect's form, the shell and YAML files alike.

A flow's model contains the configs of its own stage and of the stages before it, so that an upstream artifact that is
not named by reference is built, or found in the store.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from pipeline.config import Config
from pipeline.contrastive.config import ContrastiveConfig
from pipeline.contrastive.ontology_config import OntologyConfig
from pipeline.distillation.config import DistillationConfig
from pipeline.evaluation.config import EvaluationConfig
from pipeline.leaks.bounds import LeakCheckConfig
from pipeline.registration.config import RegistrationConfig
from pipeline.report.config import ReportConfig
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.format.column_options import reads_user_columns
from pipeline.sharding.joining.config import JoinColumnsConfig
from pipeline.training.classification_config import ClassificationConfig
from pipeline.training.linear_probe.config import LinearProbeConfig


def reference(description: str, *stages: str, without: str = "built from this config") -> Any:
    """A field that names an artifact of one of `stages` by STAGE/KEY.

    Args:
        without: what null means.
    """
    return Field(
        None,
        description=f"{description}: an artifact such as {stages[0]}/0a1b2c. null: {without}.",
        pattern=r"^[a-z-]+/[0-9a-f]{4,64}$",
        json_schema_extra={"stages": list(stages)},
    )


_EVALUATION = Field(EvaluationConfig(), description="The samples and texts on which models are evaluated.")
_REGISTRATION = Field(
    RegistrationConfig(), description="Names of the registered models, and when the champion changes."
)
_NEW_STUDENT = "the student, trained from this config"
_SHARDS_STAGES = ("shard-dataset", "compact-shards", "mix-datasets")


# Fields shared by several flows. Prefect's form shows the fields of the last base first.
class DataParameters(Config):
    """The images of a flow: from one source, or from several data sets."""

    data: ShardingConfig = Field(
        ShardingConfig(), description="The images of one data set, and how they are split and stored."
    )
    mixture: dict[str, str] = Field(
        {},
        description="Train on several data sets instead of `data`: name and shards of each, e.g. {emoji: "
        "shard-dataset/0a1b2c, photos: shard-dataset/3d4e5f}. policy={kind: mixture} sets their sampling weights.",
        json_schema_extra={"stages": list(_SHARDS_STAGES)},
    )

    @property
    def sharded_data(self) -> ShardingConfig | None:
        """The images that the flow shards; None: its shards exist."""
        return None if self.mixture else self.data


class ShardsParameters(DataParameters):
    """The images of a flow that can start from existing shards."""

    shards: str | None = reference("Existing shards to use", *_SHARDS_STAGES)

    @property
    def sharded_data(self) -> ShardingConfig | None:
        return None if self.shards is not None else super().sharded_data

    @model_validator(mode="after")
    def _shards_are_one(self) -> Self:
        if self.shards is not None and self.mixture:
            raise ValueError("mixture: name either shards, or the data sets of a mixture")
        return self


class TeacherParameters(Config):
    """A flow that may train a teacher."""

    teacher: ClassificationConfig = Field(
        ClassificationConfig(), description="The teacher: its model and its training."
    )
    baseline: LinearProbeConfig | None = Field(
        None,
        description="A linear probe of the teacher's pretrained model: the first accuracy of a run, and the head with "
        "which the teacher's training starts. null: none.",
    )


class StudentParameters(TeacherParameters):
    """A flow that may train a student, and its teacher."""

    student: DistillationConfig = Field(
        DistillationConfig(), description="The student: its model, its distillation from the teacher, and its training."
    )


class NamedTeacherParameters(StudentParameters):
    """A flow that can start from an existing teacher."""

    teacher_model: str | None = reference("An existing teacher to use", "train-teacher", "distill-student")


class CurriculumParameters(Config):
    """A flow that can train a dual encoder."""

    ontology: OntologyConfig = Field(OntologyConfig(), description="How concepts are selected for the curriculum.")
    clip: ContrastiveConfig | None = Field(
        ContrastiveConfig(),
        description="The dual encoder (image and text): its backbones and its training. null: do not train one.",
    )

    @model_validator(mode="after")
    def _ontology_is_of_what_is_trained_on(self) -> Self:
        for name in ("captions_from", "keep") if self.clip is not None else ():
            if getattr(self.ontology, name) not in (
                OntologyConfig.model_fields[name].default,
                getattr(self.clip, name),
            ):
                raise ValueError(f"ontology.{name}: set clip.{name}; the ontology is built from the training samples")
        return self


class ColumnsParameters(Config):
    """A flow whose stages can read joined columns."""

    columns: JoinColumnsConfig | None = Field(
        None, description="A table of columns (scores, embeddings, captions) to join to the samples by key. null: none."
    )

    @model_validator(mode="after")
    def _columns_are_there(self) -> Self:
        readers = [name for name in type(self).model_fields if reads_user_columns(getattr(self, name))]
        if readers and self.columns is None:
            raise ValueError(
                f"{readers[0]}: reads joined columns (keep, captions_from); name their file: columns.source"
            )
        return self


class LeakCheckParameters(Config):
    """A flow that can check its data for leaks."""

    leaks: LeakCheckConfig | None = Field(
        None, description="Check for evaluation images in the training data, before training. null: no check."
    )
    leaks_against: str | None = reference(
        "Shards of another data set to check against as well, in both directions",
        *_SHARDS_STAGES,
        without="check the data set by itself only",
    )

    @model_validator(mode="after")
    def _leaks_are_checked(self) -> Self:
        if self.leaks_against is not None and self.leaks is None:
            raise ValueError("leaks_against: the leak check is off; set leaks, e.g. leaks={}")
        return self


class _Model(Config):
    """The model to register; the first field of its flow."""

    model: str | None = reference(
        "The model to register",
        "distill-student",
        "train-teacher",
        "linear-probe",
        "pretrain-clip",
        without=_NEW_STUDENT,
    )


class ShardDatasetParameters(LeakCheckParameters, DataParameters):
    """shard-dataset: source -> shards, index, data card."""


class TrainTeacherParameters(LeakCheckParameters, ColumnsParameters, TeacherParameters, ShardsParameters):
    """train-teacher: shards -> teacher and its metrics."""

    evaluation: EvaluationConfig = _EVALUATION


class DistillStudentParameters(ColumnsParameters, NamedTeacherParameters, ShardsParameters):
    """distill-student: shards and a teacher -> student and its metrics."""

    evaluation: EvaluationConfig = _EVALUATION


class PretrainClipParameters(ColumnsParameters, CurriculumParameters, NamedTeacherParameters, ShardsParameters):
    """pretrain-clip: image-text shards and an image backbone -> dual encoder and its metrics."""

    tower: str | None = reference(
        "The classifier to take the image backbone from", "distill-student", "train-teacher", without=_NEW_STUDENT
    )
    clip: ContrastiveConfig = Field(
        ContrastiveConfig(), description="The dual encoder (image and text): its backbones and its training."
    )
    evaluation: EvaluationConfig = _EVALUATION


class RegisterModelParameters(ColumnsParameters, NamedTeacherParameters, ShardsParameters, _Model):
    """register-model: a model and its metrics -> registry version, gate, alias."""

    evaluation: EvaluationConfig = _EVALUATION
    registration: RegistrationConfig = _REGISTRATION


class LifecycleParameters(
    LeakCheckParameters, ColumnsParameters, CurriculumParameters, StudentParameters, DataParameters
):
    """lifecycle: everything, from the source to the champions."""

    evaluation: EvaluationConfig = _EVALUATION
    registration: RegistrationConfig = _REGISTRATION
    report: ReportConfig = Field(ReportConfig(), description="How much the report shows.")
