"""How numbers and names read, on the page and in Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_defs import ModelInfo
from pipeline.artifacts import Artifact


def percent(share: float) -> str:
    """A share as a percentage; small ones keep a second digit."""
    return f"{share:.2%}" if 0 < share < 0.01 else f"{share:.1%}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def p_value(p: float) -> str:
    """A p-value; below one in ten thousand its size says nothing more."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def magnitude(count: int | None) -> str:
    """A count in three or four digits: "61.1M", "4.09G"; empty if it is not known."""
    if count is None:
        return ""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            scaled = count / size
            return f"{scaled:.{2 if scaled < 10 else 1}f}{unit}"
    return str(count)


def paper_errors(info: ModelInfo, between: str = "/") -> str:
    """Top-1 and top-5 error of a model's paper, in percent; empty if it printed none."""
    if info.top1_error is None and info.top5_error is None:
        return ""
    told = [
        "–" if error is None else f"{error:.1f}" if round(error, 1) == error else f"{error:.2f}"
        for error in (info.top1_error, info.top5_error)
    ]
    return told[0] if info.top5_error is None else between.join(told)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
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


def spoken(name: str) -> str:
    """The name of an artifact in a run, as words."""
    return name.replace("clip", "dual encoder").replace("-", " ").replace("_", " ")


def headline(summary: Mapping[str, Any]) -> str:
    """The one thing worth saying about an artifact, from its summary."""
    if isinstance(summary.get("headline"), str):
        return str(summary["headline"])
    for name, chance, told in (
        ("accuracy/top1", "accuracy/chance", "{} right"),
        ("retrieval/image_retrieval_recall@1", "retrieval/image_retrieval_chance@1", "text → image R@1 {}"),
        ("zero_shot/top1", "zero_shot/chance", "zero-shot {} right"),
    ):
        if name in summary:
            return f"{told.format(percent(summary[name]))} (chance {percent(summary[chance])})"
    if "promoted" in summary:
        version = f"version {summary['version']} " if "version" in summary else ""
        return f"{version}{'is champion' if summary['promoted'] else 'was not promoted'}"
    if "val_accuracy" in summary:
        return f"{percent(summary['val_accuracy'])} right on the validation split{_size(summary)}"
    if "val_image_recall_at_1" in summary:
        return f"text → image R@1 {percent(summary['val_image_recall_at_1'])} on the validation split{_size(summary)}"
    if "nodes" in summary and "leaves" in summary:
        return f"{summary['nodes']:,} nodes, {summary['leaves']:,} of them leaves"
    if "samples" in summary:
        labels = f", {summary['labels']:,} labels" if isinstance(summary.get("labels"), int) else ""
        return f"{summary['samples']:,} images{labels}"
    parts = [
        f"{name.replace('val_', '').replace('_', ' ')} {_value(name, value)}"
        for name, value in summary.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return ", ".join(parts[:3])


def _size(summary: Mapping[str, Any]) -> str:
    return f", {summary['parameters'] / 1e6:,.2f}M parameters" if "parameters" in summary else ""


def _value(name: str, value: float) -> str:
    if isinstance(value, float) and 0 <= value <= 1 and ("accuracy" in name or "recall" in name):
        return percent(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
