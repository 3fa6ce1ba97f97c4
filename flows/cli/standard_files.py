"""Standard input, output and error: opened if the parent process closed them, and named in errors."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BROKEN_PIPE = 141
"""The exit code if the reader of our output has exited: that of a shell for SIGPIPE."""

NAMES = {1: "standard output", 2: "standard error"}


class _NamedFile(io.FileIO):
    """A file descriptor with a name in its errors, so that a full disk is not attributed to the store."""

    def __init__(self, descriptor: int, name: str, *, closefd: bool) -> None:
        super().__init__(descriptor, "w", closefd=closefd)
        self._name = name

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = self._name
            raise


def open_descriptor(descriptor: int, name: str, *, closefd: bool = True) -> IO[str]:
    """A line-buffered text file for a descriptor.

    Args:
        name: its name in errors, one of `NAMES`.
        closefd: close the descriptor with the file.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(_NamedFile(descriptor, name, closefd=closefd)),
        encoding=sys.stdout.encoding,
        errors=sys.stdout.errors,
        line_buffering=True,
    )


def open_standard_files() -> None:
    """Opens closed descriptors among 0 to 2 on the null device, and names standard output in its errors.

    Python sets `sys.stdout` to None for a closed one, and the next opened file would get its number: a library's
    message would then be written into a database.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The system returns the lowest free number, which is this one.
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    sys.stdout.flush()
    sys.stdout = open_descriptor(1, NAMES[1], closefd=False)


def discard_output() -> None:
    """Points standard output to the null device, so that the flush at exit does not raise again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
