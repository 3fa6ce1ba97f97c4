"""Formats numbers and names for the page and for Markdown."""

from __future__ import annotations

from model_defs import ModelInfo
from pipeline.artifacts import Artifact


def percent(share: float) -> str:
    """A fraction as a percentage with one decimal; below 1% with two."""
    return f"{share:.2%}" if 0 < share < 0.01 else f"{share:.1%}"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def magnitude(count: int | None) -> str:
    """A count in three or four digits: "61.1M", "4.09G"; empty if it is unknown."""
    if count is None:
        return ""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            scaled = count / size
            return f"{scaled:.{2 if scaled < 10 else 1}f}{unit}"
    return str(count)


def paper_errors(info: ModelInfo, between: str = "/") -> str:
    """Top-1 and top-5 error from a model's paper, in percent; empty if it reports none."""
    if info.top1_error is None and info.top5_error is None:
        return ""
    errors = [
        "–" if error is None else f"{error:.1f}" if round(error, 1) == error else f"{error:.2f}"
        for error in (info.top1_error, info.top5_error)
    ]
    return errors[0] if info.top5_error is None else between.join(errors)


def duration(seconds: float) -> str:
    """Seconds as a readable duration, e.g. "5 min 3 s"."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 90:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def short_key(artifact: Artifact) -> str:
    """The first ten digits of a key: enough for `tutelage artifacts show`."""
    return artifact.key[:10]


def display_name(name: str) -> str:
    """The name of an artifact in a run, as words."""
    if name == "baseline":
        return "baseline (linear probe)"
    return name.replace("clip", "dual encoder").replace("-", " ").replace("_", " ")
