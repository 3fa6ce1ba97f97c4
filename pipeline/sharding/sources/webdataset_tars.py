"""Existing WebDataset tars, of Tutelage or foreign, as a source: img2dataset's .jpg .txt .json, ImageNet's .jpg .cls,
and any others that follow WebDataset's rule for keys.

    00000.tar: 000000012.jpg 000000012.txt 000000012.json  000000013.jpg ...

A sample without image, or with a caption that is not UTF-8, is quarantined. A damaged or hostile tar is rejected with
member and byte, and so is a tar that goes on after its end mark, has none or is cut, unless `ends` is "read". Nothing
is extracted: an image is read by its byte range in the tar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from pipeline.config import Config, added, digest, unkeyed
from pipeline.errors import shortened
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.format.tar_layout import BLOCK
from pipeline.sharding.sources.base import About, Collection, Credit, InTar, Item, unreadable
from pipeline.sharding.sources.given_split import split_of_name
from pipeline.sharding.sources.labels import Spellings, label_of, missing_in_words, named, ordered, read_class_names
from pipeline.sharding.sources.left_out import left_out
from pipeline.sharding.sources.passed_over import NOTHING_PASSED_OVER, PassedOver, PassedOverCount
from pipeline.sharding.sources.tar_listing import IMAGE_EXTENSIONS, Meaning, TarListing, TarSample, list_tar
from pipeline.sharding.sources.tar_members import check_tar

# Compressed tars are found and rejected with advice; otherwise a part of the data would be silently skipped.
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_ENDS, _END_CHARS = 3, 200
_TARS_AT_ONCE = 8


class WebdatasetConfig(Config):
    """Addresses of the tars, and the roles of their members."""

    about: ClassVar[About] = About(
        "WebDataset tars, ours or foreign (img2dataset's .jpg .txt .json)",
        "uncompressed *.tar, here or in S3; images are read in place",
        ("tars='laion/{00000..00009}.tar'", "licence=CC-BY-4.0"),
    )

    kind: Literal["webdataset"] = "webdataset"
    tars: str = unkeyed(
        ..., description="The tars: a folder, one, or a pattern like {00000..00099}.tar; here or s3://."
    )
    images: tuple[str, ...] = Field(
        IMAGE_EXTENSIONS, min_length=1, description="Extensions of a sample's image, the preferred first."
    )
    captions: Literal["txt", "lines", "json", "none"] = Field(
        "txt", description="Where captions are: the .txt as one, each of its lines, a field of the .json, or nowhere."
    )
    caption_field: str = Field(
        "caption", description="With captions=json: its field, a text or a list (ours: captions)."
    )
    labels: Literal["cls", "json", "none"] = Field(
        "cls", description="Where the label is: the .cls, a field of the .json, or nowhere."
    )
    label_field: str = Field("label", description="With labels=json: its field, a name or a number.")
    class_names: str | None = unkeyed(
        None, description="File with one class name a line; line 1 names label 0; null: the label is the name."
    )
    in_place: bool = Field(
        False,
        description="Make only an index: the images stay in these tars, which must stay as they are, where they are.",
    )
    ends: Literal["refuse", "read"] = added(
        "refuse",
        description="A tar that goes on after its end mark (tars joined by cat), has none, or is cut: refuse it, or "
        "read every whole sample in it.",
    )
    split_by_name: bool = Field(False, description="A tar whose name says train, val or test is of that split.")
    max_member_mb: int = unkeyed(256, ge=1, le=4096, description="A tar with a larger member is refused.")
    licence: str = Field("", description="SPDX name of the images' licence, for the data card.")
    author: str = Field("", description="Who made the images, for the data card.")
    fingerprint: str | None = Field(None, description="Digest of the tars' names, sizes and times; set by the program.")

    @property
    def families(self) -> tuple[str, ...]:
        return ()

    def check(self, downloads: Path) -> None:
        tars = addresses.find(self.tars, _SUFFIXES)
        # Reads one tar only, preferably one not named .tar; all tars are checked when they are listed.
        first = next((tar for tar in tars if not tar.name.endswith(".tar")), tars[0])
        check_tar(first.url, first.size, addresses.read(first.url, 0, min(first.size, BLOCK)))
        if self.class_names is not None:
            read_class_names(self.class_names)

    def class_sizes(self) -> None:
        return None

    def resolved(self) -> Self:
        tars = addresses.find(self.tars, _SUFFIXES)
        names = read_class_names(self.class_names) if self.class_names is not None else ()
        # With in_place the index contains the tars' addresses: the same tars at other addresses need another index.
        listed = addresses.listing_digest(tars, "" if self.in_place else addresses.common_folder(tars))
        where = addresses.absolute_fields(self, "tars", "class_names")
        return self.model_copy(update={"fingerprint": digest([listed, names]), **where})

    def build(self, downloads: Path) -> WebdatasetSource:
        meaning = Meaning(
            images=tuple(extension.lower().lstrip(".") for extension in self.images),
            captions=self.captions,
            caption_field=self.caption_field,
            labels=self.labels,
            label_field=self.label_field,
            ends=self.ends,
            most_bytes=self.max_member_mb << 20,
        )
        return WebdatasetSource(
            addresses.find(self.tars, _SUFFIXES),
            meaning,
            downloads / "tar-listings",
            class_names=read_class_names(self.class_names) if self.class_names is not None else (),
            split_by_name=self.split_by_name,
            in_place=self.in_place,
            licence=self.licence,
            author=self.author,
            left_out=left_out(self.tars, _SUFFIXES),
        )


class WebdatasetSource:
    """Tars as a data set.

    Args:
        listings: folder of the cached listings of tars.
        class_names: the names of labels that are numbers, or () if the label is the name.
        split_by_name: a tar's name determines its split.
        in_place: index the tars themselves instead of copying them.
        left_out: skipped files of the tars' folder.
    """

    def __init__(
        self,
        tars: list[FoundFile],
        meaning: Meaning,
        listings: Path,
        *,
        class_names: tuple[str, ...] = (),
        split_by_name: bool = False,
        in_place: bool = False,
        licence: str = "",
        author: str = "",
        left_out: PassedOver = NOTHING_PASSED_OVER,
    ) -> None:
        self._tars = tars
        self._meaning = meaning
        self._listings = listings
        self._class_names = class_names
        self._split_by_name = split_by_name
        self._in_place = in_place
        self._licence = licence
        self._author = author
        self._left_out = left_out

    def collect(self, progress: Progress) -> Collection:
        listings: list[TarListing] = []
        with ThreadPoolExecutor(_TARS_AT_ONCE, thread_name_prefix="tars") as pool:
            futures = [pool.submit(list_tar, tar, self._meaning, self._listings) for tar in self._tars]
            try:
                for future in futures:
                    listings.append(future.result())
                    progress(step=len(listings), total=len(self._tars), note="listing the tars")
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        root = addresses.common_folder(self._tars)
        title = root.rstrip("/").rpartition("/")[2] or "tars"
        spellings, found = Spellings(), set()
        for written in (label for listing in listings for label in listing.labels):
            label = label_of(written, self._class_names)
            if label is not None:
                found.add(label)
                spellings.add(written, label)

        def items() -> Iterator[Item]:
            for number, (tar, listing) in enumerate(zip(self._tars, listings, strict=True)):
                split = split_of_name(tar.name) if self._split_by_name else None
                shard = tar.url.removeprefix(root).lstrip("/")
                for sample in listing.rows():
                    lies = InTar(number, sample.offset) if self._in_place else None
                    yield replace(self._item(tar, shard, sample, split, title), lies=lies)

        return Collection(
            title=title,
            items=items,
            total=sum(listing.samples for listing in listings),
            label_names=self._class_names or ordered(found),
            root=title if self._class_names or found else "",
            credits=(Credit.given(title, self._author, self._licence),),
            tars=tuple(self._tars) if self._in_place else (),
            notes=(*spellings.notes(), *self._notes(listings, root)),
            passed_over=self._passed_over(listings, root),
        )

    def _notes(self, listings: list[TarListing], root: str) -> Iterator[str]:
        missing: Counter[str] = Counter()
        for listing in listings:
            missing.update(listing.missing)
        missing = Counter({word: n for word, n in missing.items() if word.strip("'") not in self._class_names})
        labelled = any(listing.labels for listing in listings)
        if labelled and missing:
            samples = sum(listing.samples for listing in listings)
            yield f"{sum(missing.values()):,} of {samples:,} samples have no label ({missing_in_words(missing)})"
        ends = [
            f"{tar.url.removeprefix(root).lstrip('/')}: {listing.end}"
            for tar, listing in zip(self._tars, listings, strict=True)
            if listing.end is not None
        ]
        if ends:
            shown = "; ".join(shortened(end, _END_CHARS) for end in ends[:_ENDS])
            more = f"; and {len(ends) - _ENDS:,} more" if len(ends) > _ENDS else ""
            yield f"{len(ends)} of {len(self._tars)} tars were read although their end is odd ({shown}{more})"

    def _passed_over(self, listings: list[TarListing], root: str) -> PassedOver:
        """The skipped files of the folder, and the members that belong to no sample."""
        count = PassedOverCount()
        count.extend(self._left_out)
        for tar, listing in zip(self._tars, listings, strict=True):
            count.extend(listing.passed_over, f"{tar.url.removeprefix(root).lstrip('/')}: ")
        return count.done()

    def _item(self, tar: FoundFile, shard: str, sample: TarSample, split: str | None, title: str) -> Item:
        problem, label = sample.problem, label_of(sample.label, self._class_names)
        if label is not None and self._class_names:
            label = named(label, self._class_names)
            problem = problem or (None if label is not None else f"label {sample.label!r} is no class of class_names")
        return Item(
            name=f"{shard}: {sample.key}",
            read=unreadable(problem) if problem else partial(addresses.read, tar.url, sample.offset, sample.length),
            label=label,
            key=sample.key,
            captions=sample.captions,
            taxonomy=(label,) if label is not None else (),
            source=title,
            licence=self._licence,
            split=split,
            stamp=tar.stamp(sample.offset),
        )
