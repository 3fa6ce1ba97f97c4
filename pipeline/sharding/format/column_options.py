"""Config fields of stages that read joined columns: select samples by a column, take captions from a column."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.joined_columns import JoinedColumns, Keep

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact


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


def open_columns(
    artifact: Artifact | None, index: SampleIndex, *, keep: Keep | None = None, captions_from: str | None = None
) -> tuple[SampleIndex, JoinedColumns | None]:
    """The index with the requested captions, and the joined columns or None.

    Raises:
        InputError: a requested column is missing or has the wrong type.
    """
    if artifact is None:
        if keep or captions_from is not None:
            option = f"keep: {', '.join(keep)}" if keep else f"captions_from: {captions_from}"
            raise InputError(f"{option}: no columns were joined to the shards; name the table as columns.source")
        return index, None
    columns = JoinedColumns.open(artifact, index)
    columns.in_ranges(keep or {}, 0, 0)  # Selects from no samples, only to check the columns of `keep`.
    return (index if captions_from is None else index.with_captions(columns.texts(captions_from))), columns
