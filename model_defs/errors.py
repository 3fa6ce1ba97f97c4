"""The one error of this package: a model cannot be built, or fed, as asked."""

from __future__ import annotations


class ModelError(ValueError):
    """An unknown model, an argument it does not take, or an input it cannot take; raised before any work."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
