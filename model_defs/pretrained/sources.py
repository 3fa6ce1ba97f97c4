"""Sources of trained weights: resolves a string to a file on this machine.

    VGG16_Weights.IMAGENET1K_V1, VGG16_Weights     torchvision's enums; the second is its DEFAULT
    a file or a folder                             .safetensors, or .pth that contains only tensors
    hf:ORG/NAME, ORG/NAME                          the Hugging Face hub; ORG/NAME@REVISION, and :FILE of it
    package:NAME                                   the file of weights in an installed Python package
    SCHEME:REST, STAGE/KEY                         plug-ins; Tutelage has models:/NAME@alias and artifact:STAGE/KEY

A string that is an existing path is always treated as a path.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from model_defs.errors import ModelError
from model_defs.model_info import ModelInfo
from model_defs.normalisation import Normalisation
from model_defs.pretrained.files import SUFFIXES
from model_defs.pretrained.hub import HubSource
from model_defs.pretrained.packages import PackageSource
from model_defs.pretrained.plugins import PluginSource, plugin_schemes
from model_defs.pretrained.timm_cards import timm_normalisation
from model_defs.pretrained.torchvision_weights import TorchvisionSource
from model_defs.pretrained.weights_source import FileSource, WeightsSource

DEFAULT = "DEFAULT"

_TORCHVISION = re.compile(r"\w+_Weights(\.\w+)?")
_ARTIFACT = re.compile(r"[a-z-]+/[0-9a-f]{4,64}")
_SCHEME = re.compile(r"([a-z][a-z0-9+-]+):(.+)")


def find_source(source: str | Path) -> WeightsSource:
    """The source that a string names; nothing is fetched.

    Raises:
        ModelError: the string is not a source.
    """
    text = str(source)
    if isinstance(source, Path) or _is_path(text):
        return FileSource(Path(text).expanduser())
    if text == DEFAULT or not text:
        raise ModelError(
            f"pretrained={text!r}: stands for the weights in the catalogue, so it goes with a model's name"
            " (create_model); name the weights themselves here"
        )
    if text.startswith(("http://", "https://")):
        raise ModelError(f"{text}: fetch it, and give the file")
    if _TORCHVISION.fullmatch(text):
        return TorchvisionSource.parse(text)
    scheme, rest = _split(text)
    if scheme == "package":
        return PackageSource(rest)
    if scheme and scheme != "hf":
        return PluginSource(scheme, rest)
    return HubSource.parse(rest)


def default_source(info: ModelInfo) -> str:
    """The source that "DEFAULT" stands for: the one in a model's row of the catalogue.

    Raises:
        ModelError: the row has no source that can be fetched.
    """
    library, _, name = (info.weights or "").partition(" ")
    if library == "torchvision" and name:
        return name
    if library == "timm":
        return f"hf:timm/{name}" if name else f"hf:{_default_of_timm(info.name)}"
    if library == "hf" and name:
        return f"hf:{name}"
    if library == "package" and name:
        return f"package:{name}"
    if info.weights:
        raise ModelError(f"model {info.name!r}: its weights come from {info.weights}; give their file")
    raise ModelError(f"model {info.name!r}: the catalogue knows no weights of it; give a file, a folder or a hub id")


def usual_normalisation(info: ModelInfo) -> Normalisation | None:
    """The normalisation that the usual weights of a model expect; None if it is unknown."""
    if info.name.startswith("timm/"):
        return timm_normalisation(info.name.removeprefix("timm/"))
    if info.normalisation is None:
        return None
    return replace(info.normalisation, origin=f"the catalogue's for {info.name}")


def _is_path(text: str) -> bool:
    looks_so = text.startswith(("/", "./", "../", "~")) or (text.endswith(SUFFIXES) and ":" not in text)
    return looks_so or (bool(text) and os.path.exists(text))


def _split(text: str) -> tuple[str, str]:
    """Scheme and rest. STAGE/KEY is an artifact if a plug-in opens those: hub ids do not look like hashes."""
    match = _SCHEME.fullmatch(text)
    if match:
        return match[1], match[2]
    if _ARTIFACT.fullmatch(text) and "artifact" in plugin_schemes():
        return "artifact", text
    return "", text


def _default_of_timm(name: str) -> str:
    """ORG/NAME of timm's default weights for its model `timm/NAME`."""
    try:
        import timm
    except ImportError as error:
        raise ModelError(f"model {name!r} needs timm: pip install 'tutelage[timm]'") from error
    card = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    if card is None or not card.hf_hub_id:
        raise ModelError(f"model {name!r}: timm knows no weights of it; give a file, a folder or a hub id")
    # An id that ends in a slash is the organisation; the weights are named MODEL.TAG in it.
    return f"{card.hf_hub_id}{card.architecture}.{card.tag}" if card.hf_hub_id.endswith("/") else str(card.hf_hub_id)
