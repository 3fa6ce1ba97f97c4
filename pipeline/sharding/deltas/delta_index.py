"""The files of a delta next to its tars: the index of all live samples, the listing, and the tombstones.

Live samples are those of the source now: samples reused from the base, and new ones. Within a split the reused samples
come first, in their order, then the new ones. The numbers of labels, groups and taxonomy nodes are those of the base;
new labels, groups and nodes get the next numbers.

The listing's column "row" is not a row of the listing: it is the id of the item's sample in the index, -1 for none.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.counter_rng import text_hash
from pipeline.sharding.deltas.delta import Delta
from pipeline.sharding.deltas.items_table import ROW_GROUP, chunk_listings, ids_by_row
from pipeline.sharding.deltas.items_table import SCHEMA as LISTING_SCHEMA
from pipeline.sharding.format.index import SPLITS, SampleIndex, replace_columns
from pipeline.sharding.format.shard_locations import qualified_name
from pipeline.sharding.writing.numbering import Numbering, number_nodes, numbers_of
from pipeline.sharding.writing.plan import Plan
from pipeline.sharding.writing.scratch import Scratch
from pipeline.sharding.writing.shards import index_pieces

TOMBSTONES_FILE = "tombstones.parquet"
_BATCH_ROWS = 1 << 16


def reused_ids(delta: Delta) -> NDArray[np.int64]:
    """Ids, in the base's index, of the reused samples; sorted by split, then by id."""
    ids = np.sort(delta.listing.numbers["row"][delta.reused_rows])
    return ids[np.argsort(delta.base.index.splits[ids], kind="stable")]


def used_key_hashes(delta: Delta) -> NDArray[np.uint64]:
    """Hashes of the keys that new samples must not have: those of the reused samples; empty without new samples."""
    if not delta.new_rows.size:
        return np.empty(0, dtype=np.uint64)
    ids, keys = reused_ids(delta), delta.base.index.keys
    batches = (keys.take(pa.array(ids[start : start + _BATCH_ROWS])) for start in range(0, len(ids), _BATCH_ROWS))
    return np.fromiter((text_hash(key) for batch in batches for key in batch.to_pylist()), np.uint64, len(ids))


def delta_numbering(delta: Delta, plan: Plan, root: str) -> Numbering:
    """The numbering of the new samples, which continues the base's numbering.

    Args:
        root: name of the taxonomy's root; "" for none.
    """
    base, columns = delta.base, delta.columns
    used = {columns.family_names[code] for code in np.unique(columns.family[plan.rows]).tolist()}
    used |= {base.index.family_names[code] for code in np.unique(base.index.family_codes[reused_ids(delta)]).tolist()}
    names = tuple(sorted(used))
    nodes, taxonomy = number_nodes(columns, delta.labels, root, base.index.taxonomy)
    return Numbering(
        groups=_groups(delta, plan),
        nodes=nodes,
        families=numbers_of(columns.family_names, names),
        family_names=names,
        taxonomy=taxonomy,
        labels=delta.labels,
    )


def delta_index(scratch: Scratch, delta: Delta, plan: Plan, numbering: Numbering) -> SampleIndex:
    """The index of all live samples.

    Args:
        scratch: has the index rows of the new samples; the columns of the index are stored there while it is used.
    """
    index = delta.base.index
    ids = reused_ids(delta)
    used = np.unique(index.shards[ids])
    shard_number = np.full(len(index.shard_names), -1, dtype=np.int32)
    shard_number[used] = np.arange(len(plan.shard_names), len(plan.shard_names) + len(used))
    family_number = numbers_of(index.family_names, numbering.family_names)
    family_names = pa.array(numbering.family_names, pa.string())

    def reused_pieces(split: int) -> Iterator[pa.Table]:
        """Yields the base's samples of a split, in batches."""
        start, end = np.searchsorted(index.splits[ids], [split, split + 1]).tolist()
        for first in range(start, end, _BATCH_ROWS):
            some = ids[first : min(first + _BATCH_ROWS, end)]
            table = index.table.take(pa.array(some)).combine_chunks()
            families = pa.DictionaryArray.from_arrays(pa.array(family_number[index.family_codes[some]]), family_names)
            yield replace_columns(table, {"shard": pa.array(shard_number[index.shards[some]]), "source": families})

    def new_pieces(split: int) -> Iterator[pa.Table]:
        """Yields the new samples of a split, shard by shard; a shard contains samples of one split."""
        split_of_shard = plan.splits[plan.edges[:-1]]
        shards = np.flatnonzero(split_of_shard == split).tolist()
        return index_pieces(scratch, [plan.shard_names[shard] for shard in shards])

    return SampleIndex.assemble(
        chain.from_iterable(chain(reused_pieces(split), new_pieces(split)) for split in range(len(SPLITS))),
        scratch.columns("index"),
        shard_names=[
            *plan.shard_names,
            *(qualified_name(delta.base.artifact.name, index.shard_names[shard]) for shard in used.tolist()),
        ],
        label_names=delta.label_names,
        taxonomy=numbering.taxonomy,
    )


def delta_listing(scratch: Scratch, delta: Delta, plan: Plan, numbering: Numbering) -> Iterator[pa.Table]:
    """Yields the listing of the source's current items, in batches."""
    listing, ids = delta.listing, reused_ids(delta)
    splits = np.concatenate([delta.base.index.splits[ids], plan.splits])
    # The id of each sample in the new index, which is sorted by split, reused samples first.
    new_ids = np.empty(len(splits), dtype=np.int64)
    new_ids[np.argsort(splits, kind="stable")] = np.arange(len(splits))
    new_id_of_base_id = np.full(len(delta.base.index), -1, dtype=np.int64)
    new_id_of_base_id[ids] = new_ids[: len(ids)]
    id_of_row = ids_by_row(len(delta.columns), plan.rows, new_ids[len(ids) :])

    new_listings = chunk_listings(scratch, delta.columns, id_of_row, numbering)
    new = pa.concat_tables([LISTING_SCHEMA.empty_table(), *new_listings])
    for start in range(0, len(delta.readable), ROW_GROUP):
        batch = slice(start, start + ROW_GROUP)
        # A row of `new` for an item that was read, otherwise a row of the base's listing.
        read, rows = delta.was_read[batch], delta.rows[batch]
        base_ids = listing.numbers["row"][rows[~read]]
        known = listing.rows(
            rows[~read],
            row=np.where(base_ids >= 0, new_id_of_base_id[base_ids], -1),
            stamp_hash=delta.hashes.stamp_hash[delta.readable[batch][~read]],
        )
        order = np.empty(len(rows), dtype=np.int64)
        order[~read] = np.arange(len(known))
        order[read] = np.arange(len(known), len(rows))
        yield pa.concat_tables([known, new.take(pa.array(rows[read]))]).take(pa.array(order))


def write_tombstones(folder: Path, delta: Delta) -> list[str]:
    """Writes tombstones.parquet, one row per sample of the base that is gone; returns the reasons in the same order."""
    rows, reasons = delta.tombstones()
    index = delta.base.index
    ids = delta.listing.numbers["row"][rows]
    shards = [
        qualified_name(delta.base.artifact.name, index.shard_names[shard]) for shard in index.shards[ids].tolist()
    ]
    columns = {
        "key": index.keys.take(pa.array(ids)).cast(pa.large_string()),
        "shard": pa.array(shards, pa.string()),
        "name": delta.listing.names.take(pa.array(rows)),
        "why": pa.array(reasons, pa.string()),
    }
    pq.write_table(pa.table(columns), folder / TOMBSTONES_FILE, compression="zstd")
    return reasons


def is_empty(delta: Delta) -> bool:
    """Whether the delta adds and removes no samples."""
    return not delta.new_rows.size and len(delta.reused_rows) == len(delta.base.index)


def _groups(delta: Delta, plan: Plan) -> NDArray[np.int32]:
    """[samples] content groups of the new samples: the base's numbers for its groups, else the next numbers."""
    numbers = delta.listing.numbers
    stored = np.flatnonzero(numbers["row"] >= 0)
    base_hashes, first = np.unique(numbers["group_hash"][stored], return_index=True)
    number_of = delta.base.index.groups[numbers["row"][stored[first]]]
    hashes, first, hash_of_row = np.unique(delta.columns.group_hash[plan.rows], return_index=True, return_inverse=True)
    groups = np.empty(len(hashes), dtype=np.int32)
    nearest = np.searchsorted(base_hashes, hashes)
    known = nearest < len(base_hashes)
    known[known] = base_hashes[nearest[known]] == hashes[known]
    groups[known] = number_of[nearest[known]]
    unknown = np.flatnonzero(~known)
    unknown = unknown[np.argsort(first[unknown])]
    start = int(delta.base.index.groups.max(initial=-1)) + 1
    groups[unknown] = np.arange(start, start + len(unknown))
    return groups[hash_of_row]
