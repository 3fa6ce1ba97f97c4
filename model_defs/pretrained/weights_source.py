"""Where trained weights come from: the protocol of a source, and the simplest one, a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_defs.errors import ModelError
from model_defs.normalisation import Normalisation
from model_defs.pretrained.files import FILES, SUFFIXES, file_sha256
from model_defs.pretrained.stated_normalisation import stated_with


class WeightsSource(Protocol):
    """Weights somewhere."""

    def locate(self, names: Sequence[str] = FILES, beside: Sequence[str] = ()) -> Path:
        """Their file on this machine, fetched if need be.

        Args:
            names: of the file in a folder, the first that is there.
            beside: further files that are fetched to its folder, where the source has them.
        Raises:
            ModelError: there is no such file, or it cannot be fetched.
        """

    def identity(self, names: Sequence[str] = FILES) -> str:
        """A word that changes when the weights do; found without fetching them, where that is possible.

        Raises:
            ModelError: as `locate`.
        """

    def normalisation(self) -> Normalisation | None:
        """What the weights expect of pixels; None if the source states nothing.

        Raises:
            ModelError: as `locate`.
        """


@dataclass(frozen=True)
class FileSource:
    """A file, or a folder with a file of a usual name; also the folder of an exported model or of its artifact."""

    path: Path

    def locate(self, names: Sequence[str] = FILES, beside: Sequence[str] = ()) -> Path:
        if self.path.is_file():
            if self.path.suffix not in SUFFIXES:
                raise ModelError(f"{self.path}: no file of weights by its name; known are {', '.join(SUFFIXES)}")
            return self.path
        if not self.path.is_dir():
            raise ModelError(f"{self.path}: there is no such file or folder")
        places = [folder / name for folder in (self.path, self.path / "model") for name in names]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise ModelError(f"{self.path}: holds none of {', '.join(names)}; give the file of the weights")
        return found

    def identity(self, names: Sequence[str] = FILES) -> str:
        return file_sha256(self.locate(names))

    def normalisation(self) -> Normalisation | None:
        return stated_with(self.locate())
