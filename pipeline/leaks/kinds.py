"""How an evaluation image was found in the training data."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """How an evaluation image was found in the training data, the worst first."""

    EXACT = 0  # the same bytes
    PIXELS = 1  # the same pixels in other bytes: losslessly re-encoded
    NEAR = 2  # it looks the same


KINDS = tuple(kind.name.lower() for kind in Kind)
