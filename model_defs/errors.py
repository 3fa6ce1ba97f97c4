"""The only error of this package: a model cannot be built or called as requested."""

from __future__ import annotations


class ModelError(ValueError):
    """An unknown model, an unsupported argument, or an unsupported input; raised before any work."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
