"""The files of a sharded checkpoint: step-N.R.safetensors, written by rank R, and step-N.json, written last.

The JSON lists the files with size and SHA-256, each tensor with its shape, type and chunks (offsets, sizes and file),
and the values of the optimiser that are no tensors. Tensors are named PART/NAME, e.g. "model/head.weight", and
"optimizer/3/exp_avg" for parameter 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.storage import Storage
from pipeline.storage.sha256 import file_sha256

SUFFIX = ".safetensors"
_OPTIMIZER = "optimizer"


def flattened(tensors: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a Checkpoint by their names in the files, and the optimiser's other values, for JSON."""
    flat: dict[str, Tensor] = {}
    others: dict[str, dict[str, Any]] = {}
    for part, values in tensors.items():
        if part != _OPTIMIZER:
            flat.update({f"{part}/{name}": value for name, value in values.items()})
            continue
        for number, state in values["state"].items():
            others[str(number)] = {}
            for name, value in state.items():
                if isinstance(value, Tensor):
                    flat[f"{_OPTIMIZER}/{number}/{name}"] = value
                else:
                    others[str(number)][name] = value
    return flat, {"state": others, "param_groups": tensors[_OPTIMIZER]["param_groups"]}


def nested(flat: Mapping[str, Tensor], optimizer: Mapping[str, Any] | None) -> dict[str, Any]:
    """The inverse of `flattened`; without `optimizer`, a checkpoint without that."""
    tensors: dict[str, Any] = defaultdict(dict)
    if optimizer is not None:
        state = {int(number): dict(values) for number, values in optimizer["state"].items()}
        tensors[_OPTIMIZER] = {"state": state, "param_groups": optimizer["param_groups"]}
    for key, value in flat.items():
        part, _, name = key.partition("/")
        if part == _OPTIMIZER:
            number, _, name = name.partition("/")
            tensors[part]["state"][int(number)][name] = value
        else:
            tensors[part][name] = value
    return dict(tensors)


def parts_of(entry: Mapping[str, Any]) -> set[str]:
    """The parts that a sharded checkpoint has, e.g. "model" and "optimizer"."""
    return {key.partition("/")[0] for key in entry["tensors"]}


def read_whole(
    storage: Storage, stem: str, entry: Mapping[str, Any], parts: Collection[str], aside: Callable[[], Path]
) -> dict[str, Any]:
    """The given parts of a sharded checkpoint, in host memory, with whole tensors.

    Args:
        stem: path of the checkpoint without ".json".
        aside: see `opened`.
    Raises:
        ValueError: a file is not the one that the JSON describes.
    """
    whole: dict[str, Tensor] = {}
    by_file: dict[str, list[tuple[str, Any, Any]]] = defaultdict(list)
    for key, described in entry["tensors"].items():
        if key.partition("/")[0] in parts:
            whole[key] = torch.empty(described["shape"], dtype=getattr(torch, described["dtype"]))
            for offsets, sizes, file in described["chunks"]:
                by_file[file].append((key, offsets, sizes))
    for file, chunks in by_file.items():
        with opened(storage, stem, file, entry, aside) as tensors:
            for key, offsets, sizes in chunks:
                whole[key][box(offsets, sizes)] = tensors.get_tensor(key)
    return nested(whole, entry[_OPTIMIZER] if _OPTIMIZER in parts else None)


@contextmanager
def opened(
    storage: Storage, stem: str, file: str, entry: Mapping[str, Any], aside: Callable[[], Path]
) -> Iterator[Any]:
    """A file of a sharded checkpoint, memory-mapped, after its digest was compared.

    Args:
        aside: returns the path of a local file for one of a remote storage.
    Raises:
        ValueError: it is not the file that the JSON describes.
    """
    stored = f"{stem}.{file}{SUFFIX}"
    path, described = storage.local_path(stored), entry["files"][file]
    downloaded = None
    try:
        if path is None:
            path = downloaded = aside()
            storage.download(stored, path)
        if path.stat().st_size != described["size"] or file_sha256(path) != described["sha256"]:
            raise ValueError(f"the bytes of {stored} are not those that its JSON promises")
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    finally:
        if downloaded is not None:
            downloaded.unlink(missing_ok=True)


def box(offsets: Collection[int], sizes: Collection[int]) -> tuple[slice, ...]:
    """The index of a box in a tensor."""
    return tuple(slice(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))
