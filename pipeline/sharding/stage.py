"""The stage shard-dataset: a source of images becomes shards, an index and a data card.

    collect (fetch, list) -> take in (read, check, quarantine) -> split -> write tars and index -> card, sheet

The same source and config give the same bytes in every file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config, unkeyed
from pipeline.errors import InputError, UnknownNameError
from pipeline.sharding.contact_sheet import contact_sheet
from pipeline.sharding.data_card import data_card, markdown
from pipeline.sharding.intake import Spool, Unreadable, take_in
from pipeline.sharding.shards import write_shards
from pipeline.sharding.sources.catalogue import SourceConfigs
from pipeline.sharding.sources.emoji import EmojiConfig
from pipeline.sharding.split import SplitConfig, SplitInput, assign_splits, check_class_sizes
from pipeline.stage import Workspace


class ShardingConfig(Config):
    """Which images, how they are split, and how they are stored."""

    source: SourceConfigs = Field(EmojiConfig(), description="where the images come from")
    split: SplitConfig = Field(SplitConfig(), description="what is held out")
    samples_per_shard: int = Field(1000, ge=1, le=1_000_000, description="images in one tar, at most")
    max_unreadable_share: float = Field(
        0.01, ge=0, le=1, description="a larger share of unreadable images stops the stage; fewer are quarantined"
    )
    threads: int = unkeyed(min(8, os.cpu_count() or 1), ge=1, le=256, description="threads that read and check images")

    def check(self, store: ArtifactStore) -> None:
        """Refuses what cannot work, before any work.

        Raises:
            InputError: no such folder, no images, a class too small, no way to fetch, an unknown family.
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
    """Source -> shards + index + data card. No inputs; the config must be `resolved`."""

    name: ClassVar[str] = "shard-dataset"
    version: ClassVar[int] = 1

    def run(self, config: ShardingConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        if config.source.fingerprint is None:
            # Without it the key would not say which data these are, and new data would be taken for old.
            raise InputError("shard-dataset: the config has no source fingerprint; pass config.resolved()")
        if config.resolved().source.fingerprint != config.source.fingerprint:
            raise InputError(f"the data of source {config.source.kind!r} changed since the run began; run it again")
        config.check(work.store)
        collection = config.source.build(downloads_folder(work.store)).collect(work.progress)
        spool = Spool(work.scratch / "spool")
        try:
            taken, unreadable = take_in(
                collection,
                spool,
                threads=config.threads,
                max_unreadable_share=config.max_unreadable_share,
                progress=work.progress,
            )
            label_of = {name: number for number, name in enumerate(collection.label_names)}
            labels = np.array([label_of.get(one.item.label or "", -1) for one in taken], dtype=np.int32)
            groups = [one.item.group or one.content_hash for one in taken]
            assignment = assign_splits(
                SplitInput(
                    groups=groups,
                    labels=labels,
                    families=[one.item.source for one in taken],
                    given=[one.item.split for one in taken],
                    content_hashes=[one.content_hash for one in taken],
                    captions=[one.item.captions for one in taken],
                ),
                config.split,
                collection.label_names,
            )
            index = write_shards(
                work.output,
                collection,
                taken,
                spool,
                splits=assignment.splits,
                labels=labels,
                groups=groups,
                samples_per_shard=config.samples_per_shard,
                progress=work.progress,
            )
        finally:
            spool.close()
        work.progress(note="data card and contact sheet")
        card = data_card(index, collection, assignment, unreadable)
        _write_json(work.output / "data_card.json", card)
        (work.output / "data_card.md").write_text(markdown(card), encoding="utf-8")
        _write_json(work.output / "labels.json", list(index.label_names))
        if index.taxonomy:
            nodes = [{"name": node.name, "parent": node.parent} for node in index.taxonomy]
            _write_json(work.output / "taxonomy.json", {"nodes": nodes})
        _write_quarantine(work.output / "quarantine.parquet", unreadable)
        contact_sheet(index, work.output, collection.title).save(work.output / "contact_sheet.png", optimize=True)
        megabytes = sum(path.stat().st_size for path in (work.output / "shards").iterdir()) / 1e6
        return {
            "samples": len(index),
            **card["splits"],
            "labels": len(index.label_names),
            "shards": len(index.shard_names),
            "megabytes": round(megabytes, 1),
            "unreadable": len(unreadable),
            "duplicates": assignment.copies,
        }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_quarantine(path: Path, unreadable: Sequence[Unreadable]) -> None:
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
