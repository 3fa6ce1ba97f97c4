"""Labels of foreign data: numbers or words, a file that names the numbers, and an order that does not change."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.errors import InputError
from pipeline.sharding.sources import places

# More different values than this in a label column: they are captions or names of files.
MOST_LABELS = 65_536


def read_class_names(address: str) -> tuple[str, ...]:
    """The lines of a file: line 1 names class 0.

    Raises:
        InputError: there is no such file, an empty line, or a name that occurs twice.
    """
    url = places.stat(address).url
    try:
        lines = places.read(url).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{url}: not UTF-8; one class name a line is wanted") from None
    names = tuple(line.strip() for line in lines)
    if not names or not all(names):
        raise InputError(f"{url}: line {names.index('') + 1 if names else 1} is empty; one class name a line is wanted")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{url}: class name {twice!r} occurs twice; make them different")
    return names


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Each label once: numbers in their order, then words in theirs."""
    return tuple(
        sorted(set(labels), key=lambda label: (not _is_number(label), int(label) if _is_number(label) else 0, label))
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def named(label: str, names: tuple[str, ...]) -> str | None:
    """The name of the class that `label` says by number or by name; None if there is no such class."""
    if label in names:
        return label
    if _is_number(label) and int(label) < len(names):
        return names[int(label)]
    return None
