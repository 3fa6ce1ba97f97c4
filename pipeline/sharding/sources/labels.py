"""Labels of foreign data: numbers or words, a file that names the numbers, and an order that does not change.

Two texts that a reader sees as one label are one: letters are composed (Unicode's NFC), white space and signs without
width are dropped at both ends. What programs write for a missing value is no label.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from pipeline.errors import InputError, listed
from pipeline.sharding.format import file_addresses as places
from pipeline.sharding.sources.recognised import HEAD_BYTES, refuse_recognised

# More different values than this in a label column: they are captions or names of files.
MOST_LABELS = 65_536
# What pandas reads as missing, and so what pandas, NumPy, R, SQL and spreadsheets write for it.
MISSING_WORDS = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
        *("NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"),
    }
)
_SPELLINGS = 4
_NO_WIDTH = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"


def one_text(text: str) -> str:
    """A label as it is compared and stored: composed letters, without white space at its ends."""
    if text.isascii():
        return text.strip()
    before = None
    while text != before:
        before, text = text, text.strip().strip(_NO_WIDTH)
    return unicodedata.normalize("NFC", text)


class Spellings:
    """Texts that were made one label, for the note that says so."""

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}

    def add(self, written: str, label: str) -> None:
        """Notes how a label is written."""
        some = self._of.setdefault(label, set())
        if len(some) < _SPELLINGS:
            some.add(written)

    def notes(self) -> Iterator[str]:
        """A sentence for a Collection's `notes`, if several texts are one label."""
        merged = [sorted(some) for label, some in sorted(self._of.items()) if len(some) > 1]
        if merged:
            shown = listed([" and ".join(map(ascii, written)) for written in merged])
            yield f"labels that look the same were made one: {shown}"


def label_text(value: Any) -> str:
    """A label in words, which may be those for a missing one; "" for null.

    Raises:
        ValueError: it holds no label but a list, bytes, ...
    """
    if value is None:
        return ""
    if isinstance(value, list | tuple | dict | set | bytes):
        raise ValueError(f"its label is no text and no number, but {type(value).__name__}")
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return one_text(str(value))


def label_of(value: Any, class_names: Collection[str] = ()) -> str | None:
    """The label that a cell of a table says; None: it says none.

    Args:
        class_names: a word for a missing value that is among them is a label.
    Raises:
        ValueError: it holds no label but a list, bytes, ...
    """
    if isinstance(value, int | float) and value == -1 and class_names:
        # Hugging Face's ClassLabel says -1 where a test set keeps its labels to itself.
        return None
    text = label_text(value)
    return None if text in MISSING_WORDS and text not in class_names else text


def missing_label(value: Any) -> str:
    """What stands where a label is missing, in a word."""
    text = label_text(value)
    return repr(text) if text else "empty"


def missing_in_words(counts: Mapping[str, int]) -> str:
    """Such words with their counts; and what to do where one of them is a class."""
    counted = ", ".join(f"{count:,} {word}" for word, count in sorted(counts.items()))
    named = any(word.startswith("'") for word in counts)
    return counted + ("; where such a word is a class, name it in class_names" if named else "")


def read_class_names(address: str) -> tuple[str, ...]:
    """The lines of a file: line 1 names class 0.

    Raises:
        InputError: there is no such file, an empty line, or a name that occurs twice.
    """
    url = places.stat(address).url
    content = places.read(url)
    refuse_recognised(url, content[:HEAD_BYTES])
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{url}: not UTF-8; one class name a line is wanted") from None
    names = tuple(one_text(line) for line in lines)
    if not names or not all(names):
        raise InputError(f"{url}: line {names.index('') + 1 if names else 1} is empty; one class name a line is wanted")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{url}: class name {twice!r} occurs twice; make them different")
    return names


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Each label once: numbers in their order, then words in theirs."""
    return tuple(sorted(set(labels), key=_rank))


def _rank(label: str) -> tuple[bool, int, str, str]:
    """Sorts numbers by value; of any length, which Python does not convert beyond 4,300 digits."""
    if not _is_number(label):
        return True, 0, "", label
    digits = label.lstrip("0")
    return False, len(digits), digits, label


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def named(label: str, names: tuple[str, ...]) -> str | None:
    """The name of the class that `label` says by number or by name; None if there is no such class."""
    if label in names:
        return label
    label = label.removesuffix(".0")  # A column of numbers with gaps is written as 3.0 by pandas.
    if not _is_number(label):
        return None
    digits = label.lstrip("0") or "0"
    return names[int(digits)] if len(digits) <= len(str(len(names))) and int(digits) < len(names) else None
