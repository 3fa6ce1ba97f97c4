"""Schemes of weights from other packages: entry points of the group "tutelage.weights".

    [project.entry-points."tutelage.weights"]
    models = "pipeline.import_weights.plugin:registered_model"

The function takes the text after the scheme's colon, and returns the file or folder of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

from model_defs.errors import ModelError, first_line
from model_defs.normalisation import Normalisation
from model_defs.pretrained.files import FILES
from model_defs.pretrained.weights_source import FileSource

GROUP = "tutelage.weights"


@cache
def plugin_schemes() -> dict[str, EntryPoint]:
    """The installed schemes; their packages are not imported.

    Reads every distribution. `entry_points` reads only the first one with a given name: in a checkout, an older build's
    metadata in the current folder would hide those of the installed distribution.
    """
    points = (point for distribution in distributions() for point in distribution.entry_points)
    return {point.name: point for point in points if point.group == GROUP}


@dataclass(frozen=True)
class PluginSource:
    """Weights that a plug-in opens.

    Attributes:
        scheme: name of the scheme, e.g. "models".
        reference: text after the colon, e.g. "/my-classifier@champion".
    """

    scheme: str
    reference: str

    def locate(self, names: Sequence[str] = FILES, extra_files: Sequence[str] = ()) -> Path:
        return FileSource(self._open()).locate(names)

    def identity(self, names: Sequence[str] = FILES) -> str:
        return FileSource(self._open()).identity(names)

    def normalisation(self) -> Normalisation | None:
        return FileSource(self._open()).normalisation()

    def _open(self) -> Path:
        point = plugin_schemes().get(self.scheme)
        if point is None:
            known = ", ".join(f"{scheme}:" for scheme in ("hf", *sorted(plugin_schemes())))
            raise ModelError(
                f"{self.scheme}:{self.reference}: no installed package opens {self.scheme}:; known are {known}"
                " (a package's schemes are registered when it is installed: after an update, install it again)"
            )
        try:
            open_reference = point.load()
        except (ImportError, AttributeError) as error:
            raise ModelError(
                f"{self.scheme}:{self.reference}: the package that opens it cannot be imported"
                f" ({first_line(error)}); after an update, install the package again"
            ) from None
        return Path(open_reference(self.reference))
