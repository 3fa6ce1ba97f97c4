"""Models from outside the store as its artifacts, which stages take as inputs: registered versions and folders."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import digest
from pipeline.errors import InputError
from pipeline.exported_model import ARCHITECTURE, FOLDER, PREPROCESSING, WEIGHTS, ExportedModel
from pipeline.loading.wordpiece_vocabulary import VOCABULARY
from pipeline.owners import TEMPORARY, owned_name
from pipeline.registration.mlflow_registry import MODEL_TAG, RegisteredVersion, Registry
from pipeline.storage.sha256 import file_sha256

_VERSION_STAGE, _FOLDER_STAGE = "registered-model", "exported-model"
_FILES = (ARCHITECTURE, PREPROCESSING, WEIGHTS, "labels.json", VOCABULARY)


def artifact_of_version(version: RegisteredVersion, registry: Registry, store: ArtifactStore) -> Artifact:
    """The artifact that was registered as this version; a copy of the registered files if the store lacks it.

    Raises:
        WorkError: its files cannot be fetched.
    """
    for name in names_of_version(version, registry):
        artifact = store.find(name)
        if artifact is not None:
            return artifact
    key = digest(_origin_of_version(version, registry))
    with _own_folder(store) as scratch:
        exported = registry.fetch(version, scratch / "fetched")
        folder = scratch / "output"
        shutil.copytree(exported.folder, folder / FOLDER)
        return _commit(store, _VERSION_STAGE, key, folder, _origin_of_version(version, registry))


def names_of_version(version: RegisteredVersion, registry: Registry) -> tuple[str, ...]:
    """STAGE/KEY of the artifacts that a version may be in a store: the one that was registered, and its copy."""
    registered = version.tags.get(MODEL_TAG)
    copy = f"{_VERSION_STAGE}/{digest(_origin_of_version(version, registry))}"
    return (copy,) if registered is None else (registered, copy)


def artifact_of_folder(folder: Path, store: ArtifactStore) -> Artifact:
    """An exported model in a folder as an artifact: that of the store which contains the folder, else a copy.

    Raises:
        InputError: a file of the model is missing.
        DamagedError: it is not a complete exported model.
    """
    name = name_of_folder(folder, store)
    artifact = store.find(name)
    if artifact is not None:
        return artifact
    ExportedModel.read(folder)
    stage, _, key = name.partition("/")
    with _own_folder(store) as scratch:
        (scratch / "output" / FOLDER).mkdir(parents=True)
        for path in _files(folder):
            shutil.copyfile(path, scratch / "output" / FOLDER / path.name)
        return _commit(store, stage, key, scratch / "output", {"folder": str(folder.absolute())})


def name_of_folder(folder: Path, store: ArtifactStore) -> str:
    """STAGE/KEY of the artifact that an exported folder is, or would be as a copy.

    Raises:
        InputError: a file of the model is missing.
    """
    root = store.storage.local_path("artifacts")
    absolute = folder.resolve()
    if root is not None and absolute.is_relative_to(root.resolve()):
        parts = absolute.relative_to(root.resolve()).parts
        if len(parts) >= 2 and store.find(f"{parts[0]}/{parts[1]}") is not None:
            return f"{parts[0]}/{parts[1]}"
    return f"{_FOLDER_STAGE}/{digest({path.name: file_sha256(path) for path in _files(folder)})}"


def _files(folder: Path) -> list[Path]:
    missing = [name for name in _FILES if name != VOCABULARY and not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: no complete exported model ({missing[0]} is missing); copy the whole folder")
    return [folder / name for name in _FILES if (folder / name).is_file()]


def _origin_of_version(version: RegisteredVersion, registry: Registry) -> dict[str, Any]:
    return {"registry": registry.identity(), "name": version.name, "version": version.version}


@contextmanager
def _own_folder(store: ArtifactStore) -> Iterator[Path]:
    """A path for a folder of this process alone, since others may copy the same model; removed at the end."""
    folder = store.work / f"{TEMPORARY}{owned_name()}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _commit(store: ArtifactStore, stage: str, key: str, folder: Path, origin: dict[str, Any]) -> Artifact:
    return store.commit(stage, key, folder, config=origin, inputs={}, summary={}, seconds=0.0, origin={})
