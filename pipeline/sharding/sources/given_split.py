"""The split that a data set prescribes, from the words that data sets use for it."""

from __future__ import annotations

import re

_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
WORDS = tuple(_WORDS)


def given_split(word: str) -> str | None:
    """The split for a word such as "validation"; None for any other word."""
    return _WORDS.get(word.strip().lower())


def split_of_name(name: str) -> str | None:
    """The split in a file's name: "train-00001.tar", "coco-val-3.tar", "test2017.parquet"."""
    found = {_WORDS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


_SET_WORDS = ("set", "data", "dataset", "split", "part", "subset", "images", "image", "imgs", "img", "samples", "seg")


def split_of_folder(name: str) -> str | None:
    """The split of a folder whose name has no other meaning: "Train", "val2017", "test_set", "TrainingData".

    "train station" has another meaning, and is a class.
    """
    found = set()
    for word in re.findall(r"[^\W\d_]+", name.lower()):
        if word in _SET_WORDS:
            continue
        bare = next((word.removesuffix(end) for end in _SET_WORDS if word.removesuffix(end) in _WORDS), word)
        if bare not in _WORDS:
            return None
        found.add(_WORDS[bare])
    return found.pop() if len(found) == 1 else None
