"""The errors of this package: a model cannot be built or called as requested."""

from __future__ import annotations


class ModelError(ValueError):
    """An unknown model, an unsupported argument, or an unsupported input; raised before any work."""


class ArgumentError(ModelError):
    """An argument that the model does not have, or a value that it does not accept.

    Args:
        model: name of the model.
        argument: name of the argument; in a sequence or mapping with the index or key, e.g. "widths.1".
        problem: what is wrong with it, e.g. "must be 1 to 1,000, not 0".
    """

    def __init__(self, model: str, argument: str, problem: str) -> None:
        super().__init__(model, argument, problem)
        self.model = model
        self.argument = argument
        self.problem = problem

    def __str__(self) -> str:
        return f"model {self.model!r}: {self.argument}: {self.problem}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
