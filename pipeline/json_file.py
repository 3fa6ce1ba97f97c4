"""JSON files in one format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any, *, sort_keys: bool = False, allow_nan: bool = True) -> None:
    """Writes a value as an indented JSON file in UTF-8.

    Raises:
        ValueError: the value contains NaN or infinity, and `allow_nan` is false.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=sort_keys, allow_nan=allow_nan)
    path.write_text(text + "\n", encoding="utf-8")
