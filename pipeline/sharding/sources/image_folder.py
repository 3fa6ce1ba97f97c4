"""A folder with one sub-folder per class: ROOT/CLASS/anything.jpg, or ROOT/train/CLASS with ROOT/val/CLASS etc.

Or a folder of images with a table of their labels: ROOT/a.jpg and ROOT/labels.csv (folder_table.py).

The label is the name of the class's folder; images in deeper folders belong to the class too. An image is recognised by
its extension or, if that is unknown, by its first bytes. Images with equal bytes are one content group.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from pipeline.config import added, unkeyed
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.valid_text import valid_text
from pipeline.sharding.sources.base import (
    Author,
    Collection,
    Credit,
    Item,
    Licence,
    SourceConfig,
    SourceDescription,
    failing_read,
)
from pipeline.sharding.sources.caption_template import CaptionTemplate, caption_of
from pipeline.sharding.sources.folder_layout import ClassFiles, FolderData, Layout, folder_data
from pipeline.sharding.sources.folder_table import collect_table, labelled_table, table_fingerprint
from pipeline.sharding.sources.image_listing import BROKEN, listing_hash
from pipeline.sharding.sources.manifest import ManifestConfig


class ImageFolderConfig(SourceConfig):
    """Folder of the images, their layout, caption template, licence and author."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "a folder with one sub-folder per class, optionally within train/, val/ and test/, or with a table of labels",
        "FOLDER/CLASS/*.jpg, FOLDER/train/CLASS/*.jpg or FOLDER/*.jpg with a CSV file, also in other image formats",
        ("folder=photos", "caption='a photo of {a_label}'"),
    )
    kind: Literal["image_folder"] = "image_folder"
    folder: Path = unkeyed(
        ..., description="Folder with one sub-folder per class or per split, or with images and a table of labels."
    )
    layout: Layout = added(
        "auto",
        description="What the sub-folders are. classes: one per class; splits: train/, val/, test/ (also "
        "training, valid, ...), which contain one folder per class; table: no classes, since a CSV or TSV file in the "
        "folder has the labels; auto: detected from their names and content, and reported.",
    )
    caption: CaptionTemplate = None
    licence: Licence = ""
    author: Author = ""
    fingerprint: str | None = Field(
        None, description="Digest of the files' names, sizes and times; set by the program."
    )

    def check(self, downloads: Path) -> None:
        table = self._table()
        if table is not None:
            table.check(downloads)
        else:
            self._data()

    def class_sizes(self) -> dict[str, int] | None:
        if self._table() is not None:
            return None
        data = self._data()
        empty = dict.fromkeys(data.empty, 0)
        # If folders determine the splits, a class need not be large enough for a random split.
        return empty or None if data.by_split else empty | {files.label: len(files.names) for files in data.classes}

    def resolved(self) -> Self:
        root = self._root
        table = self._table()
        if table is not None:
            return self.model_copy(update={"folder": root, "layout": "table", "fingerprint": table_fingerprint(table)})
        data = self._data()
        hasher = hashlib.sha256()
        for files in data.classes:
            listing_hash(str(root), files.names, data.broken, hasher)
        if data.empty:
            hasher.update(json.dumps(data.empty).encode())
        if possible := data.skipped.possible_images:
            # Skipped files that may be images change the digest, so that a run reports new ones.
            hasher.update(json.dumps(possible, sort_keys=True).encode())
        # The layout is included so that no delta is built on shards in which "train" is a class.
        layout = "splits" if data.by_split else self.layout
        return self.model_copy(update={"folder": root, "layout": layout, "fingerprint": hasher.hexdigest()[:20]})

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        title = valid_text(self._root.name)
        table = self._table()
        if table is not None:
            return collect_table(table, title, self.caption, downloads, progress)
        data = self._data()
        if data.splits_note:
            progress(note=data.splits_note)

        def items() -> Iterator[Item]:
            for files in data.classes:
                yield from self._items(files, data.broken, title)

        return Collection(
            title=title,
            items=items,
            total=sum(len(files.names) for files in data.classes),
            label_names=tuple(valid_text(label) for label in data.labels),
            root=title,
            credits=(Credit.of(title, self.author, self.licence),),
            notes=(data.splits_note,) if data.splits_note else (),
            skipped=data.skipped,
        )

    @property
    def _root(self) -> Path:
        return self.folder.expanduser().absolute()

    def _table(self) -> ManifestConfig | None:
        if self.layout not in ("auto", "table"):
            return None
        table = labelled_table(self._root, required=self.layout == "table")
        credit = {"licence": self.licence, "author": self.author}
        return None if table is None else table.model_copy(update=credit)

    def _data(self) -> FolderData:
        return folder_data(self._root, self.layout)

    def _items(self, files: ClassFiles, broken: frozenset[str], title: str) -> Iterator[Item]:
        label = valid_text(files.label)
        captions = caption_of(self.caption, label)
        root = self._root
        for name in files.names:
            file = f"{root}/{name}"
            read: Callable[[], bytes] = failing_read(BROKEN) if name in broken else partial(addresses.read, file)
            yield Item(
                name=valid_text(name),
                read=read,
                label=label,
                captions=captions,
                taxonomy=(label,),
                family=title,
                licence=self.licence,
                split=files.split,
                stamp=addresses.stamp(file),
            )
