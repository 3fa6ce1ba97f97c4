"""Trained weights from elsewhere in a model of ours.

    sources     a string -> a file on this machine: torchvision's names, files, the Hugging Face hub, plug-ins
    files       a file -> named tensors; no pickle is ever run
    formats     their names -> our names: torchvision, timm, DeiT, CLIP, BERT
    fitting     head, positions, first convolution -> the shapes of this model
    report      what was taken over, and the reason for everything that was not

`load_pretrained(model, source)` is all of it; `create_model(..., pretrained=source)` calls it. Importing this package
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
    """Gives `model` the weights that `source` names; see `sources.find_source` for what that may be.

    On the meta device nothing is loaded; the report tells what would be.

    Raises:
        ModelError: there are no such weights, they cannot be had here, or they are of another architecture.
    """
    from model_defs.pretrained.loading import load_from_source

    return load_from_source(model, source)
