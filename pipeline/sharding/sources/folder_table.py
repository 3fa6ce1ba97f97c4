"""A table of labels in a folder of images: FOLDER/a.jpg, FOLDER/b.jpg and FOLDER/labels.csv.

A CSV or TSV file fits if one column names images of the folder and one column has the labels. The file column is
recognised by its content, the label column by its name or because it is the only other one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pipeline.config import digest
from pipeline.counted import counted
from pipeline.errors import InputError, listed
from pipeline.folders import entries
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.sources.base import Collection, Item
from pipeline.sharding.sources.caption_template import caption_of
from pipeline.sharding.sources.given_split import given_split
from pipeline.sharding.sources.image_listing import FolderImages, images_in, listing_hash, sub_folders
from pipeline.sharding.sources.manifest import ManifestConfig
from pipeline.sharding.sources.skipped_files import SkipCounter
from pipeline.sharding.sources.tables import columns_of, rows_of

_SUFFIXES = (".csv", ".tsv")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "classname", "category", "target", "species", "breed")
_SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset", "data_set", "fold")
_CHECKED_ROWS = 100


def labelled_table(folder: Path, *, required: bool) -> ManifestConfig | None:
    """The table that labels the images of a folder, as a manifest; None without a table, or if folders are the classes.

    Args:
        required: the folder is to be read by its table, also if it has folders of classes.
    Raises:
        InputError: there are several tables, or none although one is required, or the columns do not fit; the message
            says what to set.
    """
    tables = _tables_in(folder) if folder.is_dir() else []
    if not tables:
        if required:
            raise InputError(f"{folder}: layout=table, but it has no CSV or TSV file; add one, or set layout=auto")
        return None
    images = _folder_of_images(folder)
    if images is None and not required:
        return None
    return _manifest_of(folder, tables, images or folder)


def table_fingerprint(table: ManifestConfig) -> str:
    """A digest of the table, and of the names, sizes and times of the images."""
    images = _images_of(table)
    hasher = hashlib.sha256()
    listing_hash(str(table.images), images.names, images.broken, hasher)
    columns = [table.path_column, table.label_column, table.split_column]
    return digest([table.resolved().fingerprint, columns, hasher.hexdigest()])


def collect_table(
    table: ManifestConfig, title: str, caption: str | None, downloads: Path, progress: Progress
) -> Collection:
    """The images that the table names, with captions by the template `caption`."""
    collection = table.collect(downloads, progress)
    note = _note(table)
    progress(note=note)

    def items() -> Iterator[Item]:
        for item in collection.items():
            yield replace(item, captions=caption_of(caption, item.label), family=title)

    return replace(collection, title=title, root=title, items=items, notes=(note, *collection.notes))


def _note(table: ManifestConfig) -> str:
    """How the table was read, and how many images it does not name."""
    (file,) = addresses.find(table.manifest, _SUFFIXES)
    images = _images_of(table)
    rows = (row.values.get(table.path_column, "") for row in rows_of(file, [table.path_column]))
    named = {os.path.normpath(path.strip()) for path in rows}
    unnamed = [name for name in images.names if name not in named]
    splits = "" if table.split_column is None else f" and the splits (column {table.split_column})"
    left = f"; it does not name {counted(len(unnamed), 'image')}: {listed(unnamed, limit=3)}" if unnamed else ""
    return f"{file.name} has the labels (column {table.label_column}){splits} of {table.path_column}{left}"


def _images_of(table: ManifestConfig) -> FolderImages:
    return images_in(str(table.images), SkipCounter())


def _tables_in(folder: Path) -> list[str]:
    names = (entry.name for entry in entries(str(folder)))
    return [name for name in names if name.lower().endswith(_SUFFIXES) and not name.startswith(".")]


def _folder_of_images(folder: Path) -> Path | None:
    """The folder itself or its only sub-folder with images, if images are directly in it; None with class folders."""
    folders = [folder / name for name in sub_folders(str(folder)) if images_in(f"{folder}/{name}", SkipCounter()).names]
    if not folders:
        return folder
    if len(folders) > 1 or not images_in(str(folders[0]), SkipCounter(), deep=False).names:
        return None
    return folders[0]


def _manifest_of(folder: Path, tables: Sequence[str], images: Path) -> ManifestConfig:
    asked = (
        "data.source.kind=manifest, data.source.manifest=FILE, data.source.path_column and data.source.label_column, "
        "or data.source.layout=classes if the table has no labels and the folder has one sub-folder per class"
    )
    if len(tables) > 1:
        raise InputError(f"{folder}: has {listed(tables)}; keep the table with the labels only, or set {asked}")
    path = folder / tables[0]
    asked = asked.replace("FILE", str(path))
    (file,) = addresses.find(str(path), _SUFFIXES)
    columns = [name for name in columns_of(file) if name.strip()]
    rows = [row.values for row in islice(rows_of(file, columns), _CHECKED_ROWS) if row.problem is None]
    start, files = folder, _columns_of_files(rows, columns, folder)
    if not files:
        start, files = images, _columns_of_files(rows, columns, images)
    if len(files) != 1:
        problem = f"{listed(files)} name files" if files else f"no column has the names of images in {images}"
        raise InputError(f"{path}: {problem}; its columns are {listed(columns)}; set {asked}")
    others = [name for name in columns if name not in files]
    split = _split_column(path, rows, others)
    others = [name for name in others if name != split]
    labels = [name for name in others if name.strip().lower() in _LABEL_COLUMNS] or others
    if len(labels) != 1:
        problem = f"{listed(labels)} may each be the label" if labels else "no other column is left for the label"
        raise InputError(f"{path}: column {files[0]} has the files, and {problem}; set {asked}")
    return ManifestConfig(
        manifest=str(path), images=str(start), path_column=files[0], label_column=labels[0], split_column=split
    )


def _columns_of_files(rows: Sequence[Mapping[str, str]], columns: Sequence[str], start: Path) -> list[str]:
    """The columns that name files below `start` in more than half of the first rows."""
    matching = []
    for column in columns:
        names = [row[column].strip() for row in rows if row.get(column, "").strip()]
        # Unlike Path.is_file(), false for a text that is too long for a file name.
        if 2 * sum(os.path.isfile(start / name) for name in names) > len(rows):
            matching.append(column)
    return matching


def _split_column(path: Path, rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str | None:
    """The column with the names of splits, by its name and the first rows; None if there is none.

    Raises:
        InputError: a column has names of splits and other words.
    """
    for column in columns:
        words = [row[column] for row in rows if row.get(column, "").strip()]
        others = [word for word in words if given_split(word) is None]
        if column.strip().lower() not in _SPLIT_COLUMNS or len(others) == len(words):
            continue  # e.g. the numbers of folds
        if others:
            raise InputError(
                f"{path}: column {column} has {others[0]!r}, which is not train, val or test; correct it, or rename "
                "the column to draw the splits at random"
            )
        return column
    return None
