"""The errors of stages that failed, in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.errors import InputError, TutelageError, WorkError, first_line, listed, shortened

_LINE_CHARS = 1200
_MAX_LISTED = 6  # different errors in a line


def error_line(error: BaseException) -> str:
    """An error in one line, with its type unless it is a TutelageError."""
    line, name = first_line(error), type(error).__name__
    return line if isinstance(error, TutelageError) or line == name else f"{name}: {line}"


class StagesFailedError(WorkError):
    """More than one stage of a run failed.

    Args:
        errors: label of a stage -> its error, in the order of the run.
    """

    def __init__(self, errors: Mapping[str, Exception]) -> None:
        super().__init__(failures_line(errors, error_line))
        self.errors = dict(errors)
        if all(isinstance(error, InputError) for error in errors.values()):
            self.exit_code = InputError.exit_code


def failures_line(errors: Mapping[str, Exception], line: Callable[[Exception], str]) -> str:
    """All failed stages with their errors; stages with the same error are listed together.

    Args:
        line: formats one error as one line.
    """
    stages: dict[str, list[str]] = {}
    for label, error in errors.items():
        stages.setdefault(line(error), []).append(label)
    limit = _LINE_CHARS // min(len(stages), _MAX_LISTED)
    shown = [f"{listed(labels)}: {shortened(text, limit)}" for text, labels in list(stages.items())[:_MAX_LISTED]]
    more = [f"{len(stages) - _MAX_LISTED} more"] if len(stages) > _MAX_LISTED else []
    return f"{len(errors)} stages failed. " + "; ".join([*shown, *more])
