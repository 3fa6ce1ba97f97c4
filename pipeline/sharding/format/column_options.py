"""Config fields of stages that read joined columns: select samples by a column, take captions from a column."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pipeline.config import Config


def _valid_ranges(keep: dict[str, tuple[float | None, float | None]]) -> dict[str, tuple[float | None, float | None]]:
    for name, (low, high) in keep.items():
        if low is None and high is None:
            raise ValueError(f"{name}: give [min, max]; null for one of them leaves that end open")
        if not all(isfinite(end) for end in (low, high) if end is not None):
            raise ValueError(f"{name}: the ends of [{low}, {high}] must be finite; null leaves one open")
        if low is not None and high is not None and low > high:
            raise ValueError(f"{name}: [{low}, {high}] is empty; the smaller number comes first")
    return keep


KeepRanges = Annotated[dict[str, tuple[float | None, float | None]], AfterValidator(_valid_ranges)]


def keep_field() -> Any:
    """The config field `keep`."""
    return Field(
        {},
        description="Filter: train only on samples with a joined column in a range [min, max], e.g. {quality: [0.5, "
        "null]}. null leaves an end open. Samples without a value are left out.",
    )


def captions_from_field() -> Any:
    """The config field `captions_from`."""
    return Field(None, description="Joined text column to use as captions. null: use the captions in the shards.")


def reads_columns(config: Config) -> bool:
    """Whether a stage with this config needs joined columns."""
    return reads_user_columns(config) or reads_teacher_outputs(config)


def reads_user_columns(config: Config) -> bool:
    """Whether a stage with this config needs columns that the user must provide, since no stage computes them."""
    return bool(getattr(config, "keep", None)) or getattr(config, "captions_from", None) is not None


def reads_teacher_outputs(config: Config) -> bool:
    """Whether a stage with this config needs a column with a teacher's outputs."""
    return getattr(getattr(config, "distillation", None), "teacher_column", None) is not None
