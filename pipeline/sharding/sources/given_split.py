"""The split that a data set prescribes, from the words for it in columns, file names and folder names."""

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
    """The split in a file's name, e.g. "train-00001.tar" or "test2017.parquet"; None if it names none, or several."""
    splits = {_WORDS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in _WORDS}
    return splits.pop() if len(splits) == 1 else None


# Words of a folder's name that do not change its meaning.
_SET_WORDS = ("set", "data", "dataset", "split", "part", "subset", "images", "image", "imgs", "img", "samples", "seg")


def split_of_folder(name: str) -> str | None:
    """The split of a folder named for nothing else: "Train", "val2017", "test_set", "TrainingData"; else None.

    None for "train station", which is a class.
    """
    splits = set()
    for word in re.findall(r"[^\W\d_]+", name.lower()):
        if word in _SET_WORDS:
            continue
        bare = next((word.removesuffix(end) for end in _SET_WORDS if word.removesuffix(end) in _WORDS), word)
        if bare not in _WORDS:
            return None
        splits.add(_WORDS[bare])
    return splits.pop() if len(splits) == 1 else None
