"""Labels of foreign data: numbers or words, class names for the numbers, and a stable order.

Texts that look the same are one label: letters are composed (Unicode NFC), and white space and zero-width characters
are stripped at both ends. Words that programs write for a missing value are not labels.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from pipeline.errors import InputError, listed
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.sources.file_type import HEAD_BYTES, refuse_other_type

# A column with more distinct values than this does not contain labels, but captions or file names.
MAX_LABELS = 65_536
# The words that pandas reads as missing: those that pandas, NumPy, R, SQL and spreadsheets write.
MISSING_WORDS = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
        *("NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"),
    }
)
_MAX_SPELLINGS = 4  # of a label in a note
_NO_WIDTH = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"


def normalise_label(text: str) -> str:
    """A label as it is compared and stored: in NFC, without white space and zero-width characters at its ends."""
    if text.isascii():
        return text.strip()
    before = None
    while text != before:
        before, text = text, text.strip().strip(_NO_WIDTH)
    return unicodedata.normalize("NFC", text)


class Spellings:
    """Collects different texts that became the same label, for a note."""

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}

    def add(self, written: str, label: str) -> None:
        """Adds a spelling of a label."""
        some = self._of.setdefault(label, set())
        if len(some) < _MAX_SPELLINGS:
            some.add(written)

    def notes(self) -> Iterator[str]:
        """A sentence for a Collection's `notes`, if different texts became the same label."""
        merged = [sorted(some) for label, some in sorted(self._of.items()) if len(some) > 1]
        if merged:
            shown = listed([" and ".join(map(ascii, written)) for written in merged])
            yield f"labels that look the same were merged: {shown}"


def label_text(value: Any) -> str:
    """The text of a value that is a label or a word for a missing value; "" for null.

    Raises:
        ValueError: the value is a list, bytes or another type that cannot be a label.
    """
    if value is None:
        return ""
    if isinstance(value, list | tuple | dict | set | bytes):
        raise ValueError(f"its label is {kind_of_value(value)}, not a text or a number")
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return normalise_label(str(value))


def kind_of_value(value: Any) -> str:
    """The kind of a value that is neither a text nor a number, as a noun with its article."""
    if isinstance(value, dict):
        return "an object"
    return "bytes" if isinstance(value, bytes) else "a list"


def label_of(value: Any, class_names: Collection[str] = ()) -> str | None:
    """The label in a cell of a table, or None.

    Args:
        class_names: a word for a missing value is a label if it is one of these.
    Raises:
        ValueError: the value is a list, bytes or another type that cannot be a label.
    """
    if isinstance(value, int | float) and value == -1 and class_names:
        # Hugging Face's ClassLabel has -1 if the labels of a test set are not public.
        return None
    text = label_text(value)
    return None if text in MISSING_WORDS and text not in class_names else text


def missing_label(value: Any) -> str:
    """What a cell without a label holds, for a message: the quoted word for a missing value, or `empty`."""
    text = label_text(value)
    return repr(text) if text else "empty"


def missing_in_words(counts: Mapping[str, int]) -> str:
    """The cells without a label as text, and what to do if such a word is a class.

    Args:
        counts: result of `missing_label` -> number of cells.
    """
    counted = ", ".join(f"{count:,} {word}" for word, count in sorted(counts.items()))
    named = any(word.startswith("'") for word in counts)
    return counted + ("; where such a word is a class, name it in class_names" if named else "")


def read_class_names(address: str | None) -> tuple[str, ...]:
    """The lines of a file, line 1 names class 0; () for None.

    Raises:
        InputError: there is no such file, an empty line, or a name that occurs twice.
    """
    if address is None:
        return ()
    url = addresses.stat(address).url
    content = addresses.read(url)
    refuse_other_type(url, content[:HEAD_BYTES])
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{url}: not UTF-8; write one class name per line, in UTF-8") from None
    names = tuple(normalise_label(line) for line in lines)
    if not names or not all(names):
        raise InputError(f"{url}: line {names.index('') + 1 if names else 1} is empty; write one class name per line")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{url}: class name {twice!r} occurs twice; make them different")
    return names


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """The distinct labels: numbers in numeric order, then words in alphabetical order."""
    return tuple(sorted(set(labels), key=_sort_key))


def _sort_key(label: str) -> tuple[bool, int, str, str]:
    """A sort key that orders numbers by value without int(), which is limited to 4,300 digits."""
    if not _is_number(label):
        return True, 0, "", label
    digits = label.lstrip("0")
    return False, len(digits), digits, label


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def class_name_of(label: str | None, names: tuple[str, ...]) -> str | None:
    """The class name for a label that is a class number or a class name; the label itself for None or without names.

    Raises:
        ValueError: there is no such class.
    """
    if label is None or not names or label in names:
        return label
    number = label.removesuffix(".0")  # pandas writes integers of a column with gaps as 3.0.
    if _is_number(number):
        digits = number.lstrip("0") or "0"
        if len(digits) <= len(str(len(names))) and int(digits) < len(names):
            return names[int(digits)]
    raise ValueError(f"label {label!r} is no class of class_names")
