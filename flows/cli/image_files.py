"""The bytes of image files named on the command line."""

from __future__ import annotations

import stat
from pathlib import Path

from pipeline.errors import InputError

_MAX_BYTES = 256 << 20  # No image is longer; a disk or an endless file is.


def image_bytes(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        InputError: it is missing, unreadable, not a file, empty, or longer than any image.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: a folder; name the image files in it")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):  # a pipe: the shell passes one for <(command)
            raise InputError(f"{path}: not a file; give image files")
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give image files") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); give image files") from None
    if not data:
        raise InputError(f"{path}: empty; give image files")
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: longer than {_MAX_BYTES >> 20} MiB; give image files")
    return data
