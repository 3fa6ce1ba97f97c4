"""The errors that Tutelage raises on purpose; any other exception is a defect.

    TutelageError
    ├── InputError            the request cannot be carried out: exit code 2, nothing was changed
    │   └── UnknownNameError  a name that does not exist, shown with the near ones
    └── WorkError             the work itself failed: exit code 1, what was committed stays
        └── DamagedError      stored bytes are not the bytes that were committed

A message says what is wrong, where, and what to do, in one line. Its length is limited: `listed` limits a list of
names, `shortened` one text, and the base class the whole line.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

from pipeline.service_url import without_credentials

_LINE_CHARS = 1500
_NAME_CHARS = 80
_NAMES = 8


class TutelageError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: reduced to one line of printable characters, without passwords of URLs; the middle of a long line is
            cut.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(without_credentials(str(message)), _LINE_CHARS))

    def __reduce__(self) -> tuple[Any, ...]:
        # Python would call the class with the message alone, which subclasses with other arguments refuse.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[TutelageError], args: tuple[Any, ...], attributes: dict[str, Any]) -> TutelageError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class InputError(TutelageError):
    """The request cannot be carried out; raised before any work is done."""

    exit_code = 2


class UnknownNameError(InputError):
    """A name that is not among the known ones.

    Args:
        kind: the kind of thing that was looked up by name, e.g. "model".
        name: the name that was given.
        known: the names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f"unknown {kind} {name!r}{near_names(name, known)}")


class WorkError(TutelageError):
    """The work was started and failed."""


class DamagedError(WorkError):
    """Stored bytes differ from their manifest."""


def first_line(error: object, limit: int = 300) -> str:
    """The first line of an error's message, shortened to `limit` characters; the error's type if it has no message."""
    message = str(error).strip() or type(error).__name__
    return shortened(message.splitlines()[0].strip(), limit)


def near_names(name: str, known: Iterable[str], limit: int = 3) -> str:
    """The end of an error line that lists names near `name`, or a few known ones if none is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=limit, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(shortened(near_name, _NAME_CHARS) for near_name in near) + "?"
    if not names:
        return "; there are none"
    return f"; known: {listed(names)}"


def listed(names: Collection[str], *, limit: int = _NAMES, separator: str = ", ") -> str:
    """The first names, each shortened, and the number of the others: "a, b, c and 24 more"."""
    shown = separator.join(shortened(name, _NAME_CHARS) for name in islice(names, limit))
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def shortened(text: str, limit: int = _NAME_CHARS) -> str:
    """A text as one line of printable characters; the middle of a long one is left out."""
    line = text
    if not line.isprintable():
        line = "".join(map(_printable, line))
    if len(line) <= limit:
        return line
    # The end of a message says what to do; the end of a path is its file.
    gap = f" ... ({len(line) - limit:,} characters) ... "
    start = max(0, limit - len(gap)) * 2 // 3
    end = max(0, limit - len(gap) - start)
    return f"{line[:start]}{gap}{line[len(line) - end :]}"


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else ascii(character)[1:-1]
