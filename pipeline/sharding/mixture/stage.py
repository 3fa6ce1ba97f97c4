"""The stage mix-datasets: several shards artifacts -> one artifact with an index that refers to all of their tars.

No tar is copied. Every stage that reads shards can read a mixture. The sampling weights are an option of the loading
policy `mixture`, so that a change of them needs no new artifact. Training samples are left out if any of the data sets
has their image in val or test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline.artifacts import Artifact
from pipeline.config import Config
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.json_file import write_json
from pipeline.sharding.card.data_card import index_counts
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.format.shard_locations import qualified_name
from pipeline.sharding.format.tars_file import tars_outside_store, write_tars
from pipeline.sharding.mixture.combine import Combined, combine
from pipeline.sharding.writing.scratch import Scratch
from pipeline.stage import Workspace

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


class MixDatasetsConfig(Config):
    """The config of mix-datasets; it has no options."""


def check_names(names: Mapping[str, object]) -> None:
    """Checks the names of data sets, which are parts of keys and of options.

    Raises:
        InputError: there are fewer than two, or one has other characters than a-z, 0-9 and dashes.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(f"mixture: {name!r} cannot name a data set; use lower-case letters, digits and dashes")
    if len(names) < 2:
        raise InputError(f"mixture: needs at least two data sets, and names {len(names)}")


class MixDatasets:
    """Inputs: name of a data set -> its shards artifact. Output: a shards artifact without tars."""

    name: ClassVar[str] = "mix-datasets"
    version: ClassVar[int] = 1

    def run(self, config: MixDatasetsConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        check_names(inputs)
        inputs = dict(sorted(inputs.items()))
        indexes = {name: SampleIndex.open(shards) for name, shards in inputs.items()}
        shard_names = {
            name: [qualified_name(shards.name, shard) for shard in indexes[name].shard_names]
            for name, shards in inputs.items()
        }
        work.progress(note="putting the index together")
        combined = combine(indexes, shard_names, Scratch(work.scratch).columns("index"))
        index = combined.index
        index.write(work.output)
        # Tars in the store are found by the names of their shards; those outside it are listed.
        outside_store = [tar for shards in inputs.values() for tar in tars_outside_store(shards)]
        if outside_store:
            write_tars(work.output, outside_store)
        index.write_names(work.output)
        write_json(work.output / "data_card.json", _card(combined, inputs))
        summary = {
            "samples": len(index),
            **{split: int(index.rows(split).size) for split in SPLITS},
            "labels": len(index.label_names),
            "shards": len(index.shard_names),
            "data_sets": {data_set.name: len(data_set) for data_set in index.data_sets},
            "left_out": sum(combined.left_out.values()),
        }
        return {**summary, "headline": mixture_headline(summary)}


def _card(combined: Combined, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """The data card of the mixture: its counts, credits and data sets."""
    cards = [
        json.loads(shards.read("data_card.json")) for shards in inputs.values() if "data_card.json" in shards.files
    ]
    credits = {json.dumps(credit): credit for card in cards for credit in card.get("credits", [])}
    return {
        "title": " + ".join(inputs),
        **index_counts(combined.index),
        "duplicates": {"dropped_copies_of_held_out": sum(combined.left_out.values())},
        "unreadable": {"count": sum(card.get("unreadable", {}).get("count", 0) for card in cards)},
        "credits": list(credits.values()),
        "data_sets": [
            {
                "name": data_set.name,
                "artifact": inputs[data_set.name].name,
                "samples": len(data_set),
                "training_images_held_out_elsewhere": combined.left_out[data_set.name],
            }
            for data_set in combined.index.data_sets
        ],
    }


def mixture_headline(summary: Mapping[str, Any]) -> str:
    """The headline from the summary: the data sets with their sizes, and the number of samples left out."""
    sizes = " + ".join(f"{size:,} {name}" for name, size in summary.get("data_sets", {}).items())
    left_out = f", {summary['left_out']:,} left out" if summary.get("left_out") else ""
    return f"{sizes}, {counted(summary.get('labels', 0), 'label')}{left_out}"
