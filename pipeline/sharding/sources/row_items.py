"""The conversion of table rows to items: label, captions, split, group and key from columns.

A table is read twice: first to count the rows, collect the labels and find repeated keys, then for the items. Neither
pass has all rows in memory.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.counter_rng import text_hash
from pipeline.errors import InputError
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.base import Collection, Credit, Item, unreadable
from pipeline.sharding.sources.given_split import WORDS, given_split, split_of_name
from pipeline.sharding.sources.keys import KeyCount
from pipeline.sharding.sources.labels import (
    MOST_LABELS,
    Spellings,
    label_of,
    missing_in_words,
    missing_label,
    named,
    ordered,
)
from pipeline.sharding.sources.passed_over import PassedOver
from pipeline.sharding.sources.tables import Row, require_columns, rows_of


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each field of an item; None or () if no column has it.

    Attributes:
        captions: columns with a caption, or with a list of captions.
        class_names: the names of labels that are numbers, or () if the label is the name.
        split_by_name: a file whose name has train, val or test determines the split.
        source, licence: values for every item.
    """

    label: str | None = None
    captions: tuple[str, ...] = ()
    split: str | None = None
    group: str | None = None
    key: str | None = None
    class_names: tuple[str, ...] = ()
    split_by_name: bool = False
    source: str = ""
    licence: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to read."""
        named = (self.label, *self.captions, self.split, self.group, self.key)
        return tuple(dict.fromkeys(name for name in named if name is not None))


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The result of the first pass; `notes` as in Collection."""

    rows: int
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def collection(
        self, title: str, items: Callable[[], Iterator[Item]], credit: Credit, passed_over: PassedOver
    ) -> Collection:
        """The tables as a data set; its labels, if any, are below one node of the taxonomy."""
        return Collection(
            title=title,
            items=items,
            total=self.rows,
            label_names=self.label_names,
            root=title if self.label_names else "",
            credits=(credit,),
            notes=self.notes,
            passed_over=passed_over,
        )


# An item's name, a function that reads its image, and its stamp.
RowImage = tuple[str, Callable[[], bytes], str | None]


def survey(
    files: Iterable[FoundFile], columns: Columns, progress: Callable[[int], None], extra: Sequence[str] = ()
) -> TableFacts:
    """Counts the rows and collects the labels.

    Args:
        extra: further columns that each table must have.
    Raises:
        InputError: a column is missing, a key occurs twice, a split is unknown, no row has a label, or there are too
            many labels; the message names the row.
    """
    labels: set[str] = set()
    keys = KeyCount()
    count = 0
    files = list(files)
    wanted = [name for name in (columns.label, columns.split, columns.key) if name is not None]
    missing: Counter[str] = Counter()
    spellings = Spellings()
    for file in files:
        require_columns(file, (*columns.names, *extra))
        for row in rows_of(file, wanted):
            count += 1
            if count % 10_000 == 0:
                progress(count)
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
                if len(labels) > MOST_LABELS:
                    raise InputError(
                        f"{where}: column {columns.label!r} has more than {MOST_LABELS} different labels; "
                        "if it holds captions, name it in caption_columns"
                    )
            if columns.key is not None and columns.key in row.values:
                keys.add(_key_text(row.values[columns.key]))
            word = row.values.get(columns.split) if columns.split is not None else None
            if word is not None and given_split(str(word)) is None:
                raise InputError(f"{where}: split {word!r} is none of {', '.join(WORDS)}")
    repeated = keys.repeated()
    if repeated:
        raise _repeated_key(files, columns, repeated)
    without = sum(missing.values())
    if columns.label is not None and count and without == count:
        raise InputError(
            f"{files[0].url}: column {columns.label!r} holds no label in any of {count:,} rows "
            f"({missing_in_words(missing)})"
        )
    notes = [*spellings.notes()]
    if without:
        notes.append(f"{without:,} of {count:,} rows have no label ({missing_in_words(missing)})")
    return TableFacts(count, columns.class_names if columns.class_names else ordered(labels), tuple(notes))


def items_of(
    file: FoundFile, columns: Columns, extra: tuple[str, ...], read: Callable[[Row], RowImage]
) -> Iterator[Item]:
    """The items of a table's rows, in their order.

    Args:
        extra: further columns that `read` needs.
        read: returns an item's name, a function that reads its image, and its stamp; raises a ValueError if there is
            no image.
    """
    of_file = split_of_name(file.name) if columns.split_by_name else None
    for row in rows_of(file, (*columns.names, *extra)):
        problem = row.problem
        name, stamp = f"{file.name}, row {row.number}", None
        try:
            name, image, stamp = read(row) if problem is None else (name, unreadable(problem), None)
        except ValueError as error:
            problem, image = str(error), unreadable(str(error))
        label = None
        try:
            label = _label(row, columns)
        except ValueError as error:
            problem, image = problem or str(error), unreadable(problem or str(error))
        if label is not None and columns.class_names:
            known = named(label, columns.class_names)
            if known is None:
                problem = problem or f"label {label!r} is no class of class_names"
                image = unreadable(problem)
            label = known
        try:
            captions = _captions(row, columns) if problem is None else ()
        except ValueError as error:
            captions, image = (), unreadable(str(error))
        word = row.values.get(columns.split) if columns.split is not None else None
        key = row.values.get(columns.key) if columns.key is not None else None
        group = row.values.get(columns.group) if columns.group is not None else None
        yield Item(
            name=name,
            read=image,
            label=label,
            key=None if key is None else str(key),
            captions=captions,
            group=None if group is None else str(group),
            taxonomy=() if label is None else (label,),
            source=columns.source,
            licence=columns.licence,
            split=given_split(str(word)) if word is not None else of_file,
            stamp=stamp,
        )


def _label(row: Row, columns: Columns) -> str | None:
    """The label of a row; None without one or if the row has a problem; a ValueError if the cell cannot be a label."""
    if row.problem is not None or columns.label is None:
        return None
    return label_of(row.values.get(columns.label), columns.class_names)


def _captions(row: Row, columns: Columns) -> tuple[str, ...]:
    texts: list[str] = []
    for name in columns.captions:
        value: Any = row.values.get(name, [])
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, dict | bytes):
                raise ValueError(f"its {name} is not text")
            if text is not None:
                texts.append(str(text))
    return tuple(texts)


def _key_text(value: Any) -> str:
    """A key as it is compared: keys that differ only in Unicode normalisation are equal."""
    return unicodedata.normalize("NFC", str(value))


def _repeated_key(files: Iterable[FoundFile], columns: Columns, repeated: frozenset[int]) -> InputError:
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
