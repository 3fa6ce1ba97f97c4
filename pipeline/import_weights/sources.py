"""Sources of weights that need a store or a registry; `find_weights` supports these and the ones of model_defs.

models:/NAME@alias, models:/NAME/VERSION     the weights inside a registered model
STAGE/KEY, artifact:STAGE/KEY                an exported model of the store
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from model_defs import ModelError
from model_defs.normalisation import Normalisation
from model_defs.pretrained.files import FILES
from model_defs.pretrained.sources import find_source
from model_defs.pretrained.stated_normalisation import read_stated_normalisation
from model_defs.pretrained.weights_source import FileSource, WeightsSource
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import DamagedError, InputError
from pipeline.exported_model import ARCHITECTURE, FOLDER, PREPROCESSING, WEIGHTS, ExportedModel
from pipeline.folders import files_below
from pipeline.owners import temporary_folder

_ARTIFACT = re.compile(r"(artifact:)?(?P<uri>[a-z-]+/[0-9a-f]{4,64})")


def find_weights(source: str, store: ArtifactStore) -> WeightsSource:
    """The source that a string names, looked up in `store` and its registry if needed; nothing is fetched.

    Raises:
        InputError: the string is not a source, or the store or registry has none of this name.
    """
    if source.startswith("models:"):
        return RegistrySource.from_uri(source, store)
    artifact = _ARTIFACT.fullmatch(source)
    if artifact is None and source.startswith("artifact:"):
        # The plug-in of this scheme calls this function: delegating to it would recurse forever.
        raise InputError(f"{source}: names no artifact; write artifact:STAGE/KEY, e.g. artifact:train-teacher/0a1b2c")
    if artifact is not None and not Path(source).exists():
        return ArtifactSource(store.resolve(artifact["uri"]))
    try:
        return find_source(source)
    except ModelError as error:
        raise InputError(str(error)) from None


@dataclass(frozen=True)
class ArtifactSource:
    """The exported model of an artifact."""

    artifact: Artifact

    def locate(self, names: Sequence[str] = FILES, extra_files: Sequence[str] = ()) -> Path:
        return ExportedModel.open(self.artifact).folder / WEIGHTS

    def identity(self, names: Sequence[str] = FILES) -> str:
        return self.artifact.name

    def normalisation(self) -> Normalisation | None:
        # Fetches two small files and not the weights, which the run may not need.
        names = [f"{FOLDER}/{name}" for name in (ARCHITECTURE, PREPROCESSING)]
        if not all(name in self.artifact.files for name in names):
            return None
        _, preprocessing = (self.artifact.path(name) for name in names)
        return read_stated_normalisation(preprocessing)


@dataclass(frozen=True)
class RegistrySource:
    """A version of a registered model; an alias is resolved once, when the source is created.

    Attributes:
        uri: models:/NAME/VERSION.
        registry_id: an identifier of the registry.
    """

    uri: str
    registry_id: str
    store: ArtifactStore

    @classmethod
    def from_uri(cls, model_uri: str, store: ArtifactStore) -> RegistrySource:
        """The version that models:/NAME@ALIAS or models:/NAME/VERSION names.

        Raises:
            InputError: there is none.
        """
        from pipeline.registration.lookup import find_version

        registry, version = find_version(store, model_uri)
        return cls(version.uri, registry.identity(), store)

    @property
    def _local_copy(self) -> Path:
        return self.store.local / "registered" / self.registry_id / self.uri.removeprefix("models:/")

    def locate(self, names: Sequence[str] = FILES, extra_files: Sequence[str] = ()) -> Path:
        from pipeline.registration.lookup import find_version

        folder = self._local_copy
        if not folder.is_dir():
            temporary_copy = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            registry, version = find_version(self.store, self.uri)
            try:
                # `fetch` downloads the files of a model that Tutelage did not register, and then raises DamagedError.
                with suppress(DamagedError):
                    registry.fetch(version, temporary_copy)
                _move_unless_present(temporary_copy, folder)
            finally:
                shutil.rmtree(temporary_copy, ignore_errors=True)
        own_weights = next(folder.glob("*/artifacts/served/model/" + WEIGHTS), None)
        files = (
            [own_weights]
            if own_weights is not None
            else [Path(entry.path) for entry in files_below(str(folder)) if entry.name.endswith(".safetensors")]
        )
        if len(files) != 1:
            raise InputError(
                f"{self.uri}: holds {len(files) or 'no'} .safetensors files, one is wanted; give the file, below"
                f" {folder}"
            )
        return files[0]

    def identity(self, names: Sequence[str] = FILES) -> str:
        # The files of a version never change; its alias may.
        return f"{self.registry_id} {self.uri}"

    def normalisation(self) -> Normalisation | None:
        """Fetches two small files of a model that Tutelage registered, or all files of any other model."""
        from pipeline.registration.lookup import find_version

        if not self._local_copy.is_dir():
            registry, version = find_version(self.store, self.uri)
            with temporary_folder() as folder:
                names = [f"artifacts/served/model/{name}" for name in (ARCHITECTURE, PREPROCESSING)]
                architecture, preprocessing = (registry.fetch_file(version, name, Path(folder)) for name in names)
                if architecture is not None and preprocessing is not None:
                    return read_stated_normalisation(preprocessing)
        return FileSource(self.locate()).normalisation()


def _move_unless_present(temporary_copy: Path, folder: Path) -> None:
    """Renames a fetched folder to its final path, unless another process was first."""
    try:
        temporary_copy.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def locate_weights(source: WeightsSource, extra_files: Sequence[str] = ()) -> Path:
    """The file of the weights, fetched if necessary.

    Raises:
        InputError: it is not available.
    """
    try:
        return source.locate(FILES, extra_files)
    except ModelError as error:
        raise InputError(str(error)) from None


def weights_identity(source: WeightsSource) -> str:
    """An identifier that changes when the weights change.

    Raises:
        InputError: they are not available.
    """
    try:
        return source.identity(FILES)
    except ModelError as error:
        raise InputError(str(error)) from None


def absolute_source(source: str) -> str:
    """A source with an absolute path, independent of the working directory."""
    try:
        weights = find_source(source)
    except ModelError:
        return source
    return str(weights.path.absolute()) if isinstance(weights, FileSource) else source
