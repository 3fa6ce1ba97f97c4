"""Images embedded in Parquet, as Hugging Face's `datasets` writes them: image struct<bytes, path>, label, captions.

The image column and the class names come from the entry `huggingface` of the schema's metadata; for a file without it,
the config names the columns. A file's name determines its split (train-00000-of-00005.parquet). Images are read page by
page, not a row group at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field

from pipeline.config import digest, unkeyed
from pipeline.errors import InputError, listed
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.base import Author, Collection, Licence, SourceConfig, SourceDescription
from pipeline.sharding.sources.row_items import (
    CaptionColumns,
    ColumnRoles,
    GroupColumn,
    KeyColumn,
    cell_image,
    collect_rows,
)
from pipeline.sharding.sources.skipped_files import skipped_by_name
from pipeline.sharding.sources.tables import check_columns, open_parquet

_SUFFIXES = (".parquet",)


class ParquetImagesConfig(SourceConfig):
    """Paths of the Parquet files, and the meaning of their columns."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "Parquet with embedded images, as written by Hugging Face datasets",
        "*.parquet with a column of image bytes, and one of labels or captions",
        ("files=my-data/data", "caption_columns='[text]'"),
    )

    kind: Literal["parquet_images"] = "parquet_images"
    files: str = unkeyed(
        ..., description="The Parquet files: a file, a folder, or a pattern such as train-*.parquet; local or s3://."
    )
    image_column: str | None = Field(
        None,
        description="Column with the encoded images. null: the column of type Image in the Hugging Face metadata,"
        " else `image`.",
    )
    label_column: str | None = Field(
        None,
        description="Column with the label. null: the column of type ClassLabel in the Hugging Face metadata, if any.",
    )
    caption_columns: CaptionColumns = ()
    group_column: GroupColumn = None
    key_column: KeyColumn = None
    split_by_name: bool = Field(
        True,
        description="Use the split (train, validation or test) in the name of a file. false: samples are split at"
        " random, see data.split.",
    )
    licence: Licence = ""
    author: Author = ""
    fingerprint: str | None = Field(
        None, description="Digest of the files' names, sizes and times; set by the program."
    )

    def check(self, downloads: Path) -> None:
        first = addresses.find(self.files, _SUFFIXES)[0]
        _, columns = self._columns(first)
        captions = {f"caption_columns.{index}": name for index, name in enumerate(columns.captions)}
        check_columns(
            first,
            {"label_column": columns.label, "group_column": columns.group, "key_column": columns.key, **captions},
        )

    def resolved(self) -> Self:
        files = addresses.find(self.files, _SUFFIXES)
        listed = addresses.listing_digest(files, addresses.parent(files[0].url))
        return self.model_copy(update={"fingerprint": digest(listed), **addresses.absolute_fields(self, "files")})

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        files = addresses.find(self.files, _SUFFIXES)
        image, columns = self._columns(files[0])
        return collect_rows(
            files,
            columns,
            image,
            lambda file, row: cell_image(file, image, row),
            embedded=True,
            author=self.author,
            skipped=skipped_by_name(self.files, _SUFFIXES),
            progress=progress,
        )

    def _columns(self, file: FoundFile) -> tuple[str, ColumnRoles]:
        """(image column, columns of the label, captions, group and key)."""
        with closing(open_parquet(file.url)) as parquet:
            schema = parquet.schema_arrow
        features = _features(schema)
        image = self.image_column or _of_type(features, "Image") or "image"
        if image not in schema.names:
            raise InputError(f"image_column: {file.url} has no column {image!r}; it has {listed(schema.names)}")
        if not _holds_bytes(schema.field(image).type):
            raise InputError(f"image_column: {file.url}: {image!r} is {schema.field(image).type}, not bytes")
        label = self.label_column or _of_type(features, "ClassLabel")
        if label is None and not self.caption_columns:
            raise InputError(
                f"{file.url}: its metadata names no ClassLabel; name label_column or caption_columns among "
                f"{listed([name for name in schema.names if name != image]) or '(no other column)'}"
            )
        return image, ColumnRoles(
            label=label,
            captions=self.caption_columns,
            group=self.group_column,
            key=self.key_column,
            class_names=tuple(features.get(label or "", {}).get("names", ())),
            split_by_name=self.split_by_name,
            family=_title(file.url),
            licence=self.licence,
        )


def _features(schema: pa.Schema) -> Mapping[str, Mapping[str, Any]]:
    """The columns' features as written by `datasets`; {} for a file of another writer."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _of_type(features: Mapping[str, Mapping[str, Any]], kind: str) -> str | None:
    return next((name for name, feature in features.items() if feature.get("_type") == kind), None)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _title(url: str) -> str:
    """The name of the data set's folder; the parent of `data/`, the usual folder of files on the Hugging Face Hub."""
    folders = [part for part in addresses.parent(url).split("/") if part]
    return next((part for part in reversed(folders) if part != "data"), "parquet")
