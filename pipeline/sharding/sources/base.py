"""What a data set has to offer to be sharded: a Config that checks, and items that can be read.

A source is a file in this folder: a Config with a `kind` of its own, and a class that lists items.
Listing is cheap and lazy; an item's image is read (or drawn) later, in any thread or process, by calling
`read`. Reads in the order of the items are the cheap ones: a source of large files reads each of them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, Self

from pipeline.progress import Progress
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.passed_over import NOTHING_PASSED_OVER, PassedOver


@dataclass(frozen=True, slots=True)
class InTar:
    """Where an image's bytes are: the number of its tar, and the first of them."""

    tar: int
    offset: int


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source.

    Attributes:
        name: what people call it, e.g. "cats/a7.jpg"; error lines and the quarantine show it.
        read: gives the encoded image, in any thread or process (it can be pickled); an OSError or a ValueError
            says why there is none.
        label: name of its label, or None.
        key: its name in the shard, unique in the source; None: made from label and content.
        captions: true sentences about it, the plainest first.
        group: its content group: what must not be split; None: images with equal bytes.
        taxonomy: path below the taxonomy's root, e.g. ("animals-nature", "animal-bird").
        source: who made it, e.g. the artist family.
        licence: the licence's SPDX name; "" if not known.
        split: the split that the data set itself prescribes, or None.
        extra: more to keep in KEY.json.
        lies: where its image's bytes are in one of the collection's `tars`, for those that are indexed in place.
        stamp: changes when the image's bytes do, known without reading them (size and time of change of a file, version
            and place in a larger one); None: only reading tells.
    """

    name: str
    read: Callable[[], bytes]
    label: str | None = None
    key: str | None = None
    captions: tuple[str, ...] = ()
    group: str | None = None
    taxonomy: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""
    split: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    lies: InTar | None = None
    stamp: str | None = None


def unreadable(reason: str) -> Callable[[], bytes]:
    """A `read` for an item that the listing already knows to be bad: the item is quarantined with this reason."""
    return partial(_refuse, reason)


def _refuse(reason: str) -> NoReturn:
    raise OSError(reason)


@dataclass(frozen=True, slots=True)
class Credit:
    """Who made a part of the data, and on which terms it may be used."""

    work: str
    author: str
    licence: str
    url: str

    @classmethod
    def given(cls, work: str, author: str, licence: str, url: str = "") -> Credit:
        """The credit by a config, whose author or licence may be ""."""
        return cls(work, author or "not stated", licence or "not stated", url)


@dataclass(frozen=True, slots=True)
class Collection:
    """The items of a source.

    Attributes:
        title: what the data set is called.
        items: gives the items, each time in the same order.
        total: how many items there are.
        label_names: every label, in the order of their numbers.
        root: name of the taxonomy's root; "" for a data set without taxonomy.
        credits: author and licence of each part.
        tars: the tars that are indexed in place, in which each item `lies`; (): images are stored in shards of ours.
        notes: sentences for the card and the run: what was odd in the listing, and what was made of it.
        passed_over: what it saw and did not take.
    """

    title: str
    items: Callable[[], Iterator[Item]]
    total: int
    label_names: tuple[str, ...]
    root: str = ""
    credits: tuple[Credit, ...] = ()
    tars: tuple[FoundFile, ...] = ()
    notes: tuple[str, ...] = ()
    passed_over: PassedOver = NOTHING_PASSED_OVER


@dataclass(frozen=True, slots=True)
class About:
    """What `tutelage sources` says of a source.

    Attributes:
        what: the layout or data set that it reads.
        needs: what has to be there.
        example: the settings of a first run, as KEY=VALUE below `data.source`.
    """

    what: str
    needs: str
    example: tuple[str, ...] = ()


class Source(Protocol):
    """A data set."""

    def collect(self, progress: Progress) -> Collection:
        """Fetches what is missing and lists the items.

        Raises:
            InputError: there is nothing to list, or not what the config promises.
            WorkError: fetching failed.
        """


class SourceConfig(Protocol):
    """What the Config of a source offers besides its fields, one of which is `kind`."""

    about: ClassVar[About]

    @property
    def families(self) -> tuple[str, ...]:
        """The values of `Item.source` that may be held out; empty if there is but one."""

    def check(self, downloads: Path) -> None:
        """Refuses what cannot work, before any work; takes less than a second.

        Args:
            downloads: folder that keeps what was fetched before.

        Raises:
            InputError: in one line, what is wrong and what to do.
        """

    def class_sizes(self) -> Mapping[str, int] | None:
        """Images of each class, if listing them is cheap; None if they must be fetched first."""

    def resolved(self) -> Self:
        """The config with `fingerprint` set to a digest of what the data is now, so that new data has a new key."""

    def build(self, downloads: Path) -> Source:
        """The source; it keeps what it fetches in the folder `downloads`."""
