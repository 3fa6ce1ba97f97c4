"""Standard input, output and error of the process: open, though whoever started it closed them, and named in errors."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BROKEN_PIPE = 141
"""The exit code where the reader of our output has gone, as a shell gives it for SIGPIPE."""

NAMES = {1: "standard output", 2: "standard error"}


class _NamedFile(io.FileIO):
    """A descriptor whose errors name it: an OSError of a full disk would else be taken for one of the store."""

    def __init__(self, descriptor: int, name: str, *, closefd: bool) -> None:
        super().__init__(descriptor, "w", closefd=closefd)
        self._name = name

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = self._name
            raise


def opened(descriptor: int, name: str, *, closefd: bool = True) -> IO[str]:
    """A text file of a descriptor; a line is written when it is complete.

    Args:
        name: in errors, one of `NAMES`.
        closefd: the descriptor is closed with the file.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(_NamedFile(descriptor, name, closefd=closefd)),
        encoding=sys.stdout.encoding,
        errors=sys.stdout.errors,
        line_buffering=True,
    )


def open_standard_files() -> None:
    """Opens what is closed of descriptors 0 to 2 on the null device.

    Python sets `sys.stdout` to None for a closed one, and the next file that is opened would get its number: a
    library's message would then be written into a database.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, so this one.
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    sys.stdout.flush()
    sys.stdout = opened(1, NAMES[1], closefd=False)


def discard_output() -> None:
    """Points standard output to the null device, so that what Python flushes at its end raises no more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
