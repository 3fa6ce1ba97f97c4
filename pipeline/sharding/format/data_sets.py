"""Which rows of a mixture's index belong to which data set; stored in the metadata of the Arrow schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_KEY = "data_sets"


@dataclass(frozen=True, slots=True)
class DataSet:
    """The rows [start, stop) of an index, all of one data set."""

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def data_sets_of(metadata: Mapping[bytes, bytes]) -> tuple[DataSet, ...]:
    """The data sets in a schema's metadata, in the order of their rows; empty for an index of one data set."""
    entries = json.loads(metadata.get(_KEY.encode(), b"[]"))
    return tuple(DataSet(entry["name"], entry["first"], entry["last"]) for entry in entries)


def data_sets_metadata(data_sets: Sequence[DataSet]) -> dict[str, str]:
    """The inverse of `data_sets_of`; {} for an index of one data set, which has no such entry in its schema."""
    entries = [{"name": data_set.name, "first": data_set.start, "last": data_set.stop} for data_set in data_sets]
    return {_KEY: json.dumps(entries)} if entries else {}
