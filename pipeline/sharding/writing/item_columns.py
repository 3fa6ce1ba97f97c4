"""The columns of a source's readable items, for the chunk tables, the plan (plan.py) and items.parquet."""

from __future__ import annotations

import pyarrow as pa

_TEXT = pa.large_string()

PLAN_COLUMNS = {
    "hash_high": pa.uint64(),
    "hash_low": pa.uint64(),
    "difference_hash": pa.uint64(),
    "label": pa.int32(),
    "family": pa.int16(),
    "node": pa.int32(),
    "given_split": pa.int8(),
    "group_hash": pa.uint64(),
    "has_named_group": pa.int8(),
    "split_draw": pa.float64(),
    "captions_hash": pa.uint64(),
    "key_hash": pa.uint64(),
    "sample_bytes": pa.int64(),
}
"""From these numbers of each image, the plan assigns it to a split and a shard; `chunks.PlanColumns` describes them."""

SHARD_COLUMNS = {
    "key": _TEXT,
    "extension": pa.int8(),
    "start": pa.int64(),
    "tar": pa.int32(),
    "length": pa.int32(),
    "width": pa.int32(),
    "height": pa.int32(),
    "group": _TEXT,
    "captions": pa.large_list(_TEXT),
    "notes": _TEXT,
}
"""What the task that writes a shard needs in addition."""

ITEM_COLUMNS = {
    "name": _TEXT,
    "name_hash": pa.uint64(),
    "metadata_hash": pa.uint64(),
    "stamp_hash": pa.uint64(),
}
"""From these a later run detects that an item has changed; see `item_hashes`."""
