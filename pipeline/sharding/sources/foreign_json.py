"""Parses JSON that Tutelage did not write; an integer with more digits than Python converts is an error in one line."""

from __future__ import annotations

import json
import sys
from typing import Any


def parse_json(data: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or has an integer of more digits than Python converts (4,300).
        RecursionError: it is nested too deeply.
    """
    return json.loads(data, parse_int=_integer)


def _integer(text: str) -> int:
    limit, digits = sys.get_int_max_str_digits(), len(text.removeprefix("-"))
    if limit and digits > limit:
        raise ValueError(f"a number of {digits:,} digits")
    return int(text)
