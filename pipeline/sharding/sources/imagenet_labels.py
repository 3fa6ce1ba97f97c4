"""ImageNet's label files: the labels of val/ and the class names of the WNIDs, in the formats in use.

    LOC_val_solution.csv                      ILSVRC2012_val_00000001,n01751748 111 108 226 223        (Kaggle)
    val.txt                                   ILSVRC2012_val_00000001.JPEG 65                          (Caffe)
    ILSVRC2012_validation_ground_truth.txt    490, one line per image; with meta.mat                   (devkit)

Caffe's class numbers are positions in the sorted WNIDs. Those of the devkit are ILSVRC2012_IDs, in another order, which
only its meta.mat defines: the file is required, because without it the classes would be silently wrong.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from pipeline.errors import InputError, first_line

_DEVKIT_FILE = "ILSVRC2012_validation_ground_truth.txt"
_VAL_FILES = ("LOC_val_solution.csv", "val.txt")
_DEVKITS = ("", "data", "ILSVRC2012_devkit_t12/data", "ILSVRC2012_devkit_t12")
_NAME_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt", "ILSVRC2012_devkit_t12/data/words.txt")
_CLASSES = 1000


def find_val_labels(root: Path, given: Path | None) -> Path:
    """The file with the labels of val/.

    Args:
        given: a file, or a folder with one; None: searched in `root`.
    Raises:
        InputError: there is none, or the devkit's file has no meta.mat next to it.
    """
    if given is not None and given.expanduser().is_file():
        path = given.expanduser().absolute()
    else:
        folder = root if given is None else given.expanduser().absolute()
        names = (*_VAL_FILES, *(f"{devkit}/{_DEVKIT_FILE}".lstrip("/") for devkit in _DEVKITS))
        candidates = [folder / name for name in names if (folder / name).is_file()]
        if not candidates:
            raise InputError(
                f"{folder}: no labels of val/; put {', '.join(_VAL_FILES)} or the devkit's data/{_DEVKIT_FILE} there, "
                "name it in val_labels, or sort val/ into folders by WNID"
            )
        path = candidates[0]
    if path.name == _DEVKIT_FILE and not (path.parent / "meta.mat").is_file():
        raise InputError(
            f"{path}: the devkit's meta.mat defines its class numbers; put meta.mat next to it, or use val.txt or "
            "LOC_val_solution.csv"
        )
    return path


def read_val_labels(file: Path, wnids: list[str]) -> dict[str, str]:
    """The WNID of each image of val/, by its name without suffix.

    Args:
        wnids: the classes of train/, in order.
    Raises:
        InputError: a line has an unknown format or an unknown class number.
    """
    if file.name == _DEVKIT_FILE:
        wnid_of = _ilsvrc_ids(file.parent / "meta.mat")
        labels = {}
        for number, line in enumerate(_lines(file), start=1):
            if not line.isdigit() or int(line) not in wnid_of:
                raise InputError(f"{file}: line {number}: not an ILSVRC2012_ID of meta.mat")
            labels[f"ILSVRC2012_val_{number:08d}"] = wnid_of[int(line)]
        return labels
    if file.suffix == ".csv":
        return _kaggle(file)
    return _caffe(file, wnids)


def class_words(root: Path, given: Path | None, wnids: list[str], *, wanted: bool) -> dict[str, str]:
    """WNID -> name of the class, in the order of the WNIDs: the first words of its synset, or the WNID itself.

    If two classes have the same name (crane, maillot), the WNID is added: "crane (n02012849)".

    Args:
        given: the file of names; None: searched in `root`.
        wanted: False: each WNID is its own name, and no file is read.
    Raises:
        InputError: there is no file of names, or it lacks a class.
    """
    if not wanted:
        return {wnid: wnid for wnid in wnids}
    if given is not None:
        file = given.expanduser().absolute()
    else:
        file = next((root / name for name in _NAME_FILES if (root / name).is_file()), root / _NAME_FILES[0])
    if not file.is_file():
        raise InputError(f"{file}: no such file; put {' or '.join(_NAME_FILES[:3])} there, or set labels=wnid")
    first: dict[str, str] = {}
    for number, line in enumerate(_lines(file), start=1):
        match = re.match(r"(n\d{8})\s+(\S.*)", line)
        if match is None:
            raise InputError(f"{file}: line {number}: not a WNID and its words")
        first[match.group(1)] = match.group(2).split(",")[0].strip()
    missing = next((wnid for wnid in wnids if wnid not in first), None)
    if missing is not None:
        raise InputError(f"{file}: does not name {missing}, a class of train/")
    counts = Counter(first[wnid] for wnid in wnids)
    return {wnid: first[wnid] if counts[first[wnid]] == 1 else f"{first[wnid]} ({wnid})" for wnid in wnids}


def _kaggle(file: Path) -> dict[str, str]:
    labels = {}
    for number, row in enumerate(csv.reader(_lines(file)), start=1):
        if number == 1 and row[:1] == ["ImageId"]:
            continue
        match = re.match(r"n\d{8}", row[1]) if len(row) == 2 else None
        if match is None:
            raise InputError(f"{file}: line {number}: not an image's id and its WNID, as in LOC_val_solution.csv")
        labels[row[0]] = match.group()
    return labels


def _caffe(file: Path, wnids: list[str]) -> dict[str, str]:
    labels = {}
    for number, line in enumerate(_lines(file), start=1):
        name, _, value = line.rpartition(" ")
        if re.fullmatch(r"n\d{8}", value):
            labels[Path(name).stem] = value
        elif name and value.isdigit() and int(value) < _CLASSES:
            if len(wnids) != _CLASSES:
                raise InputError(
                    f"{file}: numbers {_CLASSES} classes, and train/ has {len(wnids)}; use LOC_val_solution.csv, "
                    "which names their WNIDs"
                )
            labels[Path(name).stem] = wnids[int(value)]
        else:
            raise InputError(f"{file}: line {number}: not an image's name and its class (0 to 999)")
    return labels


def _ilsvrc_ids(file: Path) -> dict[int, str]:
    """The WNID of each ILSVRC2012_ID."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(file, squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
    except (ValueError, KeyError, TypeError, NotImplementedError, OSError) as error:
        raise InputError(f"{file}: not the devkit's meta.mat ({first_line(error)})") from None


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8 text") from None
    return [line.strip() for line in lines if line.strip()]
