"""A number with its noun, for text that people read."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """The number and the noun, such as "1 image" or "2,000 images".

    Args:
        noun: in the singular.
        plural: None: the noun with "s".
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
