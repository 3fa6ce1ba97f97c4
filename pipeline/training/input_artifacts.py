"""Opens the input artifacts of a training on a worker's machine."""

from __future__ import annotations

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import WorkError


def open_artifact(store_url: str, artifact_name: str) -> Artifact:
    """Opens the artifact STAGE/KEY of a store on a worker's machine.

    Raises:
        WorkError: the artifact is not accessible from this machine.
    """
    artifact = ArtifactStore.open(store_url).find(artifact_name)
    if artifact is None:
        raise WorkError(
            f"{store_url}: artifact {artifact_name} is not there; workers on other machines need a store they all see"
        )
    return artifact


def open_optional(store_url: str, artifact_name: str | None) -> Artifact | None:
    """As `open_artifact`; None if `artifact_name` is None."""
    return None if artifact_name is None else open_artifact(store_url, artifact_name)
