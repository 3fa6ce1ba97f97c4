"""Creates a data set object of torchvision in each process that needs it; reads its images and targets."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import io
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.errors import InputError, first_line

_NOT_DATA_SETS = ("VisionDataset", "wrap_dataset_for_transforms_v2")


@dataclass(frozen=True, slots=True)
class DataSetSpec:
    """The picklable description of a data set object, from which any process can create it.

    Attributes:
        dataset: name of the class.
        root: folder of the files.
        arguments: constructor arguments as JSON, without root and download.
    """

    dataset: str
    root: str
    arguments: str


def read_png(spec: DataSetSpec, number: int) -> bytes:
    """An image of a data set as PNG.

    Raises:
        OSError: the data set returns no PIL image, or cannot be opened.
    """
    try:
        image = data_set(spec)[number]
    except OSError:
        raise
    except Exception as error:  # The data set's own code, and a decoder.
        raise OSError(first_line(error)) from None
    image = image[0] if isinstance(image, tuple) else image
    if not isinstance(image, Image.Image):
        raise OSError(f"gives {type(image).__name__}, not a PIL image")
    buffer = io.BytesIO()
    (image if image.mode in ("L", "RGB", "RGBA", "P", "1", "I;16") else image.convert("RGB")).save(
        buffer, "PNG", compress_level=1
    )
    return buffer.getvalue()


def target_of(spec: DataSetSpec, number: int) -> Any:
    """The target of an image, which is read for it; None if that fails, since `read_png` will report it."""
    try:
        return data_set(spec)[number][1]
    except Exception:  # The data set's own code, and a decoder.
        return None


def targets_of(dataset: Any) -> Sequence[Any] | None:
    """The targets of all images, if the object has a list of them; None: `target_of` must read the images."""
    values: Any
    for name in ("targets", "labels", "_labels"):
        values = getattr(dataset, name, None)
        values = values.tolist() if hasattr(values, "tolist") else values
        if isinstance(values, list) and len(values) == len(dataset):
            return values
    for name in ("_samples", "samples", "imgs"):
        values = getattr(dataset, name, None)
        if isinstance(values, list) and len(values) == len(dataset) and values and isinstance(values[0], tuple):
            return [value[1] for value in values]
    return None


_creating = threading.Lock()


def data_set(spec: DataSetSpec) -> Any:
    """The object, created once per process; its files must exist."""
    with _creating:
        return _cached_data_set(spec)


@lru_cache(maxsize=8)
def _cached_data_set(spec: DataSetSpec) -> Any:
    return create_data_set(spec, download=False)


def create_data_set(spec: DataSetSpec, *, download: bool) -> Any:
    """Creates the object; with `download`, fetches its files if its class can."""
    dataset = dataset_class(spec.dataset)
    takes = parameters_of(dataset)
    arguments = json.loads(spec.arguments)
    if "root" in takes:
        Path(spec.root).mkdir(parents=True, exist_ok=True)
        arguments["root"] = spec.root
    if download and "download" in takes:
        arguments["download"] = True
    return dataset(**arguments)


def dataset_class(name: str) -> type[Any]:
    """The class with this name; imports torchvision."""
    import torchvision.datasets

    dataset: type[Any] = getattr(torchvision.datasets, name)
    return dataset


def parameters_of(dataset: type[Any]) -> set[str]:
    """The parameters of its constructor, including those that it passes on as **kwargs."""
    all_names: set[str] = set()
    for base in dataset.__mro__:
        if "__init__" in base.__dict__ and base is not object:
            parameters = inspect.signature(base).parameters.values()
            names = {parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
            all_names |= names
            if len(names) == len(parameters):
                break
    return all_names


@lru_cache(maxsize=1)
def dataset_names() -> frozenset[str]:
    """torchvision.datasets.__all__ without base classes, parsed from the source: an import would take seconds."""
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        raise InputError("torchvision is not installed: pip install torchvision")
    file = Path(package.submodule_search_locations[0]) / "datasets" / "__init__.py"
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return frozenset(ast.literal_eval(node.value)) - set(_NOT_DATA_SETS)
    raise InputError(f"{file}: has no __all__; use the torchvision of constraints.txt")
