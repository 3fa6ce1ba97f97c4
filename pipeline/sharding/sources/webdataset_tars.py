"""Existing WebDataset tars as a source: those of Tutelage, img2dataset (.jpg .txt .json), ImageNet (.jpg .cls), and any
other tars that follow WebDataset's rule for keys.

    00000.tar: 000000012.jpg 000000012.txt 000000012.json  000000013.jpg ...

A sample without an image, or with a caption that is not UTF-8, is quarantined. A damaged or hostile tar is rejected;
the error names the member and the byte. A tar that is cut, has no end mark, or has data after it is rejected unless
`ends` is "read". Nothing is extracted: an image is read by its byte range in the tar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from pipeline.config import added, digest, unkeyed
from pipeline.errors import InputError, shortened
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.format.tar_layout import BLOCK
from pipeline.sharding.sources.base import (
    Author,
    Collection,
    Credit,
    Item,
    Licence,
    SourceConfig,
    SourceDescription,
    TarPosition,
    failing_read,
)
from pipeline.sharding.sources.given_split import split_of_name
from pipeline.sharding.sources.labels import (
    Spellings,
    class_name_of,
    label_of,
    missing_in_words,
    read_class_names,
    sort_labels,
)
from pipeline.sharding.sources.skipped_files import SkipCounter, skipped_by_name
from pipeline.sharding.sources.tar_listing import IMAGE_EXTENSIONS, MemberRoles, TarListing, TarSample, list_tar
from pipeline.sharding.sources.tar_members import TAR_SUFFIXES, check_tar

_SHOWN_FAULTS, _FAULT_CHARS = 3, 200  # faults at the ends of tars in a note, and characters of each
_TARS_AT_ONCE = 8


class WebdatasetConfig(SourceConfig):
    """Paths of the tars, and the roles of their members."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "WebDataset tars, of Tutelage or other tools (e.g. img2dataset: .jpg, .txt, .json)",
        "uncompressed *.tar, local or in S3; nothing is extracted",
        ("tars='laion/{00000..00009}.tar'", "licence=CC-BY-4.0"),
    )

    kind: Literal["webdataset"] = "webdataset"
    tars: str = unkeyed(
        ..., description="The tars: a file, a folder, or a pattern such as {00000..00099}.tar; local or s3://."
    )
    images: tuple[str, ...] = Field(
        IMAGE_EXTENSIONS,
        min_length=1,
        description="File extensions of images, in order of preference if a sample has several.",
    )
    captions: Literal["txt", "lines", "json", "none"] = Field(
        "txt",
        description="Where captions are. txt: the .txt is one caption; lines: each line of the .txt is a caption;"
        " json: in a field of the .json; none: no captions.",
    )
    caption_field: str = Field(
        "caption",
        description="With captions=json: the field of the .json, a text or a list of texts. Shards of Tutelage "
        "use `captions`.",
    )
    caption_member: str | None = added(
        None,
        min_length=1,
        max_length=200,
        description="File extension of captions in a sample: all after the first dot of the name, e.g. outputs.txt. "
        "null: txt, with captions=json json.",
    )
    labels: Literal["cls", "json", "none"] = Field(
        "cls", description="Where the label is. cls: in the .cls; json: in a field of the .json; none: no labels."
    )
    label_field: str = Field("label", description="With labels=json: the field of the .json, a name or a number.")
    label_member: str | None = added(
        None,
        min_length=1,
        max_length=200,
        description="File extension of the label in a sample: all after the first dot of the name, e.g. class.txt. "
        "null: cls, with labels=json json.",
    )
    class_names: str | None = unkeyed(
        None,
        description="Text file with one class name per line, starting with label 0, for numeric labels. null: "
        "labels are the class names.",
    )
    in_place: bool = Field(
        False,
        description="Only build an index; samples are read from these tars, which must not be changed or moved.",
    )
    ends: Literal["refuse", "read"] = added(
        "refuse",
        description="What to do with a tar that is truncated, has no end-of-archive mark, or has data after it "
        "(tars joined with cat). refuse: fail; read: use all complete samples.",
    )
    split_by_name: bool = Field(
        False,
        description="Use the split (train, val or test) in the name of a tar. false: samples are split at random,"
        " see data.split.",
    )
    max_member_mb: int = unkeyed(
        256, ge=1, le=4096, description="Maximum size of a file in a tar, in MiB. A tar with a larger one is refused."
    )
    licence: Licence = ""
    author: Author = ""
    fingerprint: str | None = Field(None, description="Digest of the tars' names, sizes and times; set by the program.")

    def check(self, downloads: Path) -> None:
        tars = addresses.find(self.tars, TAR_SUFFIXES)
        # Reads one tar only, preferably one not named .tar; all tars are checked when they are listed.
        first = next((tar for tar in tars if not tar.name.endswith(".tar")), tars[0])
        check_tar(first.url, first.size, addresses.read(first.url, 0, min(first.size, BLOCK)))
        read_class_names(self.class_names)

    def resolved(self) -> Self:
        tars = addresses.find(self.tars, TAR_SUFFIXES)
        names = read_class_names(self.class_names)
        # With in_place the index contains the tars' addresses: the same tars at other addresses need another index.
        listed = addresses.listing_digest(tars, "" if self.in_place else addresses.common_folder(tars))
        where = addresses.absolute_fields(self, "tars", "class_names")
        return self.model_copy(update={"fingerprint": digest([listed, names]), **where})

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        tars = addresses.find(self.tars, TAR_SUFFIXES)
        class_names = read_class_names(self.class_names)
        roles = MemberRoles(
            images=tuple(map(_extension, self.images)),
            captions=self.captions,
            caption_field=self.caption_field,
            labels=self.labels,
            label_field=self.label_field,
            caption_member=_extension(self.caption_member) if self.caption_member is not None else None,
            label_member=_extension(self.label_member) if self.label_member is not None else None,
            ends=self.ends,
            max_bytes=self.max_member_mb << 20,
        )
        listings: list[TarListing] = []
        with ThreadPoolExecutor(_TARS_AT_ONCE, thread_name_prefix="tars") as pool:
            futures = [pool.submit(list_tar, tar, roles, downloads / "tar-listings") for tar in tars]
            try:
                for future in futures:
                    listings.append(future.result())
                    progress(step=len(listings), total=len(tars), note="listing the tars")
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        self._check_members(listings)
        root = addresses.common_folder(tars)
        title = root.rstrip("/").rpartition("/")[2] or "tars"
        shards = [
            (tar.url.removeprefix(root).lstrip("/"), listing) for tar, listing in zip(tars, listings, strict=True)
        ]
        skipped = SkipCounter()
        skipped.extend(skipped_by_name(self.tars, TAR_SUFFIXES))
        for shard, listing in shards:
            skipped.extend(listing.skipped, f"{shard}: ")
        spellings, labels = Spellings(), set()
        for written in (label for listing in listings for label in listing.labels):
            label = label_of(written, class_names)
            if label is not None:
                labels.add(label)
                spellings.add(written, label)

        def items() -> Iterator[Item]:
            for number, (tar, (shard, listing)) in enumerate(zip(tars, shards, strict=True)):
                split = split_of_name(tar.name) if self.split_by_name else None
                for sample in listing.rows():
                    position = TarPosition(number, sample.offset) if self.in_place else None
                    item = _item(tar, shard, sample, class_names)
                    yield replace(item, family=title, licence=self.licence, split=split, tar_position=position)

        return Collection(
            title=title,
            items=items,
            total=sum(listing.samples for listing in listings),
            label_names=class_names or sort_labels(labels),
            root=title if class_names or labels else "",
            credits=(Credit.of(title, self.author, self.licence),),
            tars=tuple(tars) if self.in_place else (),
            notes=(*spellings.notes(), *_notes(shards, class_names)),
            skipped=skipped.result(),
        )

    def _check_members(self, listings: Sequence[TarListing]) -> None:
        """Raises an InputError if no sample has the member that the config names for captions or for labels."""
        for name, member, has_member in (
            ("caption_member", self.caption_member, lambda listing: listing.has_captions()),
            ("label_member", self.label_member, lambda listing: bool(listing.labels)),
        ):
            if member is not None and not any(map(has_member, listings)):
                raise InputError(
                    f"{name}: no sample of {self.tars} has a text in a member that ends with .{_extension(member)}; "
                    "`tar tf` lists the members of a tar"
                )


def _extension(text: str) -> str:
    """A file extension from the config in the form in which members have it: lower case, without a leading dot."""
    return text.lower().lstrip(".")


def _notes(shards: Sequence[tuple[str, TarListing]], class_names: tuple[str, ...]) -> Iterator[str]:
    """Sentences about missing labels and faulty ends of tars.

    Args:
        shards: (name, listing) of each tar.
    """
    missing: Counter[str] = Counter()
    for _, listing in shards:
        missing.update({word: n for word, n in listing.missing.items() if word.strip("'") not in class_names})
    if missing and any(listing.labels for _, listing in shards):
        samples = sum(listing.samples for _, listing in shards)
        yield f"{missing.total():,} of {samples:,} samples have no label ({missing_in_words(missing)})"
    ends = [f"{name}: {listing.end}" for name, listing in shards if listing.end is not None]
    if ends:
        shown = "; ".join(shortened(end, _FAULT_CHARS) for end in ends[:_SHOWN_FAULTS])
        more = f"; and {len(ends) - _SHOWN_FAULTS:,} more" if len(ends) > _SHOWN_FAULTS else ""
        yield f"{len(ends)} of {len(shards)} tars were read although their end is faulty ({shown}{more})"


def _item(tar: FoundFile, shard: str, sample: TarSample, class_names: tuple[str, ...]) -> Item:
    problem, label = sample.problem, None
    try:
        label = class_name_of(label_of(sample.label, class_names), class_names)
    except ValueError as error:
        problem = problem or str(error)
    return Item(
        name=f"{shard}: {sample.key}",
        read=failing_read(problem) if problem else partial(addresses.read, tar.url, sample.offset, sample.length),
        label=label,
        key=sample.key,
        captions=sample.captions,
        taxonomy=(label,) if label is not None else (),
        stamp=tar.stamp(sample.offset),
    )
