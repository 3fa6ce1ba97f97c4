"""The stage shard-dataset: a source of images becomes shards, an index and a data card.

    collect (fetch, list) -> take in (read, check, quarantine) -> plan (duplicates, split, caps, order)
        -> write tars and index -> card, sheet

Reading and writing are cut into tasks, which run in threads or on Ray (runner.py). What a task has finished lies in
the scratch folder: a run that was killed goes on there. The same source and config give the same bytes in every
file, whoever did the work, and however often it was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config, added, unkeyed
from pipeline.errors import InputError, UnknownNameError
from pipeline.sharding.card.contact_sheet import contact_sheet
from pipeline.sharding.card.data_card import data_card, markdown, rare_card
from pipeline.sharding.card.page.page import card_page
from pipeline.sharding.deltas.delta_base import Base, check_base, check_named_base, place_of_source, write_recipe
from pipeline.sharding.run_modes import Written, write_all, write_delta
from pipeline.sharding.sources.base import Collection
from pipeline.sharding.sources.catalogue import SourceConfigs
from pipeline.sharding.sources.demo.emoji import EmojiConfig
from pipeline.sharding.sources.one_text import with_one_text
from pipeline.sharding.sources.webdataset_tars import WebdatasetConfig
from pipeline.sharding.writing.captions import CaptionsConfig
from pipeline.sharding.writing.chunks import Unreadable
from pipeline.sharding.writing.duplicates import DuplicatesConfig
from pipeline.sharding.writing.images import ImagesConfig
from pipeline.sharding.writing.intake import Intake, allowed_unreadable
from pipeline.sharding.writing.plan import CapsConfig
from pipeline.sharding.writing.rare_classes import LabelSizes, check_class_sizes
from pipeline.sharding.writing.runner import RunnerName
from pipeline.sharding.writing.scratch import Scratch
from pipeline.sharding.writing.split import SplitConfig
from pipeline.stage import NothingNew, Workspace


class ShardingConfig(Config):
    """Which images, how they are split, and how they are stored."""

    source: SourceConfigs = Field(EmojiConfig(), description="where the images come from")
    split: SplitConfig = Field(SplitConfig(), description="what is held out")
    images: ImagesConfig = Field(ImagesConfig(), description="which images are refused, and which encoded anew")
    captions: CaptionsConfig = Field(CaptionsConfig(), description="how captions are cleaned")
    duplicates: DuplicatesConfig = Field(DuplicatesConfig(), description="which duplicates are removed")
    caps: CapsConfig = Field(CapsConfig(), description="how many training images there may be of one thing")
    samples_per_shard: int = Field(1000, ge=1, le=1_000_000, description="images in one tar, at most")
    shard_megabytes: float | None = Field(
        None, gt=0, le=1_000_000, description="size of one tar, at most, in MB (10^6 bytes); null: however large"
    )
    max_unreadable_share: float = Field(
        0.01, ge=0, le=1, description="a larger share of unreadable images stops the stage; fewer are quarantined"
    )
    base: str | None = unkeyed(
        None,
        pattern=r"^(newest|[a-z-]+/[0-9a-f]{4,64})$",
        description="shards to add to, e.g. shard-dataset/0a1b2c, or newest: the last of this source; only what is "
        "new or changed is read and stored; null: all of the source is",
    )
    trust_names: bool = added(
        False,
        description="with a base: an image of which only reading tells whether it changed (a file in S3 that a table "
        "names) is taken as unchanged if name, label and captions are; false: it is read, and compared by hash",
    )
    runner: RunnerName = unkeyed(
        "threads", description="where the work is done: in threads of this process, or as Ray tasks (RAY_ADDRESS)"
    )
    writers: int = unkeyed(
        min(8, os.cpu_count() or 1), ge=1, le=4096, description="tasks that read or write at the same time, a core each"
    )

    def check(self, store: ArtifactStore) -> None:
        """Refuses what cannot work, before any work.

        Raises:
            InputError: no such folder, no images, a class too small, no way to fetch, an unknown family, a base that
                does not fit.
        """
        self.check_source(store)
        check_named_base(self, store)

    def check_source(self, store: ArtifactStore) -> None:
        """What `check` does, without the base.

        Raises:
            InputError: see there.
        """
        self.source.check(downloads_folder(store))
        families = self.source.families
        if self.split.holdout_family is not None:
            if len(families) < 2:
                raise InputError(
                    f"split.holdout_family: the source {self.source.kind!r} has no artist families; remove it"
                )
            if self.split.holdout_family not in families:
                raise UnknownNameError("artist family", self.split.holdout_family, families)
        if isinstance(self.source, WebdatasetConfig) and self.source.in_place:
            changed = next(
                (name for name in ("max_side", "encoding") if getattr(self.images, name) not in (None, "keep")), None
            )
            if changed is not None:
                raise InputError(
                    f"images.{changed}: an image that is indexed in place cannot be encoded anew; remove it"
                )
        if self.base is None:
            # A class that shrank since may be smaller; a new one is looked at when the splits are drawn.
            check_class_sizes(self.source.class_sizes(), self.split)

    def resolved(self) -> Self:
        """The config with the source's fingerprint in it: what `run_stage` takes, so that new data give a new key.

        Raises:
            InputError: the source is not there.
        """
        return self.model_copy(update={"source": self.source.resolved()})


def downloads_folder(store: ArtifactStore) -> Path:
    """Where sources keep what they fetched; shared by all runs of a store on this machine."""
    return store.local / "downloads"


class ShardDataset:
    """Source -> shards + index + data card. The config must be `resolved`.

    With the input "base", which `find_base` finds, only what is new is stored: the artifact is a delta.
    """

    name: ClassVar[str] = "shard-dataset"
    version: ClassVar[int] = 6

    def run(self, config: ShardingConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        if config.source.fingerprint is None:
            # Without it the key would not say which data these are, and new data would be taken for old.
            raise InputError("shard-dataset: the config has no source fingerprint; pass config.resolved()")
        if config.resolved().source.fingerprint != config.source.fingerprint:
            raise InputError(f"the data of source {config.source.kind!r} changed since the run began; run it again")
        base = Base(inputs["base"]) if "base" in inputs else None
        if base is not None:
            check_base(config, base)
            if base.is_of(config):
                raise NothingNew(base.artifact)
        config.check_source(work.store)
        collection = with_one_text(config.source.build(downloads_folder(work.store)).collect(work.progress))
        if not collection.total:
            raise InputError(f"{place_of_source(config)}: no image is listed there, so there is nothing to shard")
        for note in collection.notes:
            work.progress(note=note)
        if base is None and collection.label_names:
            _check_labels(config, collection)
        scratch = Scratch(work.scratch.absolute())
        scratch.prepare()
        known = () if base is None else base.index.label_names
        intake = Intake(
            scratch=scratch,
            labels={name: number for number, name in enumerate(dict.fromkeys((*known, *collection.label_names)))},
            images=config.images,
            captions=config.captions,
            looks=config.duplicates.near == "remove",
            by_image=config.split.rule == "image",
            seed=config.split.seed,
            allowed=allowed_unreadable(config.max_unreadable_share, collection.total),
            in_place=bool(collection.tars),
        )
        if config.runner == "ray":
            work.progress(note="starting Ray")
        if base is None:
            written = write_all(config, collection, intake, work)
        else:
            written = write_delta(config, base, collection, intake, work)
        work.progress(note="data card and contact sheet")
        return _describe(config, collection, written, work)


def _check_labels(config: ShardingConfig, collection: Collection) -> None:
    """Refuses classes that are too small while nothing is read yet."""
    if config.split.rare_classes != "refuse" or config.split.rule == "given":
        return
    if config.base is None and config.source.class_sizes() is not None:
        return  # `check_source` has looked.
    sizes = LabelSizes(config.split)
    for _ in sizes.through(collection.items()):
        pass
    sizes.check(collection.label_names)


def _describe(config: ShardingConfig, collection: Collection, written: Written, work: Workspace) -> dict[str, Any]:
    """Writes what tells of the shards: card, sheet, names of labels, quarantine, recipe; the summary."""
    index = written.index
    unreadable = [one for facts in written.chunks for one in facts.unreadable]
    rare = rare_card(config.split.rare_classes, written.rare)
    card = data_card(index, collection, written.plan, written.chunks, written.changes, rare)
    _write_json(work.output / "data_card.json", card)
    (work.output / "data_card.md").write_text(markdown(card), encoding="utf-8")
    _write_json(work.output / "labels.json", list(index.label_names))
    if index.taxonomy:
        nodes = [{"name": node.name, "parent": node.parent} for node in index.taxonomy]
        _write_json(work.output / "taxonomy.json", {"nodes": nodes})
    _write_quarantine(work.output / "quarantine.parquet", unreadable)
    write_recipe(work.output, config, collection.title)
    image = written.image(work)
    page = card_page(card, index, image, equal=written.equal, unreadable=unreadable, config=config)
    (work.output / "data_card.html").write_text(page, encoding="utf-8")
    contact_sheet(index, image, collection.title).save(work.output / "contact_sheet.png", optimize=True)
    size = sum(path.stat().st_size for path in work.output.glob("shards/*"))
    return {
        "samples": len(index),
        **card["splits"],
        "labels": len(index.label_names),
        "shards": len(index.shard_names),
        "megabytes": round(size / 1e6, 1),
        "unreadable": len(unreadable),
        "duplicates": written.plan.kept.copies,
        **({"passed_over": card["passed_over"]} if collection.passed_over.count else {}),
        "source": place_of_source(config),
        **({"rare_classes": {**rare, "of": dict(islice(rare["of"].items(), 20))}} if written.rare else {}),
        **({"notes": list(collection.notes)} if collection.notes else {}),
        **{name: written.changes[name] for name in ("new", "changed", "removed") if written.changes},
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_quarantine(path: Path, unreadable: Iterable[Unreadable]) -> None:
    schema = pa.schema(
        [
            ("name", pa.string()),
            ("label", pa.string()),
            ("source", pa.string()),
            ("bytes", pa.int64()),
            ("reason", pa.string()),
        ]
    )
    rows = [
        {"name": one.name, "label": one.label, "source": one.source, "bytes": one.bytes, "reason": one.reason}
        for one in unreadable
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
