"""The files of a folder that a source skips because of their extensions, so that they can be reported."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipeline.folders import files_below
from pipeline.pixels.extensions import IMAGE_SUFFIXES
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.sources.passed_over import NOTHING_PASSED_OVER, PassedOver, PassedOverCount, kind_of_name


def left_out(pattern: str, suffixes: Sequence[str], *, named: bool = False) -> PassedOver:
    """The files of a folder that `addresses.find` skips because of their names; none for a pattern.

    Args:
        suffixes: see `addresses.find`.
        named: do not count images, because the rows of the files name them.
    Raises:
        InputError: a folder cannot be listed.
    """
    if "{" in pattern or addresses.is_pattern(pattern):
        return NOTHING_PASSED_OVER
    url = addresses.absolute(pattern)
    passed = PassedOverCount()
    if addresses.is_remote(url):
        names = [file.url for file in addresses.below(url)]
    elif os.path.isdir(url):
        names = [entry.path for entry in files_below(url, hidden=False)]
    else:
        return NOTHING_PASSED_OVER
    for name in names:
        kind = kind_of_name(name)
        if not addresses.ends_with(name.rpartition("/")[2], suffixes) and not (named and kind in IMAGE_SUFFIXES):
            passed.add(kind, name.removeprefix(url).lstrip("/"))
    return passed.done()
