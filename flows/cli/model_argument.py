"""The argument MODEL of a command: a registered version, an artifact, or the folder of an exported model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.preflight import open_store
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError, listed
from pipeline.owners import temporary_folder

if TYPE_CHECKING:
    from pipeline.exported_model import ExportedModel

ARCHITECTURE = "architecture.json"


@contextmanager
def exported_model(model_uri: str) -> Iterator[ExportedModel]:
    """The model that an argument names; the files of a registered version exist within the block only.

    Raises:
        InputError: it names no model.
    """
    folder = _folder_of(model_uri)
    if folder is not None:
        from pipeline.exported_model import ExportedModel

        yield ExportedModel.read(folder)
        return
    if model_uri.startswith("models:"):
        from pipeline.registration.lookup import find_version

        registry, version = find_version(open_store(), model_uri)
        with temporary_folder() as name:
            yield registry.fetch(version, Path(name))
        return
    artifact = _model_artifact(model_uri, open_store())
    from pipeline.exported_model import ExportedModel

    yield ExportedModel.open(artifact)


def model_artifact(model_uri: str, store: ArtifactStore) -> Artifact:
    """The model that an argument names, as an artifact of the store; a model from elsewhere is copied into it.

    Raises:
        InputError: it names no model.
    """
    folder = _folder_of(model_uri)
    if folder is None and not model_uri.startswith("models:"):
        return _model_artifact(model_uri, store)
    from pipeline.registration.lookup import find_version
    from pipeline.registration.model_artifact import artifact_of_folder, artifact_of_version

    if folder is not None:
        return artifact_of_folder(folder, store)
    registry, version = find_version(store, model_uri)
    return artifact_of_version(version, registry, store)


def names_of_model(model_uri: str, store: ArtifactStore) -> tuple[str, ...]:
    """STAGE/KEY of each artifact that `model_artifact` could return; copies nothing.

    A registered version has up to two: the artifact that was registered, and its copy.

    Raises:
        InputError: it names no model.
    """
    folder = _folder_of(model_uri)
    if folder is None and not model_uri.startswith("models:"):
        return (_model_artifact(model_uri, store).name,)
    from pipeline.registration.lookup import find_version
    from pipeline.registration.model_artifact import name_of_folder, names_of_version

    if folder is not None:
        return (name_of_folder(folder, store),)
    registry, version = find_version(store, model_uri)
    return names_of_version(version, registry)


def _folder_of(model_uri: str) -> Path | None:
    """The folder that holds the files of the model; None if the argument is no folder."""
    folder = Path(model_uri)
    for candidate in (folder, folder / "model"):
        if (candidate / ARCHITECTURE).is_file():
            return candidate
    if folder.exists():
        raise InputError(
            f"{model_uri}: no exported model ({ARCHITECTURE} is missing); name the folder that contains it"
        )
    return None


def _model_artifact(model_uri: str, store: ArtifactStore) -> Artifact:
    """The artifact that an argument names.

    Raises:
        InputError: there is no such artifact, or it has no model; of a report, the message names the models of its run.
    """
    if "/" not in model_uri:
        raise InputError(
            f"{model_uri}: no model; give models:/NAME@ALIAS, an artifact STAGE/KEY, or the folder of an exported model"
        )
    artifact = store.resolve(model_uri)
    if _has_model(artifact):
        return artifact
    inputs = dict.fromkeys(artifact.manifest["inputs"].values()) if artifact.stage == "run-report" else ()
    models = [name for name in inputs if (found := store.find(name)) is not None and _has_model(found)]
    if models:
        raise InputError(f"{model_uri}: is the report of a run; give one of its models: {listed(models)}")
    raise InputError(
        f"{model_uri}: is an artifact of {artifact.stage}, which has no model; give one of a stage that trains"
    )


def _has_model(artifact: Artifact) -> bool:
    return f"model/{ARCHITECTURE}" in artifact.files
