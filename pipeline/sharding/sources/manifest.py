"""A manifest: a table (CSV, TSV, JSON lines, Parquet) with one row per image, which has its file or, in Parquet, its
bytes.

Files must be below the manifest's folder, `images` or `roots`, local or in S3. A row with another file, or with a
caption that is not UTF-8, is quarantined. The fingerprint of the data is a digest of the manifest: an image that is
replaced under the same name does not change it.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import added, digest, unkeyed
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.base import Author, Collection, Licence, SourceConfig, SourceDescription, failing_read
from pipeline.sharding.sources.labels import read_class_names
from pipeline.sharding.sources.roots import Roots, check_rows, roots_of_table
from pipeline.sharding.sources.row_items import (
    CaptionColumns,
    ColumnRoles,
    GroupColumn,
    KeyColumn,
    RowImage,
    cell_image,
    collect_rows,
)
from pipeline.sharding.sources.skipped_files import skipped_by_name
from pipeline.sharding.sources.tables import SUFFIXES, Row, check_columns, is_parquet, rows_of

_CHECKED_ROWS = 100


class ManifestConfig(SourceConfig):
    """Path of the table, and the meaning of its columns."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "a table with one row per image: CSV, TSV, JSON lines or Parquet",
        "a column of image paths (or, in Parquet, image bytes), and one of labels or captions",
        ("manifest=images.csv", "label_column=label", "caption_columns='[caption]'"),
    )

    kind: Literal["manifest"] = "manifest"
    manifest: str = unkeyed(
        ...,
        description="The table: a file, a folder of files, or a pattern such as part-{0..9}.parquet; local or s3://.",
    )
    images: str | None = unkeyed(
        None, description="Folder that relative image paths refer to, local or s3://. null: the folder of the manifest."
    )
    roots: tuple[str, ...] = added(
        (),
        description="Further folders, local or s3://, in which rows may name files. []: only the folder of the "
        "manifest and `images`, after resolving links. [/]: any file of this machine.",
    )
    path_column: str = Field("path", description="Column with the path or s3:// address of each image.")
    bytes_column: str | None = Field(
        None, description="Column with the encoded images, in Parquet only. null: read the files of path_column."
    )
    label_column: str | None = Field(
        None, description="Column with the label: a name, or a number (see class_names). null: no labels."
    )
    class_names: str | None = unkeyed(
        None,
        description="Text file with one class name per line, starting with label 0, for numeric labels. null: the"
        " column contains the class names.",
    )
    caption_columns: CaptionColumns = ()
    split_column: str | None = Field(
        None,
        description="Column with the split: train, val or test. null: samples are split at random, see data.split.",
    )
    group_column: GroupColumn = None
    key_column: KeyColumn = None
    licence: Licence = ""
    author: Author = ""
    fingerprint: str | None = Field(None, description="Digest of the manifest; set by the program.")

    @model_validator(mode="after")
    def _has_labels_or_captions(self) -> Self:
        if self.label_column is None and not self.caption_columns:
            raise ValueError("name label_column or caption_columns: without both there is nothing to learn")
        return self

    def check(self, downloads: Path) -> None:
        files = addresses.find(self.manifest, SUFFIXES)
        columns = {
            "label_column": self.label_column,
            **{f"caption_columns.{index}": name for index, name in enumerate(self.caption_columns)},
            "split_column": self.split_column,
            "group_column": self.group_column,
            "key_column": self.key_column,
        }
        image = {"path_column": self.path_column}
        if self.bytes_column is not None:
            image = {"bytes_column": self.bytes_column}
            table = next((file for file in files if not is_parquet(file)), None)
            if table is not None:
                raise InputError(
                    f"bytes_column: {table.url} is not Parquet, and only Parquet can hold images; use path_column"
                )
        check_columns(files[0], {**image, **columns})
        if self.images is not None:
            addresses.check_folder(self.images)
        if self.bytes_column is None:
            first = islice(rows_of(files[0], [self.path_column]), _CHECKED_ROWS)
            paths = [row.values.get(self.path_column) for row in first]
            check_rows([path for path in paths if isinstance(path, str)], self._roots(files[0]), files[0].url)
        read_class_names(self.class_names)

    def resolved(self) -> Self:
        files = addresses.find(self.manifest, SUFFIXES)
        if self.bytes_column is not None:
            # The files hold the images: they are too large to be read by each scheduled run that looks for new data.
            digests = [addresses.listing_digest(files, _folder(files))]
        else:
            digests = [addresses.file_digest(file) for file in files]
        names = read_class_names(self.class_names)
        where = addresses.absolute_fields(self, "manifest", "images", "class_names", "roots")
        return self.model_copy(update={"fingerprint": digest([digests, names]), **where})

    def _roots(self, file: FoundFile) -> Roots:
        return roots_of_table(file, self.images, self.roots)

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        files = addresses.find(self.manifest, SUFFIXES)
        columns = ColumnRoles(
            label=self.label_column,
            captions=self.caption_columns,
            split=self.split_column,
            group=self.group_column,
            key=self.key_column,
            class_names=read_class_names(self.class_names),
            # The manifest's name, or the folder's name if there are several manifests.
            family=files[0].name.partition(".")[0] if len(files) == 1 else _folder(files).rpartition("/")[2],
            licence=self.licence,
        )
        return collect_rows(
            files,
            columns,
            self.bytes_column or self.path_column,
            self._image,
            embedded=self.bytes_column is not None,
            author=self.author,
            skipped=skipped_by_name(self.manifest, SUFFIXES, rows_name_images=True),
            progress=progress,
        )

    def _image(self, file: FoundFile, row: Row) -> RowImage:
        if self.bytes_column is not None:
            return cell_image(file, self.bytes_column, row)
        path = row.values.get(self.path_column)
        if path is not None and not isinstance(path, str):
            raise ValueError(f"names no file: its column {self.path_column!r} is {path!r:.40}, not a path")
        if path is None or not path.strip():
            raise ValueError(f"names no file: its column {self.path_column!r} is empty")
        try:
            return (path, *self._roots(file).reader(path.strip()))
        except ValueError as error:
            return path, failing_read(str(error)), None


def _folder(files: list[FoundFile]) -> str:
    return addresses.parent(files[0].url)
