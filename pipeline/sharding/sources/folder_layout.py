"""The layout of an image folder: FOLDER/CLASS, FOLDER/train/CLASS with other splits, or FOLDER/CLASS/train.

A folder of a split is recognised by its name, and by holding class folders instead of images. If it may also be a class
("train" is a vehicle too), the data are rejected until the config's `layout` says which it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.counted import counted
from pipeline.errors import InputError, listed, shortened
from pipeline.folders import identity
from pipeline.pixels.extensions import IMAGE_SUFFIXES
from pipeline.sharding.format.index import SPLITS
from pipeline.sharding.sources.given_split import split_of_folder
from pipeline.sharding.sources.image_listing import FolderImages, images_in, sub_folders
from pipeline.sharding.sources.skipped_files import IN_NO_CLASS, LOOP, SkipCounter, SkippedFiles

Layout = Literal["auto", "classes", "splits", "table"]


@dataclass(frozen=True, slots=True)
class ClassFiles:
    """The images of a class, or those of one split of it.

    Attributes:
        split: the split according to the folder, or None.
        names: paths relative to the listed folder.
    """

    label: str
    split: str | None
    names: list[str]


@dataclass(frozen=True, slots=True)
class FolderData:
    """The content of a folder.

    Attributes:
        broken: names that are broken links.
        empty: classes without an image.
        by_split: whether folders determine the splits.
        splits_note: a sentence on how folder names were interpreted; "" for FOLDER/CLASS.
    """

    classes: list[ClassFiles]
    broken: frozenset[str]
    skipped: SkippedFiles
    by_split: bool
    empty: tuple[str, ...] = ()
    splits_note: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted({*self.empty, *(files.label for files in self.classes)}))


def folder_data(folder: Path, layout: Layout) -> FolderData:
    """The images of a folder by class and split, in the order of their names.

    Raises:
        InputError: the folder is missing, a folder cannot be listed, there is no image, or folders named like splits
            may be classes.
    """
    root = str(folder)
    _check_folder(folder)
    skipped = SkipCounter()
    above = tuple(identity(str(path)) for path in (folder, *folder.parents))
    tops = []
    for name in sub_folders(root):
        if (folder / name).is_symlink() and identity(f"{root}/{name}") in above:
            skipped.add(LOOP, name)  # A link to the same images, which would get another label.
        else:
            tops.append(name)
    for name in images_in(root, skipped, deep=False).names:
        skipped.add(IN_NO_CLASS, name)
    if not tops:
        raise InputError(
            f"{folder}: holds no sub-folder; put the images of each class into one, as {folder.name}/CLASS/a.jpg, or"
            f" add a table of their labels, as {folder.name}/labels.csv with the columns file and label"
        )
    trees = {name: images_in(f"{root}/{name}", skipped, prefix=f"{name}/", above=above) for name in tops}
    if not any(tree.names for tree in trees.values()):
        skipped_files = skipped.result()
        others = f"; it has {skipped_files.in_words()}" if skipped_files.count else ""
        raise InputError(
            f"{folder}: no image in any sub-folder; looked for {', '.join(sorted(IMAGE_SUFFIXES))}{others}"
        )
    broken = frozenset().union(*(tree.broken for tree in trees.values()))
    splits = _splits(folder, trees, layout)
    if splits:
        classes, empty = _classes_of_splits(trees, splits, skipped)
        return FolderData(classes, broken, skipped.result(), True, empty, _note_on_split_folders(classes, splits))
    empty = tuple(name for name, tree in trees.items() if not tree.names)
    trees = {name: tree for name, tree in trees.items() if tree.names}
    if layout != "classes" and _has_splits_in_classes(folder, trees):
        classes = list(_splits_of_classes(trees))
        return FolderData(classes, broken, skipped.result(), True, empty, _note_on_splits_in_classes(classes))
    if layout == "splits":
        raise InputError(f"{folder}: layout=splits, but it has no train/, val/ or test/ with folders of classes")
    return FolderData([ClassFiles(n, None, t.names) for n, t in trees.items()], broken, skipped.result(), False, empty)


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; name that of your images: data.source.folder=PATH")
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name the folder that holds one sub-folder per class")


def _splits(folder: Path, trees: Mapping[str, FolderImages], layout: Layout) -> dict[str, str]:
    """The split of each split folder, ordered train, val, test; {} if the folders are classes."""
    named = {name: split for name in trees if (split := split_of_folder(name)) is not None}
    ordered = dict(sorted(named.items(), key=lambda entry: (SPLITS.index(entry[1]), entry[0])))
    if layout == "splits":
        return ordered if any(_holds_classes(trees[name]) for name in named) else {}
    if layout == "classes" or not any(trees[name].names for name in named):
        return {}
    others = [name for name, tree in trees.items() if tree.names and name not in named]
    with_classes = [name for name in named if _holds_classes(trees[name])]
    if others and len(named) == 1 and not with_classes:
        return {}
    if others:
        raise InputError(
            f"{folder}: holds {_folders(ordered)} and {_folders(others)}; say what they are: layout=splits (folders of "
            "classes in each split, the others are skipped) or layout=classes"
        )
    flat = [name for name in ordered if trees[name].names and name not in with_classes]
    if not with_classes or any(named[name] == "train" for name in flat):
        raise InputError(
            f"{folder / flat[0]}: holds images and no folders of classes; sort them into {flat[0]}/CLASS/, or set "
            f"layout=classes if {_folders(ordered)} are the classes"
        )
    return ordered


def _holds_classes(tree: FolderImages) -> bool:
    """Whether most of its images are in sub-folders."""
    direct = sum(name.count("/") == 1 for name in tree.names)
    return 2 * direct < len(tree.names)


def _classes_of_splits(
    trees: Mapping[str, FolderImages], splits: Mapping[str, str], skipped: SkipCounter
) -> tuple[list[ClassFiles], tuple[str, ...]]:
    """(images of each class in each split, classes without an image in any split) for the layout train/CLASS.

    Images outside class folders are skipped.
    """
    classes: list[ClassFiles] = []
    folders: set[str] = set()
    for name, tree in trees.items():
        if name not in splits:
            for image in tree.names:
                skipped.add("in no split's folder", image)
    for name, split in splits.items():
        tree = trees[name]
        depth = _depth_of_classes(tree, split)
        by_class: dict[str, list[str]] = {}
        for image in tree.names:
            parts = image.split("/")
            if len(parts) <= depth + 1:
                skipped.add(IN_NO_CLASS, image)
            else:
                by_class.setdefault(parts[depth], []).append(image)
        classes += [ClassFiles(label, split, by_class[label]) for label in sorted(by_class)]
        if depth == 1:
            folders.update(tree.folders)
    return classes, tuple(sorted(folders - {files.label for files in classes}))


def _depth_of_classes(tree: FolderImages, split: str) -> int:
    """Position of the class in a path: 1, or 2 if the split's folder contains itself again (train/train/CLASS)."""
    depth = 1
    while True:
        inner = {parts[depth] for name in tree.names if len(parts := name.split("/")) > depth + 1}
        loose = any(name.count("/") == depth for name in tree.names)
        deeper = any(name.count("/") > depth + 1 for name in tree.names)
        if loose or not deeper or len(inner) != 1 or split_of_folder(next(iter(inner))) != split:
            return depth
        depth += 1


def _has_splits_in_classes(folder: Path, trees: Mapping[str, FolderImages]) -> bool:
    """Whether every folder has only the form CLASS/train/*, CLASS/val/* and the like."""
    inner = [name.split("/")[1:] for tree in trees.values() for name in tree.names]
    splits = {split_of_folder(parts[0]) if len(parts) > 1 else None for parts in inner}
    if None in splits or len(splits) < 2 or "train" not in splits:
        return False
    if all(len(parts) > 2 for parts in inner) and len(trees) == 1:
        name = next(iter(trees))
        raise InputError(f"{folder}: its only sub-folder, {name}/, holds the splits; set folder={folder / name}")
    return all(len(parts) == 2 for parts in inner)


def _splits_of_classes(trees: Mapping[str, FolderImages]) -> Iterator[ClassFiles]:
    for label, tree in trees.items():
        by_folder: dict[str, list[str]] = {}
        for name in tree.names:
            by_folder.setdefault(name.split("/")[1], []).append(name)
        yield from (ClassFiles(label, split_of_folder(inner), names) for inner, names in by_folder.items())


def _note_on_split_folders(classes: list[ClassFiles], splits: Mapping[str, str]) -> str:
    counts = dict.fromkeys(splits, 0)
    for files in classes:
        counts[files.names[0].partition("/")[0]] += len(files.names)
    folders = ", ".join(
        f"{shortened(name)}/ is {split} ({counted(counts[name], 'image')})" for name, split in splits.items()
    )
    return f"the folders give the splits: {folders}" + _not_in_train(classes)


def _note_on_splits_in_classes(classes: list[ClassFiles]) -> str:
    counts: dict[str, int] = {}
    for files in classes:
        counts[files.split or ""] = counts.get(files.split or "", 0) + len(files.names)
    sizes = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if split in counts)
    return f"the folders in each class give the splits: {sizes}" + _not_in_train(classes)


def _not_in_train(classes: list[ClassFiles]) -> str:
    """The end of a note that lists classes without training images: another spelling of a class, or not learnable."""
    train_labels = {files.label for files in classes if files.split == "train"}
    missing = sorted({files.label for files in classes} - train_labels)
    return f"; not in train: {listed(missing)}" if train_labels and missing else ""


def _folders(names: Iterable[str]) -> str:
    return listed([f"{name}/" for name in names])
