"""Caption lists like Conceptual Captions: each line has a caption and the file of its image, separated by a tab.

    a cat on a sofa<TAB>000/000001.jpg

Consecutive lines with the same file are one sample with several captions. Lists with web addresses instead of files, as
they are released, are rejected with advice, since the content of an address can change.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from pipeline.config import added, digest, unkeyed
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.base import (
    Author,
    Collection,
    Credit,
    Item,
    Licence,
    SourceConfig,
    SourceDescription,
    failing_read,
)
from pipeline.sharding.sources.file_type import HEAD_BYTES, refuse_other_type
from pipeline.sharding.sources.roots import Roots, check_rows, roots_of_table

_CHECKED_LINES = 100


class CaptionsTsvConfig(SourceConfig):
    """Path of the list, and the order of its columns."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "a list of captions and image files, like Conceptual Captions",
        "lines CAPTION<TAB>FILE (or FILE<TAB>CAPTION), and the images, local or in S3",
        ("file=train.tsv", "images=photos"),
    )

    kind: Literal["captions_tsv"] = "captions_tsv"
    file: str = unkeyed(..., description="The caption list, a tab-separated text file; local or s3://.")
    val_file: str | None = unkeyed(
        None, description="Caption list of the validation split. null: take a fraction of `file`, see data.split."
    )
    test_file: str | None = unkeyed(
        None, description="Caption list of the test split. null: take a fraction of `file`, see data.split."
    )
    images: str | None = unkeyed(
        None, description="Folder that relative image paths refer to, local or s3://. null: the folder of the list."
    )
    roots: tuple[str, ...] = added(
        (),
        description="Further folders, local or s3://, in which rows may name files. []: only the folder of the "
        "list and `images`, after resolving links. [/]: any file of this machine.",
    )
    order: Literal["caption_path", "path_caption"] = Field(
        "caption_path",
        description="Order of the two columns. caption_path: the caption first, as in Conceptual Captions; "
        "path_caption: the file first.",
    )
    header: bool = Field(False, description="Whether the first line contains column names.")
    licence: Licence = ""
    author: Author = ""
    fingerprint: str | None = Field(None, description="Digest of the lists; set by the program.")

    def check(self, downloads: Path) -> None:
        for _, file in self._lists():
            _check_lines(file, self.order, self.header, self._roots(file))
        if self.images is not None:
            addresses.check_folder(self.images)

    def resolved(self) -> Self:
        digests = [(split, addresses.file_digest(file)) for split, file in self._lists()]
        where = addresses.absolute_fields(self, "file", "val_file", "test_file", "images", "roots")
        return self.model_copy(update={"fingerprint": digest(digests), **where})

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        lists = self._lists()
        title = lists[0][1].name.partition(".")[0]
        total = 0
        for _, file in lists:
            progress(note=f"reading {file.name}")
            total += sum(1 for _ in self._samples(file))

        def items() -> Iterator[Item]:
            for split, file in lists:
                for lines in self._samples(file):
                    yield self._item(split, file, lines, title)

        return Collection(
            title=title,
            items=items,
            total=total,
            label_names=(),
            credits=(Credit.of(title, self.author, self.licence),),
        )

    def _samples(self, file: FoundFile) -> Iterator[list[_Line]]:
        """The lines of each sample; an unusable line is a sample of its own."""
        lines = _lines(file, self.order, self.header)
        for _, group in itertools.groupby(lines, key=lambda line: (line.path, line.number if line.problem else 0)):
            yield list(group)

    def _item(self, split: str | None, file: FoundFile, lines: list[_Line], title: str) -> Item:
        first = lines[0]
        read: Callable[[], bytes]
        stamp = None
        try:
            if first.problem:
                read = failing_read(first.problem)
            else:
                read, stamp = self._roots(file).reader(first.path)
        except ValueError as error:
            read = failing_read(str(error))
        return Item(
            name=first.path if not first.problem else f"{file.name}, line {first.number}",
            read=read,
            captions=() if first.problem else tuple(line.caption for line in lines),
            # A later repetition of the file is another sample, but always in the same split.
            group=None if first.problem else first.path,
            family=title,
            licence=self.licence,
            split=split,
            stamp=stamp,
        )

    def _roots(self, file: FoundFile) -> Roots:
        return roots_of_table(file, self.images, self.roots)

    def _lists(self) -> list[tuple[str | None, FoundFile]]:
        """Each list with its split; None: samples are assigned to splits at random."""
        given: list[tuple[str | None, str | None]] = [
            (None, self.file),
            ("val", self.val_file),
            ("test", self.test_file),
        ]
        return [(split, addresses.stat(address)) for split, address in given if address is not None]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a list, numbered from 1; `problem` is the reason why it cannot be used, or None."""

    number: int
    path: str
    caption: str
    problem: str | None = None


def _lines(file: FoundFile, order: str, header: bool) -> Iterator[_Line]:
    with closing(addresses.open_file(file.url)) as start:
        refuse_other_type(file.url, start.read(HEAD_BYTES))
    with closing(
        io.TextIOWrapper(addresses.open_file(file.url), encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    ) as text:
        for number, line in enumerate(text, start=1):
            fields = line.rstrip("\r\n").split("\t")
            if (header and number == 1) or not line.strip():
                continue
            if len(fields) != 2:
                yield _Line(number, "", "", f"the line has {len(fields) - 1} tabs instead of one")
                continue
            caption, path = fields if order == "caption_path" else reversed(fields)
            problem = None if path.strip() else "the line names no file"
            try:
                line.encode()
            except UnicodeEncodeError:
                problem = "the line is not UTF-8"
            yield _Line(number, path.strip(), caption, problem)


def _check_lines(file: FoundFile, order: str, header: bool, roots: Roots) -> None:
    """Raises an InputError if the first lines are not those of a caption list, or all name files outside the roots."""
    lines = list(itertools.islice(_lines(file, order, header), _CHECKED_LINES))
    if not lines:
        raise InputError(f"{file.url}: holds no line")
    if all(line.problem for line in lines):
        raise InputError(f"{file.url}: line {lines[0].number}: {lines[0].problem}; write CAPTION<TAB>FILE")
    line = next(line for line in lines if not line.problem)
    if order == "caption_path" and " " in line.path and "." not in line.path.rpartition("/")[2]:
        raise InputError(
            f"{file.url}: line {line.number}: {line.path!r} is no file name; if the file is before the tab, "
            "set order=path_caption"
        )
    check_rows([line.path for line in lines if not line.problem], roots, f"{file.url}: line {line.number}")
