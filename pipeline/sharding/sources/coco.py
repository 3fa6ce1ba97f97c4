"""COCO captions (Chen et al. 2015): annotations/captions_NAME.json next to image folders NAME/.

    FOLDER/annotations/captions_train2017.json    FOLDER/train2017/000000000009.jpg
    FOLDER/annotations/captions_val2017.json      FOLDER/val2017/...

An image is one sample with all its captions (five, sometimes six or seven), in the order of the file, and a content
group of its own. NAME gives the split; "val" is the test split if there is no part "test", because COCO's test captions
are not public.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from pipeline.config import added, digest, unkeyed
from pipeline.errors import InputError, first_line, listed
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.base import Collection, Credit, Item, SourceConfig, SourceDescription, failing_read
from pipeline.sharding.sources.file_type import HEAD_BYTES, refuse_other_type
from pipeline.sharding.sources.foreign_json import parse_json
from pipeline.sharding.sources.given_split import split_of_name
from pipeline.sharding.sources.roots import Roots, leads_inside, roots_of

_NAME = re.compile(r"captions_(.+)\.json")
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/([0-9.]+)")


class CocoConfig(SourceConfig):
    """Folder of COCO, and the parts to read."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "COCO captions: every image with its five captions",
        "FOLDER/annotations/captions_*.json, and the images in FOLDER/train2017/ etc.",
        ("folder=coco", "parts='[val2017]'"),
    )

    kind: Literal["coco"] = "coco"
    folder: str = unkeyed(
        ..., description="Folder with annotations/ and one folder of images per part, e.g. train2017/; local or s3://."
    )
    parts: tuple[str, ...] = Field(
        (), description="Parts to read, i.e. the NAME in captions_NAME.json, e.g. [val2017]. []: all."
    )
    val_is: Literal["test", "val"] = Field(
        "test",
        description="The split to use the val part as, if there is no test part; COCO's test captions are not public.",
    )
    roots: tuple[str, ...] = added(
        (),
        description="Further folders, local or s3://, that may contain images, e.g. the targets of links in `folder`.",
    )
    fingerprint: str | None = Field(None, description="Digest of the annotation files; set by the program.")

    def check(self, downloads: Path) -> None:
        for name in self._files():
            if not addresses.is_remote(self.folder):
                self._check_images(addresses.check_folder(addresses.join(addresses.absolute(self.folder), name)))

    def resolved(self) -> Self:
        files = {name: addresses.file_digest(file) for name, file in self._files().items()}
        return self.model_copy(
            update={"fingerprint": digest(files), **addresses.absolute_fields(self, "folder", "roots")}
        )

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        files = self._files()
        total, licences = 0, set()
        for file in files.values():
            progress(note=f"reading {file.name}")
            part = _read_part(file)
            total += len(part.images)
            licences |= {part.licences.get(image["license"], "") for image in part.images}
        splits = {name: split_of_name(name) for name in files}
        if "test" not in splits.values():
            splits = {name: self.val_is if split == "val" else split for name, split in splits.items()}

        def items() -> Iterator[Item]:
            for name, file in files.items():
                part = _read_part(file)
                roots = Roots(f"{addresses.absolute(self.folder)}/{name}", self._roots)
                for image in part.images:
                    yield _item(name, splits[name], image, part, roots)

        images = ", ".join(sorted(licence for licence in licences if licence)) or "of each photo's author"
        return Collection(
            title="COCO captions",
            items=items,
            total=total,
            label_names=(),
            credits=(
                Credit("COCO annotations", "COCO Consortium", "CC-BY-4.0", "https://cocodataset.org"),
                Credit("COCO images", "their photographers on Flickr", images, "https://cocodataset.org/#termsofuse"),
            ),
        )

    @property
    def _roots(self) -> tuple[str, ...]:
        """The folders in which images are allowed."""
        return roots_of(addresses.absolute(self.folder), *self.roots).folders

    def _check_images(self, folder: str) -> None:
        """Raises an InputError if a folder of images is a link to outside the roots."""
        if not leads_inside(folder, self._roots):
            raise InputError(
                f"{folder}: is a link that leads out of {self.folder}; if that is intended, name its target in roots"
            )

    def _files(self) -> dict[str, FoundFile]:
        """The annotation file of each part."""
        folder = addresses.check_folder(self.folder)
        files: dict[str, FoundFile] = {}
        for file in addresses.find(addresses.join(folder, "annotations"), (".json",)):
            match = _NAME.fullmatch(file.name)
            if match:
                files[match.group(1)] = file
        if not files:
            raise InputError(f"{folder}/annotations: holds no captions_*.json")
        missing = [part for part in self.parts if part not in files]
        if missing:
            raise InputError(f"parts: no captions_{missing[0]}.json in {folder}/annotations; it has {listed(files)}")
        return {name: file for name, file in files.items() if not self.parts or name in self.parts}


@dataclass(frozen=True, slots=True)
class _Part:
    """The content of an annotation file.

    Attributes:
        images: id, file_name and license (the licence's id) of each image.
        captions: image id -> captions.
        licences: licence id -> SPDX name.
    """

    images: Sequence[Mapping[str, Any]]
    captions: Mapping[int, Sequence[str]]
    licences: Mapping[int, str]


def _item(name: str, split: str | None, image: Mapping[str, Any], part: _Part, roots: Roots) -> Item:
    file = str(image["file_name"])
    stamp = None
    try:
        read, stamp = roots.reader(file)
    except ValueError as error:
        read = failing_read(str(error))
    return Item(
        name=f"{name}/{file}",
        read=read,
        key=f"coco-{image['id']}",
        captions=tuple(part.captions.get(image["id"], ())),
        group=f"coco-{image['id']}",
        family="coco",
        licence=part.licences.get(image["license"], ""),
        split=split,
        stamp=stamp,
    )


def _read_part(file: FoundFile) -> _Part:
    data = addresses.read(file.url)
    refuse_other_type(file.url, data[:HEAD_BYTES])
    try:
        content = parse_json(data)
        captions: dict[int, list[str]] = {}
        for annotation in content["annotations"]:
            captions.setdefault(int(annotation["image_id"]), []).append(str(annotation["caption"]))
        images = [
            {"id": int(image["id"]), "file_name": image["file_name"], "license": image.get("license", -1)}
            for image in content["images"]
        ]
        licences = {int(licence["id"]): _spdx(licence) for licence in content.get("licenses", ())}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise InputError(f"{file.url}: not a COCO captions file ({reason})") from None
    orphans = captions.keys() - {image["id"] for image in images}
    if orphans:
        raise InputError(
            f"{file.url}: {len(orphans)} captioned images are not among its images, e.g. id {min(orphans)}; "
            "the file is incomplete, or merged with another"
        )
    return _Part(images, captions, licences)


def _spdx(licence: Mapping[str, Any]) -> str:
    """The SPDX name of a licence, found by its URL; else COCO's name for it."""
    match = _CREATIVE_COMMONS.search(str(licence.get("url", "")))
    return f"CC-{match.group(1).upper()}-{match.group(2)}" if match else str(licence.get("name", ""))
