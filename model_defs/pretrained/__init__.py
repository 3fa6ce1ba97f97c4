"""Loads external trained weights into our models.

    sources     a string -> a file on this machine: torchvision's names, files, the Hugging Face hub, plug-ins
    files       a file -> named tensors; never runs a pickle
    formats     their names -> our names: torchvision, timm, DeiT, CLIP, BERT
    fitting     head, positions, first convolution -> the shapes of this model
    report      the loaded tensors, and the reason for each one that was not loaded

`load_pretrained(model, source)` does all of it; `create_model(..., pretrained=source)` calls it. Importing this package
does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_defs.pretrained.report import KeyNote, LoadingReport

if TYPE_CHECKING:
    from torch import nn

__all__ = ["KeyNote", "LoadingReport", "load_pretrained"]


def load_pretrained(model: nn.Module, source: str | Path) -> LoadingReport:
    """Loads the weights that `source` names into `model`; see `sources.find_source` for valid sources.

    On the meta device nothing is loaded; the report lists what would be.

    Raises:
        ModelError: there are no such weights, they are not available here, or belong to another architecture.
    """
    from model_defs.pretrained.loading import load_from_source

    return load_from_source(model, source)
