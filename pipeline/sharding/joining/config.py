"""The configuration of join-columns, apart from stage.py, so that a command reads it without what joins."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator

from pipeline.config import Config, unkeyed
from pipeline.errors import InputError
from pipeline.sharding.format.file_addresses import absolute
from pipeline.sharding.joining.column_files import find_files, fingerprint


class JoinColumnsConfig(Config):
    """The columns to join to the samples, and the key to join them by."""

    source: str = unkeyed(
        ...,
        description="The table to join, in Parquet, Arrow, CSV, TSV or JSON lines: a file, a folder, a pattern "
        "such as part-{00..15}.parquet, or s3://bucket/key.",
    )
    key: str = Field(
        "key", min_length=1, description="Column of the table with the keys of the samples, as in index.parquet."
    )
    columns: tuple[str, ...] = Field((), description="Columns to join. []: all except the key.")
    unknown_keys: Literal["error", "drop"] = Field(
        "error", description="What to do with a row whose key no sample has. error: fail; drop: ignore the row."
    )
    max_missing_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Maximum fraction (0 to 1) of samples without a value in a column; if more have none, the "
        "stage fails.",
    )
    nan: Literal["error", "missing"] = Field(
        "error", description="How NaN is treated. error: fail; missing: the sample has no value."
    )
    fingerprint: str | None = Field(
        None, description="Digest of the files' names, sizes and times; set by the program."
    )

    @field_validator("columns")
    @classmethod
    def _distinct(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(columns)) != len(columns):
            raise ValueError("names a column twice")
        return columns

    def check(self) -> None:
        """Checks the config before any work.

        Raises:
            InputError: the source does not exist, or `columns` contains the key.
        """
        find_files(self.source)
        if self.key in self.columns:
            raise InputError(f"columns.columns: {self.key!r} is the key; remove it from the list")

    def resolved(self) -> Self:
        """The config with the source's fingerprint, as `run_stage` expects it, so that new data give a new key.

        Raises:
            InputError: the source does not exist.
        """
        return self.model_copy(update={"source": absolute(self.source), "fingerprint": fingerprint(self.source)})
