"""Any data set of torchvision.datasets by its class name, fetched by its own downloader into the store's downloads.

Its PIL images become PNG; its targets become labels if they are numbers, captions if they are texts. If the class has
an argument `train` or `split`, that selects the splits. `arguments` sets other arguments, `splits` other splits.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from pipeline.config import digest, unkeyed
from pipeline.errors import InputError, UnknownNameError, WorkError, first_line
from pipeline.progress import Progress
from pipeline.sharding.format import file_addresses as addresses
from pipeline.sharding.sources.base import Author, Collection, Credit, Item, Licence, SourceConfig, SourceDescription
from pipeline.sharding.sources.caption_template import CaptionTemplate, caption_of
from pipeline.sharding.sources.labels import sort_labels
from pipeline.sharding.sources.torchvision_objects import (
    DataSetSpec,
    create_data_set,
    data_set,
    dataset_class,
    dataset_names,
    parameters_of,
    read_png,
    target_of,
    targets_of,
)

_RESERVED_ARGUMENTS = ("root", "download", "transform", "target_transform", "transforms")
_SPLIT_WORDS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_PAGE = "https://pytorch.org/vision/stable/datasets.html"
_Split = Literal["train", "val", "test"]


class TorchvisionConfig(SourceConfig):
    """Class name of a torchvision dataset, and its arguments."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "any image dataset of torchvision.datasets",
        "one download, or its files in `root`",
        ("dataset=CIFAR10",),
    )

    kind: Literal["torchvision"] = "torchvision"
    dataset: str = Field(..., description="Name of a class in torchvision.datasets, e.g. CIFAR10, Flowers102, Food101.")
    arguments: dict[str, Any] = Field(
        {}, description="Arguments of the class, except root and download, e.g. {version: 2021_train}."
    )
    splits: dict[_Split, dict[str, Any]] = Field(
        {},
        description="Arguments that select each split, e.g. {train: {split: trainval}, test: {split: test}}. {}: "
        "those that the class offers.",
    )
    root: Path | None = unkeyed(None, description="Folder that already contains the files. null: download them once.")
    caption: CaptionTemplate = None
    limit: int | None = Field(None, ge=1, description="Maximum number of images per split, from its start. null: all.")
    licence: Licence = ""
    author: Author = ""
    fingerprint: str | None = Field(None, description="Digest of the files in `root`; set by the program.")

    @field_validator("arguments", "splits")
    @classmethod
    def _without_reserved_arguments(cls, given: dict[str, Any]) -> dict[str, Any]:
        inner = [name for value in given.values() if isinstance(value, dict) for name in value]
        reserved = next((name for name in (*given, *inner) if name in _RESERVED_ARGUMENTS), None)
        if reserved is not None:
            raise ValueError(f"{reserved} is set by the program")
        return given

    def check(self, downloads: Path) -> None:
        known = dataset_names()
        if self.dataset not in known:
            raise UnknownNameError("torchvision data set", self.dataset, known)
        if self.root is not None:
            addresses.check_folder(str(self.root))

    def resolved(self) -> Self:
        if self.root is None:
            # torchvision verifies fetched files against its own digests, so they are always the same.
            return self.model_copy(update={"fingerprint": "torchvision"})
        root = addresses.check_folder(str(self.root))
        files = addresses.listing_digest(addresses.find(root, ("",)), root)
        return self.model_copy(update={"fingerprint": digest(files), "root": Path(root)})

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        folder = downloads / "torchvision" if self.root is None else self.root.expanduser().absolute()
        progress(note=f"{'fetching' if self.root is None else 'opening'} {self.dataset}")
        specs = self._specs(folder)
        targets = {split: targets_of(data_set(spec)) for split, spec in specs.items()}
        sizes = {split: self._size(data_set(spec)) for split, spec in specs.items()}
        progress(note="reading the labels")
        names = self._label_names(specs, targets, sizes)

        def items() -> Iterator[Item]:
            for split, spec in specs.items():
                known = targets[split]
                for number in range(sizes[split]):
                    target = known[number] if known is not None else target_of(spec, number)
                    label = names[target] if isinstance(target, int) and 0 <= target < len(names) else None
                    yield Item(
                        name=f"{split or self.dataset} {number}",
                        read=partial(read_png, spec, number),
                        label=label,
                        key=f"{split or 'image'}-{number:07d}",
                        captions=caption_of(self.caption, label) or _texts(target),
                        taxonomy=(label,) if label is not None else (),
                        family=self.dataset,
                        licence=self.licence,
                        split=split,
                    )

        return Collection(
            title=self.dataset,
            items=items,
            total=sum(sizes.values()),
            label_names=names,
            root=self.dataset if names else "",
            credits=(Credit.of(self.dataset, self.author, self.licence, _PAGE),),
        )

    def _size(self, dataset: Any) -> int:
        return len(dataset) if self.limit is None else min(len(dataset), self.limit)

    def _specs(self, folder: Path) -> dict[str | None, DataSetSpec]:
        """Split -> data set object; the only key is None for a data set without splits."""
        takes = parameters_of(dataset_class(self.dataset))
        unknown = next((name for name in self.arguments if name not in takes), None)
        if unknown is not None:
            raise UnknownNameError(
                f"argument of torchvision.datasets.{self.dataset}", unknown, takes - set(_RESERVED_ARGUMENTS)
            )
        if self.splits:
            return {split: self._checked_spec(folder, more) for split, more in self.splits.items()}
        if "train" in takes and "train" not in self.arguments:
            return {split: self._checked_spec(folder, {"train": split == "train"}) for split in ("train", "test")}
        if "split" not in takes or "split" in self.arguments:
            return {None: self._checked_spec(folder, {})}
        specs: dict[str | None, DataSetSpec] = {"train": self._checked_spec(folder, {"split": "train"})}
        for split in ("val", "test"):
            for word in _SPLIT_WORDS[split]:
                with contextlib.suppress(InputError):
                    specs[split] = self._checked_spec(folder, {"split": word})
        return specs

    def _checked_spec(self, folder: Path, more: Mapping[str, Any]) -> DataSetSpec:
        """The description of the data set object for these arguments; its files are fetched if needed.

        Raises:
            InputError: the class does not accept the arguments, or the files are missing.
            WorkError: the files cannot be fetched.
        """
        spec = DataSetSpec(self.dataset, str(folder), json.dumps({**self.arguments, **more}, sort_keys=True))
        where = f"torchvision.datasets.{self.dataset}"
        try:
            # It prints what it fetches; standard output is reserved for the command.
            with contextlib.redirect_stdout(sys.stderr):
                create_data_set(spec, download=self.root is None)
        except (ValueError, TypeError) as error:
            raise InputError(f"{where}({spec.arguments}): {first_line(error)}; see `arguments` and `splits`") from None
        except ImportError as error:
            raise InputError(f"{where}: {first_line(error)}") from None
        except Exception as error:  # torchvision raises RuntimeError, URLError and others for one cause.
            if self.root is None and "download" in parameters_of(dataset_class(self.dataset)):
                raise WorkError(
                    f"{where} cannot be fetched ({first_line(error)}); fix the network, or name the folder that "
                    "has its files in source.root"
                ) from None
            raise InputError(
                f"{where}: not found in {folder} ({first_line(error)}), and torchvision cannot download it: "
                "fetch it as its documentation says, and name the folder in source.root"
            ) from None
        return spec

    def _label_names(
        self,
        specs: Mapping[str | None, DataSetSpec],
        targets: Mapping[str | None, Sequence[Any] | None],
        sizes: Mapping[str | None, int],
    ) -> tuple[str, ...]:
        """The class names of the data set object; without them, the numbers as text."""
        first = data_set(next(iter(specs.values())))
        classes, count = getattr(first, "classes", None), getattr(first, "num_classes", None)
        if isinstance(classes, list | tuple) and classes:
            # ImageNet's are tuples of synonyms.
            names = tuple(str(name[0] if isinstance(name, list | tuple) else name) for name in classes)
            return names if len(set(names)) == len(names) else tuple(f"{n} ({i})" for i, n in enumerate(names))
        if isinstance(count, int):
            return tuple(str(number) for number in range(count))
        classes_seen: set[int] = set()
        for split, spec in specs.items():
            known = targets[split]
            seen = known[: sizes[split]] if known is not None else (target_of(spec, n) for n in range(sizes[split]))
            classes_seen |= {target for target in seen if isinstance(target, int)}
        return sort_labels(str(number) for number in range(max(classes_seen) + 1)) if classes_seen else ()


def _texts(target: Any) -> tuple[str, ...]:
    """The captions in a target, if it is text."""
    texts = [target] if isinstance(target, str) else target if isinstance(target, list | tuple) else []
    return tuple(texts) if all(isinstance(text, str) for text in texts) else ()
