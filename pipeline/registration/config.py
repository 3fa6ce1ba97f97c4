"""The configuration of register-model: the names of the registered models, and the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from pipeline.artifacts import ArtifactStore
from pipeline.config import Config, unkeyed
from pipeline.registration.gate import GateConfig

if TYPE_CHECKING:
    from pipeline.exported_model import ExportedModel

# MLflow allows more characters, but the name is also in a URI and in the path of a lease.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class RegistrationConfig(Config):
    """The names under which models are registered, and when a model becomes the champion."""

    classifier_name: str = Field(
        "emoji-classifier", pattern=_NAME, description="Name of the registered model for classifiers."
    )
    classifier: Literal["better", "student", "teacher"] = unkeyed(
        "better",
        description="Which classifier the lifecycle registers. better: student and teacher, and the teacher "
        "becomes the champion only if the gate finds it better than the student.",
    )
    clip_name: str = Field("emoji-clip", pattern=_NAME, description="Name of the registered model for dual encoders.")
    gate: GateConfig = Field(GateConfig(), description="When a new model becomes the champion.")
    if_incomparable: Literal["keep", "promote"] = Field(
        "keep",
        description="What to do if the champion cannot be evaluated on these samples, e.g. because it has other "
        "labels. keep: the champion stays; promote: the new model replaces it.",
    )
    registry_id: str = Field("", description="Identity of the model registry; set by the program.")

    def name_for(self, exported: ExportedModel) -> str:
        """The registered name of a model."""
        return self.classifier_name if exported.kind == "classifier" else self.clip_name

    def resolved(self, store: ArtifactStore) -> Self:
        """The config with the registry's identity, for `run_stage`.

        Without it, the artifact of a registration in another registry would be found, and nothing registered.

        Raises:
            InputError: the registry cannot be used.
        """
        # Imported here, so that a config can be read without importing MLflow.
        from pipeline.registration.mlflow_registry import registry_identity

        return self.model_copy(update={"registry_id": registry_identity(store)})
