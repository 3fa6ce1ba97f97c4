"""Image files that a command line names, as bytes."""

from __future__ import annotations

import stat
from pathlib import Path

from pipeline.errors import InputError

_MOST_BYTES = 256 << 20  # No image is longer; a disk or an endless file is.


def image_bytes(path: Path) -> bytes:
    """What the file holds.

    Raises:
        InputError: it is not there, cannot be read, is no file, is empty or longer than an image.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: a folder; name the image files in it")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):  # a pipe: what the shell makes of <(command)
            raise InputError(f"{path}: not a file; give image files")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give image files") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); give image files") from None
    if not data:
        raise InputError(f"{path}: empty; give image files")
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: longer than {_MOST_BYTES >> 20} MiB; give image files")
    return data
