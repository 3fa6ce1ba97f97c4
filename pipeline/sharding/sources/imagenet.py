"""ImageNet's layout (ILSVRC 2012): train/WNID/*.JPEG, and val/*.JPEG with a file of labels or val/WNID/*.JPEG.

    FOLDER/train/n01440764/n01440764_10026.JPEG
    FOLDER/val/ILSVRC2012_val_00000001.JPEG
    FOLDER/LOC_val_solution.csv, val.txt or the development kit         labels of val/
    FOLDER/LOC_synset_mapping.txt, synset_words.txt or words.txt        class names of the WNIDs

Classes are numbered in the order of their WNIDs, as in torchvision and timm, so that pretrained heads fit. val/ is the
test split, on which papers report; the validation split is a fraction of train/.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from pipeline.config import digest, unkeyed
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.sources.base import Collection, Credit, Item, SourceConfig, SourceDescription, failing_read
from pipeline.sharding.sources.caption_template import CaptionTemplate, caption_of
from pipeline.sharding.sources.image_listing import BROKEN, FolderImages, images_in, listing_hash, sub_folders
from pipeline.sharding.sources.imagenet_labels import class_words, find_val_labels, read_val_labels
from pipeline.sharding.sources.skipped_files import IN_NO_CLASS, SkipCounter

_WNID = re.compile(r"n\d{8}")
# Folder of the images in the archive of the Kaggle competition.
_KAGGLE_IMAGES = Path("ILSVRC/Data/CLS-LOC")


class ImagenetConfig(SourceConfig):
    """Folder of ImageNet, with its label files and class names."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "ImageNet (ILSVRC 2012): train/ with one folder per WNID, val/ with a file of labels",
        "FOLDER/train/n01440764/*.JPEG; val/ with val.txt, LOC_val_solution.csv or the development kit",
        ("folder=imagenet", "caption='a photo of {a_label}'"),
    )

    kind: Literal["imagenet"] = "imagenet"
    folder: Path = unkeyed(..., description="Folder with train/ and val/, or with ILSVRC/ from the Kaggle archive.")
    val_labels: Path | None = unkeyed(
        None,
        description="Labels of val/: val.txt, LOC_val_solution.csv or the folder of the development kit. null: "
        "search in `folder`.",
    )
    names: Path | None = unkeyed(
        None,
        description="File with the class name of each WNID, e.g. LOC_synset_mapping.txt. null: search in `folder`.",
    )
    labels: Literal["names", "wnid"] = Field(
        "names",
        description="Label of a class. names: its class name, which requires a file of names; wnid: its WNID, "
        "e.g. n01440764.",
    )
    caption: CaptionTemplate = None
    val_is: Literal["test", "val"] = Field(
        "test", description="The split to use val/ as. With test, the validation split is a fraction of train/."
    )
    fingerprint: str | None = Field(
        None, description="Digest of the files' names, sizes and times, and of the labels; set by the program."
    )

    def check(self, downloads: Path) -> None:
        root, images = self._folders()
        wnids = _wnids(images / "train")
        class_words(root, self.names, wnids, wanted=self.labels == "names")
        if (images / "val").is_dir() and not _by_class(images / "val"):
            find_val_labels(root, self.val_labels)

    def resolved(self) -> Self:
        root, images = self._folders()
        wnids = _wnids(images / "train")
        hasher = hashlib.sha256()
        for listing in _list_images(images, SkipCounter()):
            listing_hash(str(images), listing.names, listing.broken, hasher)
        words = class_words(root, self.names, wnids, wanted=self.labels == "names")
        labels = [] if _by_class(images / "val") else sorted(self._val_labels(wnids).items())
        fingerprint = digest([hasher.hexdigest(), sorted(words.items()), labels])
        return self.model_copy(update={"fingerprint": fingerprint, "folder": root})

    def _folders(self) -> tuple[Path, Path]:
        """(folder of the label files, folder of train/ and val/)."""
        root = Path(addresses.check_folder(str(self.folder)))
        for images in (root, root / _KAGGLE_IMAGES):
            if (images / "train").is_dir():
                return root, images
        raise InputError(f"{root}: holds no train/; ImageNet's layout is train/n01440764/*.JPEG and val/*.JPEG")

    def _val_labels(self, wnids: list[str]) -> dict[str, str]:
        root, images = self._folders()
        if not (images / "val").is_dir() or _by_class(images / "val"):
            return {}
        return read_val_labels(find_val_labels(root, self.val_labels), wnids)

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        root, images = self._folders()
        wnids = _wnids(images / "train")
        words = class_words(root, self.names, wnids, wanted=self.labels == "names")
        val_labels = self._val_labels(wnids)
        progress(note="listing ImageNet")
        skipped = SkipCounter()
        total = sum(len(listing.names) for listing in _list_images(images, skipped))

        def items() -> Iterator[Item]:
            for listing in _list_images(images, SkipCounter()):
                for name in listing.names:
                    yield self._item(images, name, words, val_labels, broken=name in listing.broken)

        return Collection(
            title="ImageNet",
            items=items,
            total=total,
            label_names=tuple(words.values()),
            root="imagenet",
            credits=(
                Credit(
                    "ImageNet (ILSVRC 2012)",
                    "Russakovsky et al. 2015; the images' copyright is their owners'",
                    "non-commercial research and education, on request",
                    "https://image-net.org/download",
                ),
            ),
            skipped=skipped.result(),
        )

    def _item(
        self, images: Path, name: str, words: Mapping[str, str], val_labels: Mapping[str, str], *, broken: bool
    ) -> Item:
        path = images / name
        parts = name.split("/")
        part, folder = parts[0], parts[1] if len(parts) > 2 else parts[0]
        # Without labels by image, val/ has one folder per WNID.
        wnid = val_labels.get(path.stem) if part == "val" and val_labels else folder
        label = words.get(wnid or "")
        read = partial(addresses.read, str(path)) if not broken else failing_read(BROKEN)
        if label is None:
            why = f"the file of labels does not name {path.stem}" if wnid is None else f"{wnid} is no class of train/"
            read = failing_read(why)
        return Item(
            name=name,
            read=read,
            label=label,
            captions=caption_of(self.caption, label.partition(" (")[0] if label is not None else None),
            taxonomy=(label,) if label is not None else (),
            family="imagenet",
            licence="LicenseRef-ImageNet",
            split=self.val_is if part == "val" else "train",
            extra={"wnid": wnid},
            stamp=addresses.stamp(str(path)),
        )


def _wnids(train: Path) -> list[str]:
    """The WNIDs of train/, sorted: a class's number is the position of its WNID."""
    wnids = sub_folders(str(train))
    if not wnids:
        raise InputError(f"{train}: holds no folder; each class has one, e.g. n01440764/")
    other = next((name for name in wnids if not _WNID.fullmatch(name)), None)
    if other is not None:
        raise InputError(f"{train / other}: no WNID like n01440764; for other names use kind image_folder")
    return wnids


def _by_class(val: Path) -> bool:
    """Whether val/ has one folder per WNID, the layout that most training code expects."""
    return val.is_dir() and any(_WNID.fullmatch(name) for name in sub_folders(str(val)))


def _list_images(images: Path, skipped: SkipCounter) -> Iterator[FolderImages]:
    """Yields the images of train/ and then of val/, folder by folder, sorted by name."""
    for part in ("train", "val"):
        if not (images / part).is_dir():
            continue
        folders = sub_folders(str(images / part))
        loose = images_in(str(images / part), skipped, deep=False, prefix=f"{part}/")
        if not any(_WNID.fullmatch(name) for name in folders):
            yield loose
            folders = []
        else:
            for name in loose.names:
                skipped.add(IN_NO_CLASS, name)
        for name in folders:
            listing = images_in(str(images / part / name), skipped, prefix=f"{part}/{name}/")
            if _WNID.fullmatch(name):
                yield listing
            else:
                for image in listing.names:
                    skipped.add(IN_NO_CLASS, image)
