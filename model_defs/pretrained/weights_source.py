"""The protocol of a source of trained weights, and the simplest implementation, a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_defs.errors import ModelError
from model_defs.normalisation import Normalisation
from model_defs.pretrained.files import FILES, SUFFIXES, file_sha256
from model_defs.pretrained.stated_normalisation import find_stated_normalisation


class WeightsSource(Protocol):
    """A source of trained weights."""

    def locate(self, names: Sequence[str] = FILES, extra_files: Sequence[str] = ()) -> Path:
        """The file on this machine, fetched if necessary.

        Args:
            names: file names to look for in a folder; the first that exists is used.
            extra_files: further files that are fetched to its folder, if the source has them.
        Raises:
            ModelError: there is no such file, or it cannot be fetched.
        """

    def identity(self, names: Sequence[str] = FILES) -> str:
        """An identifier that changes when the weights change; found without fetching them if possible.

        Raises:
            ModelError: as `locate`.
        """

    def normalisation(self) -> Normalisation | None:
        """The normalisation that the weights expect; None if the source states none.

        Raises:
            ModelError: as `locate`.
        """


@dataclass(frozen=True)
class FileSource:
    """A file, or a folder with a file of a usual name, including an exported model or its artifact."""

    path: Path

    def locate(self, names: Sequence[str] = FILES, extra_files: Sequence[str] = ()) -> Path:
        if self.path.is_file():
            if self.path.suffix not in SUFFIXES:
                raise ModelError(f"{self.path}: no file of weights by its name; known are {', '.join(SUFFIXES)}")
            return self.path
        if not self.path.is_dir():
            raise ModelError(f"{self.path}: there is no such file or folder")
        candidates = [folder / name for folder in (self.path, self.path / "model") for name in names]
        weights = next((path for path in candidates if path.is_file()), None)
        if weights is None:
            raise ModelError(f"{self.path}: holds none of {', '.join(names)}; give the file of the weights")
        return weights

    def identity(self, names: Sequence[str] = FILES) -> str:
        return file_sha256(self.locate(names))

    def normalisation(self) -> Normalisation | None:
        return find_stated_normalisation(self.locate())
