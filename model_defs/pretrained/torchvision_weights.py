"""torchvision's released weights, named by its enums."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from model_defs.errors import ModelError, first_line
from model_defs.normalisation import HALF_MEAN_STD, Normalisation
from model_defs.pretrained.files import FILES

# In these nets torchvision converts images from ImageNet's normalisation (transform_input). Our nets do so only on
# request.
_TRANSFORMS_INPUT = ("GoogLeNet_Weights.", "Inception_V3_Weights.")
_TIMEOUT_S = 15


@dataclass(frozen=True)
class TorchvisionSource:
    """A file that torch.hub fetches once and caches.

    Attributes:
        name: the enum's member, e.g. "ResNet50_Weights.IMAGENET1K_V2".
        url: its URL; the file name ends in a prefix of its SHA-256.
        transforms: torchvision's transforms for these weights, with `mean` and `std`.
    """

    name: str
    url: str
    transforms: Any = field(repr=False, compare=False)

    @classmethod
    def parse(cls, name: str) -> TorchvisionSource:
        """The weights ENUM.MEMBER, or ENUM for its default.

        Raises:
            ModelError: torchvision has none of this name; similar names are listed.
        """
        from torchvision import models

        enum_name, _, member = name.partition(".")
        enums = _enums(models)
        enum = enums.get(enum_name)
        if enum is None:
            near = difflib.get_close_matches(enum_name, enums, n=3, cutoff=0.5)
            raise ModelError(
                f"torchvision has no weights {enum_name!r}; did you mean {' or '.join(near) or 'another'}?"
            )
        weights = getattr(enum, member or "DEFAULT", None)
        if not isinstance(weights, enum):
            raise ModelError(f"{enum_name}: has no {member!r}; it has {', '.join(enum.__members__)}")
        return cls(f"{enum_name}.{weights.name}", weights.url, weights.transforms())

    @property
    def path(self) -> Path:
        """The file in torch.hub's cache, which TORCH_HOME relocates."""
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(self.url).path).name

    def locate(self, names: Sequence[str] = FILES, extra_files: Sequence[str] = ()) -> Path:
        import torch

        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The file name ends in a prefix of the file's SHA-256, which torch.hub checks.
            digest = self.path.stem.rpartition("-")[2]
            try:
                torch.hub.download_url_to_file(self.url, str(self.path), hash_prefix=digest, progress=False)
            except (URLError, OSError, RuntimeError) as error:
                raise self._unreachable(error) from None
        return self.path

    def check_reachable(self) -> None:
        """Raises ModelError unless the file is in the cache, or its server answers; fetches nothing."""
        if self.path.is_file():
            return
        try:
            urlopen(Request(self.url, method="HEAD"), timeout=_TIMEOUT_S).close()
        except OSError as error:  # URLError is one.
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> ModelError:
        reason = getattr(error, "reason", None) or first_line(error)
        return ModelError(
            f"{self.name}: {self.url} cannot be fetched ({reason});"
            f" fetch it where there is a network and put it at {self.path}"
        )

    def identity(self, names: Sequence[str] = FILES) -> str:
        return f"torchvision {self.path.name}"

    def normalisation(self) -> Normalisation:
        if self.name.startswith(_TRANSFORMS_INPUT):
            return replace(HALF_MEAN_STD, origin=f"{self.name}, without torchvision's transform_input")
        mean, std = tuple(self.transforms.mean), tuple(self.transforms.std)
        return Normalisation(mean, std, f"torchvision's transforms of {self.name}")


def _enums(models: Any) -> dict[str, Any]:
    """The weight enums of the image classifiers by name."""
    return {enum.__name__: enum for enum in map(models.get_model_weights, models.list_models(module=models))}
