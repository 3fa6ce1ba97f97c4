"""Converts the rows of tables to items: label, captions, split, group and key come from columns.

A table is read twice: first to count the rows, collect the labels and find repeated keys, then for the items. Neither
pass has all rows in memory.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from pipeline.counter_rng import text_hash
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.base import Collection, Credit, Item, failing_read
from pipeline.sharding.sources.given_split import WORDS, given_split, split_of_name
from pipeline.sharding.sources.keys import RepeatedKeys
from pipeline.sharding.sources.labels import (
    MAX_LABELS,
    Spellings,
    class_name_of,
    kind_of_value,
    label_of,
    missing_in_words,
    missing_label,
    sort_labels,
)
from pipeline.sharding.sources.parquet_cells import read_cell
from pipeline.sharding.sources.skipped_files import SkippedFiles
from pipeline.sharding.sources.tables import Row, require_columns, rows_of

CaptionColumns = Annotated[
    tuple[str, ...], Field(description="Columns with captions. A cell may contain a list of captions.")
]
GroupColumn = Annotated[
    str | None,
    Field(description="Column with the content group, e.g. the photographer. A group is never divided between splits."),
]
KeyColumn = Annotated[
    str | None,
    Field(description="Column with a unique key for each sample. null: derive the key from label and content."),
]


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """The columns that hold an item's label, captions, split, group and key; None or () if no column holds one.

    Attributes:
        captions: columns with a caption, or with a list of captions.
        class_names: the name of each class, for labels that are class numbers; (): the labels are the names.
        split_by_name: use the split in the name of the table's file.
        family, licence: the same for every item.
    """

    label: str | None = None
    captions: tuple[str, ...] = ()
    split: str | None = None
    group: str | None = None
    key: str | None = None
    class_names: tuple[str, ...] = ()
    split_by_name: bool = False
    family: str = ""
    licence: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to read."""
        names = (self.label, *self.captions, self.split, self.group, self.key)
        return tuple(dict.fromkeys(name for name in names if name is not None))


# An item's name, a function that reads its image, and its stamp.
RowImage = tuple[str, Callable[[], bytes], str | None]


def cell_image(file: FoundFile, column: str, row: Row) -> RowImage:
    """The image in a column of a Parquet file."""
    return f"{file.name}, row {row.number}", partial(read_cell, file, column, row.number - 1), file.stamp(row.number)


def collect_rows(
    files: Sequence[FoundFile],
    columns: ColumnRoles,
    image_column: str,
    image_of: Callable[[FoundFile, Row], RowImage],
    *,
    embedded: bool,
    author: str,
    skipped: SkippedFiles,
    progress: Progress,
) -> Collection:
    """The rows of tables as a data set; its labels, if any, are children of the taxonomy's root.

    Args:
        image_column: column with the images or their paths.
        image_of: the image of a row, see `RowImage`; raises a ValueError if there is none.
        embedded: the column holds the images themselves, which are not read with the rows.
        skipped: files that are not tables.
    Raises:
        InputError: a column is missing, a key occurs twice, a split is unknown, no row has a label, or there are too
            many labels; the message names the row.
    """
    count, label_names, notes = _first_pass(files, columns, image_column, progress)
    path_columns = () if embedded else (image_column,)

    def items() -> Iterator[Item]:
        for file in files:
            yield from _items(file, columns, path_columns, partial(image_of, file))

    return Collection(
        title=columns.family,
        items=items,
        total=count,
        label_names=label_names,
        root=columns.family if label_names else "",
        credits=(Credit.of(columns.family, author, columns.licence),),
        notes=notes,
        skipped=skipped,
    )


def _first_pass(
    files: Sequence[FoundFile], columns: ColumnRoles, image_column: str, progress: Progress
) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """(number of rows, labels, notes about the labels)."""
    labels: set[str] = set()
    keys = RepeatedKeys()
    count = 0
    wanted = [name for name in (columns.label, columns.split, columns.key) if name is not None]
    missing: Counter[str] = Counter()
    spellings = Spellings()
    for file in files:
        require_columns(file, (*columns.names, image_column))
        for row in rows_of(file, wanted):
            count += 1
            if count % 10_000 == 0:
                progress(step=count, note="reading the rows")
            where = f"{file.url}, row {row.number}"
            try:
                label = _label(row, columns)
            except ValueError:
                continue  # The row is quarantined.
            if label is None and columns.label is not None and row.problem is None:
                missing[missing_label(row.values.get(columns.label))] += 1
            if label is not None:
                spellings.add(str(row.values[columns.label or ""]), label)
                labels.add(label)
                if len(labels) > MAX_LABELS:
                    raise InputError(
                        f"{where}: column {columns.label!r} has more than {MAX_LABELS} different labels; "
                        "if it holds captions, name it in caption_columns"
                    )
            if columns.key is not None and columns.key in row.values:
                keys.add(_key_text(row.values[columns.key]))
            word = row.values.get(columns.split) if columns.split is not None and row.problem is None else None
            if word is not None and given_split(str(word)) is None:
                raise InputError(f"{where}: split {word!r} is none of {', '.join(WORDS)}")
    repeated = keys.hashes()
    if repeated:
        raise _repeated_key_error(files, columns, repeated)
    without = sum(missing.values())
    if columns.label is not None and count and without == count:
        raise InputError(
            f"{files[0].url}: column {columns.label!r} holds no label in any of {count:,} rows "
            f"({missing_in_words(missing)})"
        )
    notes = list(spellings.notes())
    if without:
        notes.append(f"{without:,} of {count:,} rows have no label ({missing_in_words(missing)})")
    return count, columns.class_names or sort_labels(labels), tuple(notes)


def _items(
    file: FoundFile, columns: ColumnRoles, path_columns: tuple[str, ...], image_of: Callable[[Row], RowImage]
) -> Iterator[Item]:
    """The items of a table's rows, in their order; a row is quarantined with the first of its problems."""
    split_of_file = split_of_name(file.name) if columns.split_by_name else None
    for row in rows_of(file, (*columns.names, *path_columns)):
        problem = row.problem
        name, stamp = f"{file.name}, row {row.number}", None
        read: Callable[[], bytes]
        label: str | None = None
        captions: tuple[str, ...] = ()
        try:
            if problem is None:
                name, read, stamp = image_of(row)
        except ValueError as error:
            problem = str(error)
        try:
            label = class_name_of(_label(row, columns), columns.class_names)
            captions = _captions(row, columns) if problem is None else ()
            _check_texts(row, (columns.key, columns.group))
        except ValueError as error:
            # An item's name may be the path of its image, which does not say which row is wrong.
            problem = problem or f"{file.name}, row {row.number}: {error}"
        word = row.values.get(columns.split) if columns.split is not None else None
        key = row.values.get(columns.key) if columns.key is not None else None
        group = row.values.get(columns.group) if columns.group is not None else None
        yield Item(
            name=name,
            read=read if problem is None else failing_read(problem),
            label=label,
            key=None if key is None else str(key),
            captions=captions,
            group=None if group is None else str(group),
            taxonomy=() if label is None else (label,),
            family=columns.family,
            licence=columns.licence,
            split=given_split(str(word)) if word is not None else split_of_file,
            stamp=stamp,
        )


def _label(row: Row, columns: ColumnRoles) -> str | None:
    """The label of a row; None if it has none, or a problem.

    Raises:
        ValueError: the cell cannot be a label.
    """
    if row.problem is not None or columns.label is None:
        return None
    return label_of(row.values.get(columns.label), columns.class_names)


def _captions(row: Row, columns: ColumnRoles) -> tuple[str, ...]:
    texts: list[str] = []
    for name in columns.captions:
        value: Any = row.values.get(name, [])
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, dict | list | bytes):
                raise ValueError(f"its {name} is {kind_of_value(text)}, not a text")
            if text is not None:
                texts.append(str(text))
    return tuple(texts)


def _check_texts(row: Row, names: Iterable[str | None]) -> None:
    """Raises a ValueError if a column that should hold a text or a number has another value in this row."""
    for name in names:
        value = row.values.get(name) if name is not None else None
        if isinstance(value, dict | list | bytes):
            raise ValueError(f"its {name} is {kind_of_value(value)}, not a text or a number")


def _key_text(value: Any) -> str:
    """A key in Unicode NFC: keys that differ only in their normalisation are equal."""
    return unicodedata.normalize("NFC", str(value))


def _repeated_key_error(files: Iterable[FoundFile], columns: ColumnRoles, repeated: frozenset[int]) -> InputError:
    assert columns.key is not None
    seen: dict[str, str] = {}
    for file in files:
        for row in rows_of(file, [columns.key]):
            key = _key_text(row.values.get(columns.key, ""))
            if text_hash(key) in repeated:
                where = f"{file.url}, row {row.number}"
                if key in seen:
                    return InputError(f"{where}: key {key!r} is that of {seen[key]} too; keys must be unique")
                seen[key] = where
    return InputError(f"column {columns.key!r}: keys must be unique")
