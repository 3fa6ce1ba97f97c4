"""The errors Tutelage raises on purpose; every other exception is a defect.

    TutelageError
    ├── InputError            what was asked for cannot be done: exit code 2, nothing was changed
    │   └── UnknownNameError  a name that does not exist, shown with the near ones
    └── WorkError             the work itself failed: exit code 1, what was committed stays
        └── DamagedError      stored bytes are not the bytes that were committed

A message says what is wrong, where, and what to do about it, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TutelageError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InputError(TutelageError):
    """The request cannot be carried out as it stands; raised before any work is done."""

    exit_code = 2


class UnknownNameError(InputError):
    """A name that is not among the known ones.

    Args:
        kind: what the name should have named, e.g. "model".
        name: the name that was given.
        known: the names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f"unknown {kind} {name!r}{near_names(name, known)}")


class WorkError(TutelageError):
    """The work was started and failed."""


class DamagedError(WorkError):
    """Stored bytes differ from what their manifest promises."""


def near_names(name: str, known: Iterable[str], limit: int = 3) -> str:
    """The end of an error line that lists names near `name`, or a few known ones if none is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=limit, cutoff=0.5)
    if near:
        return "; did you mean " + " or ".join(near) + "?"
    if not names:
        return "; there are none"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"; known: {shown}"
