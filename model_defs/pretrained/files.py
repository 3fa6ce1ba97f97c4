"""Reads named tensors from files of weights, without running any code in a file. Torch is imported on use.

NAME.safetensors        always safe
NAME.pth, .pt, .bin     by torch.load(weights_only=True), which rejects anything other than tensors
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_defs.errors import ModelError, first_line

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")

# The usual file names of weights; the first that exists is used. A dual encoder tries its own names first.
FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
DUAL_FILES = (FILES[2], FILES[0], FILES[3], FILES[1])

# Keys under which training scripts wrap weights; a moving average takes precedence over the weights themselves.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# From DistributedDataParallel, torch.compile, and modules that contain the net as `model`.
_PREFIXES = ("module.", "_orig_mod.", "model.")

_CONVERT = "load it where you trust it and write its state dict by safetensors.torch.save_file"


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU, without wrappers and common prefixes.

    Raises:
        ModelError: it cannot be read, is not in a safe format, or contains no tensors.
    """
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return unwrap_state(state, str(path))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unwrap_state(content: Any, where: str) -> dict[str, Tensor]:
    """The state dict in an object that a training script saved.

    Raises:
        ModelError: it contains no tensors.
    """
    from torch import Tensor

    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = content.items() if isinstance(content, Mapping) else ()
    state = {name: value for name, value in tensors if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        raise ModelError(f"{where}: holds no tensors by name; give a file with a state dict")
    prefix_removed = True
    while prefix_removed:
        prefix_removed = False
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
                prefix_removed = True
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ModelError(f"{path}: reading it needs safetensors: pip install safetensors") from error
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            # Exported models contain tied tensors once, with their other names in the metadata.
            same_as = json.loads((file.metadata() or {}).get("same_as", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors ({first_line(error)})") from None
    return {**state, **{name: state[other] for name, other in same_as.items()}}


def _read_torch(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path}: holds pickled Python objects, which may run code when they are read; {_CONVERT}"
        ) from None
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise ModelError(f"{path}: is a TorchScript archive, which is code; {_CONVERT}") from None
        raise ModelError(f"{path}: cannot be read by torch.load ({first_line(error)})") from None
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read by torch.load ({first_line(error)})") from None
