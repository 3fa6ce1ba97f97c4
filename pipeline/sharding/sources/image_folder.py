"""A folder of images, one sub-folder a class: ROOT/CLASS/anything.jpg (or png, webp, bmp, gif, tiff).

The label is the class's folder; deeper folders belong to their class (links to folders are followed for
classes only). Images with equal bytes are one content group.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from pipeline.config import Config, unkeyed
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.sharding.sources import places
from pipeline.sharding.sources.base import About, Collection, Credit, Item
from pipeline.sharding.sources.caption_template import CaptionTemplate, caption_of

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class ImageFolderConfig(Config):
    """Where the images lie, and what to say about them."""

    about: ClassVar[About] = About(
        "a folder with one sub-folder of images a class",
        "FOLDER/CLASS/*.jpg (or png, webp, bmp, gif, tiff)",
        ("folder=photos", "caption='a photo of a {label}'"),
    )
    kind: Literal["image_folder"] = "image_folder"
    folder: Path = unkeyed(..., description="the folder that holds one sub-folder a class")
    caption: CaptionTemplate = Field(
        None, description='caption of an image, with {label} for its class, e.g. "a photo of a {label}"; null: none'
    )
    licence: str = Field("", description="SPDX name of the images' licence, for the data card")
    author: str = Field("", description="who made the images, for the data card")
    fingerprint: str | None = Field(None, description="digest of the files' names, sizes and times; set by the program")

    @property
    def families(self) -> tuple[str, ...]:
        return ()

    def check(self, downloads: Path) -> None:
        image_files(self.folder)

    def class_sizes(self) -> dict[str, int]:
        return {label: len(files) for label, files in image_files(self.folder).items()}

    def resolved(self) -> Self:
        root = self.folder.expanduser().absolute()
        hasher = hashlib.sha256()
        for names in image_files(root).values():
            for name in names:
                facts = os.stat(f"{root}/{name}")
                hasher.update(f"{_text(name)}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
        return self.model_copy(update={"folder": root, "fingerprint": hasher.hexdigest()[:20]})

    def build(self, downloads: Path) -> ImageFolderSource:
        return ImageFolderSource(self.folder, caption=self.caption, licence=self.licence, author=self.author)


class ImageFolderSource:
    """A folder of images as a data set.

    Args:
        folder: holds one sub-folder a class.
        caption: with {label} for the class's name, or None.
    """

    def __init__(self, folder: Path, *, caption: str | None = None, licence: str = "", author: str = "") -> None:
        self._folder = folder.expanduser().absolute()
        self._caption = caption
        self._licence = licence
        self._author = author

    def collect(self, progress: Progress) -> Collection:
        classes = image_files(self._folder)

        def items() -> Iterator[Item]:
            for label, files in classes.items():
                captions = caption_of(self._caption, label)
                for name in files:
                    file = f"{self._folder}/{name}"
                    yield Item(
                        name=_text(name),
                        read=partial(places.read, file),
                        label=label,
                        captions=captions,
                        taxonomy=(label,),
                        source=self._folder.name,
                        licence=self._licence,
                        stamp=places.stamp(file),
                    )

        return Collection(
            title=self._folder.name,
            items=items,
            total=sum(len(files) for files in classes.values()),
            label_names=tuple(classes),
            root=self._folder.name,
            credits=(Credit(self._folder.name, self._author or "not stated", self._licence or "not stated", ""),),
        )


def image_files(folder: Path) -> dict[str, list[str]]:
    """The image files of every class below `folder`, both in the order of their names; hidden ones are passed over.

    Raises:
        InputError: there is no such folder, no sub-folder, or a class without an image.
    """
    folder = folder.expanduser()
    try:
        classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise InputError(f"{folder}: is a file; name the folder that holds one sub-folder a class") from None
    except PermissionError:
        raise InputError(f"{folder}: may not be read; change its permissions") from None
    if not classes:
        raise InputError(
            f"{folder}: holds no sub-folder; put the images of each class into one, as {folder.name}/CLASS/a.jpg"
        )
    found = {_text(entry.name): _images_below(folder, entry.name) for entry in classes}
    if not any(found.values()):
        raise InputError(f"{folder}: no image in any sub-folder; looked for {', '.join(sorted(_SUFFIXES))}")
    for name, files in found.items():
        if not files:
            raise InputError(f"{folder / name}: class {name!r} has 0 images; add some or remove the folder")
    return found


def _text(path: str) -> str:
    """A path as text that can be written anywhere; a name that is no UTF-8 gets replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")


def _images_below(root: Path, label: str) -> list[str]:
    # Plain text: a Path for each of 100,000 files takes longer than to ask for their sizes.
    start = len(str(root / label)) - len(label)
    files = []
    for path, folders, names in os.walk(root / label):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = path[start:]
        files += [
            f"{below}/{name}"
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES
        ]
    return sorted(files)
