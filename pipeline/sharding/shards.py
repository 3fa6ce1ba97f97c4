"""Writes the samples that were taken in as shards, and gives their index.

Inside a split the samples lie in the order of a hash of their keys: every shard is a fair sample of
its split, so that a reader that goes through a tar from front to back sees mixed classes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.progress import Progress
from pipeline.sharding.index import SPLITS, SampleIndex, SampleRow, TaxonomyNode
from pipeline.sharding.intake import Intaken, Spool
from pipeline.sharding.sources.base import Collection
from pipeline.sharding.split import DROPPED
from pipeline.sharding.tar_writer import TarWriter


def write_shards(
    folder: Path,
    collection: Collection,
    taken: Sequence[Intaken],
    spool: Spool,
    *,
    splits: NDArray[np.int8],
    labels: NDArray[np.int32],
    groups: Sequence[str],
    samples_per_shard: int,
    progress: Progress,
) -> SampleIndex:
    """Writes shards/*.tar, index.arrow and index.parquet below `folder`.

    Args:
        splits: [taken] number in `SPLITS`; samples with DROPPED are left out.
        labels: [taken] number of the label, -1 for none.
        groups: name of each sample's content group.
    """
    keys = sample_keys(taken)
    kept = [place for place in range(len(taken)) if splits[place] != DROPPED]
    kept.sort(key=lambda place: (splits[place], hashlib.blake2b(keys[place].encode()).digest()))
    group_numbers = {name: number for number, name in enumerate(sorted({groups[place] for place in kept}))}
    taxonomy, node_of = _taxonomy(collection.root, taken)
    rows = []
    with TarWriter(folder, samples_per_shard) as tars:
        for done, place in enumerate(kept, start=1):
            one, split = taken[place], SPLITS[splits[place]]
            data = spool.read(one.start, one.length)
            members = [(one.extension, data), ("json", _metadata(one, keys[place], groups[place]))]
            if one.item.captions:
                members.append(("txt", one.item.captions[0].encode()))
            where = tars.add(split, keys[place], members)
            rows.append(
                SampleRow(
                    key=keys[place],
                    shard=where.shard,
                    offset=where.offset,
                    length=where.length,
                    label=int(labels[place]),
                    captions=one.item.captions,
                    width=one.width,
                    height=one.height,
                    content_hash=one.content_hash,
                    split=int(splits[place]),
                    group=group_numbers[groups[place]],
                    node=node_of.get(one.item.taxonomy, -1),
                    source=one.item.source,
                )
            )
            if done % 256 == 0 or done == len(kept):
                progress(step=done, total=len(kept), note="writing shards")
        shard_names = tars.shard_names
    index = SampleIndex.build(rows, shard_names=shard_names, label_names=collection.label_names, taxonomy=taxonomy)
    index.write(folder)
    return index


def sample_keys(taken: Sequence[Intaken]) -> list[str]:
    """A key for every sample: its own, or label and content hash; a second use of a key gets "-2"."""
    keys = []
    used: dict[str, int] = {}
    for one in taken:
        key = one.item.key or f"{_slug(one.item.label or 'image')}-{one.content_hash[:16]}"
        used[key] = used.get(key, 0) + 1
        keys.append(key if used[key] == 1 else f"{key}-{used[key]}")
    return keys


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "image"


def _metadata(one: Intaken, key: str, group: str) -> bytes:
    """KEY.json: what the index says in numbers, in words."""
    item = one.item
    content = {
        "key": key,
        "name": item.name,
        "label": item.label,
        "captions": list(item.captions),
        "taxonomy": list(item.taxonomy),
        "group": group,
        "source": item.source,
        "licence": item.licence,
        "width": one.width,
        "height": one.height,
        "content_hash": one.content_hash,
        **item.extra,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _taxonomy(root: str, taken: Sequence[Intaken]) -> tuple[list[TaxonomyNode], dict[tuple[str, ...], int]]:
    """The nodes, parents first, and the number of each path; none for a data set without taxonomy."""
    if not root:
        return [], {}
    nodes = [TaxonomyNode(root, -1)]
    numbers: dict[tuple[str, ...], int] = {(): 0}
    for path in dict.fromkeys(one.item.taxonomy for one in taken):
        for depth in range(1, len(path) + 1):
            if path[:depth] not in numbers:
                numbers[path[:depth]] = len(nodes)
                nodes.append(TaxonomyNode(path[depth - 1], numbers[path[: depth - 1]]))
    return nodes, {path: number for path, number in numbers.items() if path}
