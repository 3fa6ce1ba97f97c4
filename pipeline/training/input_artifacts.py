"""The input artifacts of a training, as a worker opens them on its own machine."""

from __future__ import annotations

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import WorkError


def open_artifact(store_url: str, uri: str) -> Artifact:
    """The artifact STAGE/KEY of a store, as a worker opens it on its own machine.

    Raises:
        WorkError: it cannot be seen from here.
    """
    artifact = ArtifactStore.open(store_url).find(uri)
    if artifact is None:
        raise WorkError(
            f"{store_url}: artifact {uri} is not there; workers on other machines need a store they all see"
        )
    return artifact


def open_optional(store_url: str, uri: str | None) -> Artifact | None:
    """As `open_artifact`; None if there is none to open."""
    return None if uri is None else open_artifact(store_url, uri)
