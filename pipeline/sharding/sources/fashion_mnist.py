"""Fashion-MNIST: 70,000 greyscale images of clothes, 28x28, in ten classes (Xiao et al. 2017, MIT licence).

It is read from Debian's package `dataset-fashion-mnist` if that is installed, else fetched by torchvision. The 10,000
images of the part t10k are the test split; the validation split is a fraction of the 60,000 of the part train.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from pipeline.config import digest, unkeyed
from pipeline.errors import InputError, WorkError, first_line
from pipeline.progress import Progress
from pipeline.sharding.sources.base import Collection, Credit, Item, SourceConfig, SourceDescription

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
LABELS = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
# The caption of each class is "a photo of" and this.
_NOUNS = (
    "a t-shirt",
    "a pair of trousers",
    "a pullover",
    "a dress",
    "a coat",
    "a sandal",
    "a shirt",
    "a sneaker",
    "a bag",
    "an ankle boot",
)
_PARTS = ("train", "t10k")
_FILES = tuple(f"{part}-{kind}-ubyte.gz" for part in _PARTS for kind in ("images-idx3", "labels-idx1"))


class FashionMnistConfig(SourceConfig):
    """Folder of Fashion-MNIST, and the number of images to read."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "Fashion-MNIST: 70,000 greyscale images of clothes in ten classes",
        "Debian's package dataset-fashion-mnist, or one download",
        ("limit=500",),
    )
    kind: Literal["fashion_mnist"] = "fashion_mnist"
    folder: Path | None = unkeyed(
        None,
        description="Folder with the four .gz files. null: use Debian's package dataset-fashion-mnist if "
        "installed, else download them once.",
    )
    limit: int | None = Field(
        None, ge=1, description="Maximum number of images per class in train and in test. null: all."
    )
    fingerprint: str | None = Field(None, description="Digest of the four files; set by the program.")

    @property
    def _files_folder(self) -> Path | None:
        """The folder of the files, or None if they must be fetched."""
        if self.folder is not None:
            return self.folder.expanduser().absolute()
        return DEBIAN_FOLDER if DEBIAN_FOLDER.is_dir() else None

    def check(self, downloads: Path) -> None:
        if self._files_folder is not None:
            _check_files(self._files_folder)

    def resolved(self) -> Self:
        if self._files_folder is None:
            # torchvision verifies fetched files against its own digests, so they are always the same.
            return self.model_copy(update={"fingerprint": "torchvision"})
        _check_files(self._files_folder)
        digests = [hashlib.sha256((self._files_folder / name).read_bytes()).hexdigest() for name in _FILES]
        return self.model_copy(update={"folder": self._files_folder, "fingerprint": digest(digests)})

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        folder = self._files_folder or _fetch(downloads / "fashion-mnist", progress)
        _check_files(folder)
        parts = {part: _read_part(folder, part, self.limit) for part in _PARTS}

        def items() -> Iterator[Item]:
            for part, (images, labels, numbers) in parts.items():
                for number in numbers.tolist():
                    label = int(labels[number])
                    yield Item(
                        name=f"{part} {number}",
                        read=partial(_png, images[number]),
                        label=LABELS[label],
                        key=f"{part}-{number:05d}",
                        captions=(f"a photo of {_NOUNS[label]}",),
                        taxonomy=(LABELS[label],),
                        family="fashion-mnist",
                        licence="MIT",
                        split="test" if part == "t10k" else "train",
                    )

        return Collection(
            title="Fashion-MNIST",
            items=items,
            total=sum(len(numbers) for _, _, numbers in parts.values()),
            label_names=LABELS,
            root="fashion",
            credits=(Credit("Fashion-MNIST", "Zalando SE", "MIT", "https://github.com/zalandoresearch/fashion-mnist"),),
        )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it should hold {', '.join(_FILES)}")
    for name in _FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: lacks {name}, one of the four files of Fashion-MNIST")


def _read_part(
    folder: Path, part: str, limit: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """(images [N, 28, 28], labels [N], ascending indices of the images to read)."""
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz", dimensions=3)
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", dimensions=1)
    if len(images) != len(labels) or (len(labels) and labels.max() >= len(LABELS)):
        raise InputError(f"{folder}: the {part} images and labels do not belong together; fetch them again")
    numbers = np.arange(len(labels))
    if limit is not None:
        numbers = np.sort(np.concatenate([np.flatnonzero(labels == label)[:limit] for label in range(len(LABELS))]))
    return images, labels, numbers


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: a magic number, big-endian sizes, then the data."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error}); fetch it again") from None
    head = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(data[start : start + 4], "big") for start in range(4, head, 4))
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != head + int(np.prod(shape)):
        raise InputError(f"{path}: not an IDX file of bytes with {dimensions} dimensions; fetch it again")
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape)


def _fetch(downloads: Path, progress: Progress) -> Path:
    progress(note="fetching Fashion-MNIST")
    from torchvision.datasets import FashionMNIST

    try:
        # It prints what it fetches; standard output is reserved for the command.
        with contextlib.redirect_stdout(sys.stderr):
            FashionMNIST(str(downloads), download=True)
    except Exception as error:  # torchvision raises RuntimeError, URLError and others for one cause: no network.
        raise WorkError(
            f"Fashion-MNIST cannot be fetched ({first_line(error)}); install Debian's package dataset-fashion-mnist, "
            f"or name the folder of its four .gz files in source.folder"
        ) from None
    return downloads / "FashionMNIST" / "raw"
