"""The stage shard-dataset: a source of images becomes shards, an index and a data card.

    collect (fetch, list) -> intake (read, check, quarantine)
        -> plan (duplicates, splits, caps per label and concept, order) -> write tars and index
        -> data card, contact sheet

Reading and writing are divided into tasks, which run in threads or on Ray (runner.py). Finished tasks leave their files
in the scratch folder, from which the run after a killed one resumes. The same source and config give the same bytes in
every file, with any runner and after any number of kills.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.json_file import write_json
from pipeline.sharding.card.contact_sheet import contact_sheet
from pipeline.sharding.card.data_card import data_card, dropped_duplicates, markdown, rare_card
from pipeline.sharding.card.headline import shards_headline
from pipeline.sharding.card.page.page import card_page
from pipeline.sharding.config import ShardingConfig, downloads_folder
from pipeline.sharding.deltas.delta_base import Base, check_base, check_named_base, source_address, write_recipe
from pipeline.sharding.run_modes import ShardingResult, write_all, write_delta
from pipeline.sharding.sources.base import Collection
from pipeline.sharding.sources.normalised_labels import with_normalised_labels
from pipeline.sharding.writing.chunks import Unreadable
from pipeline.sharding.writing.intake import Intake, allowed_unreadable
from pipeline.sharding.writing.rare_classes import LabelSizes
from pipeline.sharding.writing.scratch import Scratch
from pipeline.stage import NothingNew, Workspace


def check_sharding(config: ShardingConfig, store: ArtifactStore) -> None:
    """Checks source and base before any work.

    Raises:
        InputError: no such folder, no images, a class too small, no way to download, an unknown holdout family, or a
            base that a delta cannot add to.
    """
    config.check_source(store)
    check_named_base(config, store)


class ShardDataset:
    """Source -> shards + index + data card. The config must be `resolved`.

    With the input "base" (see `find_base`), only new and changed samples are stored: the artifact is a delta.
    """

    name: ClassVar[str] = "shard-dataset"
    version: ClassVar[int] = 6

    def run(self, config: ShardingConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        if config.source.fingerprint is None:
            # Without it the key would not depend on the data, and an old artifact would be reused for new data.
            raise InputError("shard-dataset: the config has no source fingerprint; pass config.resolved()")
        if config.resolved().source.fingerprint != config.source.fingerprint:
            raise InputError(f"the data of source {config.source.kind!r} changed since the run began; run it again")
        base = Base(inputs["base"]) if "base" in inputs else None
        if base is not None:
            check_base(config, base)
            if base.is_up_to_date(config):
                raise NothingNew(base.artifact)
        config.check_source(work.store)
        collection = with_normalised_labels(config.source.collect(downloads_folder(work.store), work.progress))
        if not collection.total:
            raise InputError(f"{source_address(config)}: no image is listed there, so there is nothing to shard")
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
            difference_hashes=config.duplicates.near == "remove",
            split_by_image=config.split.rule == "image",
            seed=config.split.seed,
            max_unreadable=allowed_unreadable(config.max_unreadable_share, collection.total),
            in_place=bool(collection.tars),
        )
        if config.runner == "ray":
            work.progress(note="starting Ray")
        if base is None:
            result = write_all(config, collection, intake, work)
        else:
            result = write_delta(config, base, collection, intake, work)
        for note in result.notes:
            work.progress(note=note)
        work.progress(note="data card and contact sheet")
        return _write_card(config, collection, result, work)


def _check_labels(config: ShardingConfig, collection: Collection) -> None:
    """Refuses classes that are too small, before any image is read."""
    if config.split.rare_classes != "refuse" or config.split.rule == "given":
        return
    if config.base is None and config.source.class_sizes() is not None:
        return  # Checked by `check_source`.
    sizes = LabelSizes(config.split)
    for _ in sizes.count(collection.items()):
        pass  # `count` counts each item that it yields.
    sizes.check(collection.label_names)


def _write_card(
    config: ShardingConfig, collection: Collection, result: ShardingResult, work: Workspace
) -> dict[str, Any]:
    """Writes card, contact sheet, label names, quarantine and recipe; returns the summary."""
    index = result.index
    unreadable = [item for chunk in result.chunks for item in chunk.unreadable]
    rare = rare_card(config.split.rare_classes, result.rare_classes)
    card = data_card(index, collection, result.plan, result.chunks, unreadable, result.changes, rare)
    write_json(work.output / "data_card.json", card)
    (work.output / "data_card.md").write_text(markdown(card), encoding="utf-8")
    index.write_names(work.output)
    _write_quarantine(work.output / "quarantine.parquet", unreadable)
    write_recipe(work.output, config, collection.title)
    read_image = result.image_reader(work)
    page = card_page(card, index, read_image, equal=result.equal_sets, unreadable=unreadable, config=config)
    (work.output / "data_card.html").write_text(page, encoding="utf-8")
    contact_sheet(index, read_image, collection.title).save(work.output / "contact_sheet.png", optimize=True)
    size = sum(path.stat().st_size for path in work.output.glob("shards/*"))
    summary = {
        "samples": len(index),
        **card["splits"],
        "labels": len(index.label_names),
        "shards": len(index.shard_names),
        "megabytes": round(size / 1e6, 1),
        "unreadable": len(unreadable),
        "duplicates": result.plan.assignment.equal_sets.copies,
        **({"dropped_duplicates": dropped} if (dropped := dropped_duplicates(card)) else {}),
        **({"passed_over": card["passed_over"]} if collection.skipped.count else {}),
        "source": source_address(config),
        **({"rare_classes": {**rare, "of": dict(islice(rare["of"].items(), 20))}} if result.rare_classes else {}),
        **({"notes": [*collection.notes, *result.notes]} if collection.notes or result.notes else {}),
        **{name: result.changes[name] for name in ("new", "changed", "removed") if result.changes},
    }
    return {**summary, "headline": shards_headline(summary)}


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
        {"name": item.name, "label": item.label, "source": item.family, "bytes": item.bytes, "reason": item.reason}
        for item in unreadable
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
