"""The image files that arguments of the command line stand for, and their bytes.

A folder stands for the images in it and below it, a pattern for the images that match. Both are recognised as
`shard-dataset` does: by extension, otherwise by their first bytes. A path of a file is read whatever
its extension.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.folders import paths_matching
from pipeline.pixels.formats import format_of
from pipeline.sharding.sources.file_type import HEAD_BYTES, file_type
from pipeline.sharding.sources.image_listing import images_in, is_image
from pipeline.sharding.sources.skipped_files import SkipCounter

_MAX_BYTES = 256 << 20  # No image is longer; a disk or an endless file is.


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file to read.

    Attributes:
        path: as the user would write it.
        problem: why there is nothing to read, for an argument that stands for no image.
    """

    path: Path
    problem: str | None = None

    def read(self) -> bytes:
        """The content.

        Raises:
            InputError: it is missing, unreadable, not a file, empty, longer than any image, or of a known other type.
        """
        if self.problem is not None:
            raise InputError(f"{self.path}: {self.problem}")
        data = _image_bytes(self.path)
        head = data[:HEAD_BYTES]
        what = file_type(head) if format_of(head) is None else None
        if what is not None:
            raise InputError(f"{self.path}: not an image that is read: it is {what}")
        return data

    def reason(self, error: InputError) -> str:
        """The message of an error of `read`, without the path."""
        return str(error).removeprefix(f"{self.path}: ")


def image_files(arguments: Iterable[Path]) -> list[ImageFile]:
    """The files that arguments stand for, each once, in order; those of a folder or a pattern are sorted."""
    files: dict[Path, ImageFile] = {}
    for argument in arguments:
        try:
            for path in _paths(argument):
                files.setdefault(path, ImageFile(path))
        except InputError as error:
            files.setdefault(argument, ImageFile(argument, str(error).removeprefix(f"{argument}: ")))
    return list(files.values())


def _paths(argument: Path) -> Sequence[Path]:
    if os.path.isdir(argument):
        counter = SkipCounter()
        below = _below(argument, counter)
        if not below:
            skipped = counter.result()
            contents = f" ({skipped.in_words()})" if skipped.count else ""
            raise InputError(f"{argument}: a folder without images{contents}; name a folder of images, or image files")
        return below
    if os.path.lexists(argument) or not any(sign in str(argument) for sign in "*?["):
        return [argument]
    paths: list[Path] = []
    pattern = os.path.expanduser(argument)
    absolute = os.path.isabs(pattern)
    # The working directory is no pattern, whatever its name.
    for match in paths_matching(
        os.path.normpath(pattern if absolute else os.path.join(glob.escape(os.getcwd()), pattern))
    ):
        path = Path(match if absolute else os.path.relpath(match))
        if path.is_dir():
            paths += _below(path, SkipCounter())
        elif is_image(match):
            paths.append(path)
    if not paths:
        raise InputError(f"{argument}: matches no image files")
    return sorted(paths)


def _below(folder: Path, skipped: SkipCounter) -> list[Path]:
    return [folder / name for name in images_in(str(folder), skipped).names]


def _image_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
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
