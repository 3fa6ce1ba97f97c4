"""The state of a stage in one line: for output that is not a terminal, and for the run's log in Prefect."""

from __future__ import annotations

from flows.run_board import StageRow


def plain_line(row: StageRow, max_numbers: int | None = 4) -> str:
    """A stage's state in one line without colour.

    Args:
        max_numbers: limit on the reported numbers in the line; None: all.
    """
    if row.state != "running":
        words = [row.label, row.state]
        if row.state not in ("cached", "nothing new") and row.seconds is not None:
            words.append(f"in {clock(row.seconds)}")
        return " ".join(words) + (f": {row.headline}" if row.headline else "")
    lines = [row.note] if row.note else []
    if row.total:
        lines.append(f"{row.step:,}/{row.total:,}")
    elif row.step:
        lines.append(f"{row.step:,}")
    lines += formatted_numbers(row, max_numbers)
    if row.left_s is not None:
        lines.append(f"{clock(row.left_s)} left")
    return f"{row.label}: {', '.join(lines)}" if lines else f"{row.label}: started"


def formatted_numbers(row: StageRow, limit: int | None = 4) -> list[str]:
    """The numbers that a stage reported, formatted, the most important first."""
    order = ["loss", "images_per_s"]
    names = [name for name in order if name in row.numbers] + [name for name in row.numbers if name not in order]
    return [_number(name, row.numbers[name]) for name in names[:limit]]


def _number(name: str, value: float) -> str:
    if name == "images_per_s":
        return f"{value:,.0f} img/s"
    return f"loss {value:.3f}" if name == "loss" else f"{name.replace('_', ' ')} {value:.4g}"


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss from one hour on."""
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
