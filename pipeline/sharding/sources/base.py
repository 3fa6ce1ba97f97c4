"""The interface of a source: a Config with a `kind` of its own, which checks its settings and lists items.

Listing is cheap and lazy; an item's image is read (or rendered) later, in any thread or process, by calling
`read`. Items should be read in their order: then a source of large files (e.g. tars) reads each file once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, Self

from pydantic import Field

from pipeline.config import Config
from pipeline.progress import Progress
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.skipped_files import NO_SKIPPED_FILES, SkippedFiles

Licence = Annotated[str, Field(description="SPDX identifier of the images' licence, recorded in the data card.")]
Author = Annotated[str, Field(description="Author of the images, recorded in the data card.")]
# The author or licence of a work whose source gives none.
NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class TarPosition:
    """The position of an image's data: number of the tar in `Collection.tars`, and byte offset."""

    tar: int
    offset: int


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source.

    Attributes:
        name: human-readable name, e.g. "cats/a7.jpg"; shown in error messages and in the quarantine.
        read: returns the encoded image, in any thread or process (it can be pickled); raises an OSError or a
            ValueError with the reason if there is none.
        label: name of its label, or None.
        key: its name in the shard, unique in the source; None: derived from label and content.
        captions: captions of the image, the most literal first.
        group: its content group, which is never divided between splits; None: images with equal bytes are a group.
        taxonomy: path below the taxonomy's root, e.g. ("animals-nature", "animal-bird").
        family: name of the images of one origin, e.g. of one artist: `split.holdout_family` makes all of them the test
            split. The data set's name if it has one family.
        licence: the licence's SPDX name; "" if not known.
        split: the split that the data set itself prescribes, or None.
        extra: additional values for KEY.json.
        tar_position: position of the image's data in one of the collection's `tars`, if these are indexed in place.
        stamp: changes when the image's bytes change, known without reading them (size and modification time of a file,
            version and position in a larger file); None: a change is detected only by reading.
    """

    name: str
    read: Callable[[], bytes]
    label: str | None = None
    key: str | None = None
    captions: tuple[str, ...] = ()
    group: str | None = None
    taxonomy: tuple[str, ...] = ()
    family: str = ""
    licence: str = ""
    split: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    tar_position: TarPosition | None = None
    stamp: str | None = None


def failing_read(reason: str) -> Callable[[], bytes]:
    """An `Item.read` that always fails, for an item found unusable while listing: it is quarantined with the reason."""
    return partial(_refuse, reason)


def _refuse(reason: str) -> NoReturn:
    raise OSError(reason)


@dataclass(frozen=True, slots=True)
class Credit:
    """Author and licence of a part of the data, the `work`."""

    work: str
    author: str
    licence: str
    url: str

    @classmethod
    def of(cls, work: str, author: str, licence: str, url: str = "") -> Credit:
        """A credit; an author or licence of "" is recorded as not stated."""
        return cls(work, author or NOT_STATED, licence or NOT_STATED, url)


@dataclass(frozen=True, slots=True)
class Collection:
    """The items of a source.

    Attributes:
        title: name of the data set.
        items: returns an iterator over the items, always in the same order.
        total: number of items.
        label_names: all labels, in the order of their numbers.
        root: name of the taxonomy's root; "" for a data set without taxonomy.
        credits: author and licence of each part.
        tars: the tars to index in place, to which `Item.tar_position` refers; (): images are copied to new shards.
        notes: sentences for the data card and the run, about what is unusual in the data and how it was handled.
        skipped: files and folders that were found and skipped.
    """

    title: str
    items: Callable[[], Iterator[Item]]
    total: int
    label_names: tuple[str, ...]
    root: str = ""
    credits: tuple[Credit, ...] = ()
    tars: tuple[FoundFile, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: SkippedFiles = NO_SKIPPED_FILES


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """The description of a source in `tutelage sources`.

    Attributes:
        reads: the layout or data set.
        needs: its requirements.
        example: the settings of a first run, as KEY=VALUE below `data.source`.
    """

    reads: str
    needs: str
    example: tuple[str, ...] = ()


class SourceConfig(Config):
    """A source: its settings, among them a `kind` and a `fingerprint`, and the listing of its items."""

    about: ClassVar[SourceDescription]

    @property
    def holdout_families(self) -> tuple[str, ...]:
        """The values of `Item.family`, of which one can be held out as the test split; () if there is only one."""
        return ()

    @abstractmethod
    def check(self, downloads: Path) -> None:
        """Validates the config before any work; takes less than a second.

        Args:
            downloads: folder of files that were fetched before.

        Raises:
            InputError: one line with the problem and how to fix it.
        """

    def class_sizes(self) -> Mapping[str, int] | None:
        """Class -> number of images, by which classes that are too small are refused before any work.

        If the data set prescribes the splits, a class may be small, and only empty classes are listed. None if there
        is no class to list, or if counting is expensive.
        """
        return None

    @abstractmethod
    def resolved(self) -> Self:
        """The config with `fingerprint` set to a digest of the current data, so that changed data has a new key."""

    @abstractmethod
    def collect(self, downloads: Path, progress: Progress) -> Collection:
        """Fetches missing files into the folder `downloads`, and lists the items.

        Raises:
            InputError: there are no items, or the data does not match the config.
            WorkError: fetching failed.
        """
