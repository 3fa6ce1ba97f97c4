"""The result of a stage in a few words: its summary's `headline`, which the stage writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LIMIT = 3


def headline(summary: Mapping[str, Any]) -> str:
    """The summary's headline; for a summary of an older version, which has none, its first scalars."""
    text = summary.get("headline")
    if isinstance(text, str) and text:
        return text
    scalars = [(name, value) for name, value in summary.items() if isinstance(value, str | int | float)]
    return ", ".join(f"{name.replace('_', ' ')} {_formatted(name, value)}" for name, value in scalars[:_LIMIT])


def _formatted(name: str, value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float) and ("accuracy" in name or "recall" in name) and 0 <= value <= 1:
        return f"{value:.1%}"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return value
