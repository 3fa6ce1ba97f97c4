"""The files that the tasks of one run share: written aside and renamed, so that a file that is there is whole.

They lie in the stage's scratch folder, which outlives a killed run and is found by the next run of the same key. A
task that was killed leaves at most a file whose name starts with a dot.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import WorkError

_MARK = "sharding"


@dataclass(frozen=True)
class Scratch:
    """The folder, and what is called how in it."""

    folder: Path

    def prepare(self) -> None:
        """Makes the folders, and removes what killed tasks left."""
        for folder in (self.chunks, self.shards):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*"):
                left.unlink(missing_ok=True)
        (self.folder / _MARK).touch()

    def check(self) -> None:
        """Refuses to work where the folder is not seen: on another machine of the cluster.

        Raises:
            WorkError: it is not there.
        """
        if not (self.folder / _MARK).exists():
            raise WorkError(
                f"{self.folder}: not seen by a task on machine {os.uname().nodename}; with runner=ray on several "
                "machines TUTELAGE_STORE, or for a store on S3 TUTELAGE_WORK, must be a folder that all of them see"
            )

    @property
    def chunks(self) -> Path:
        return self.folder / "chunks"

    @property
    def shards(self) -> Path:
        return self.folder / "shards"

    def columns(self, name: str) -> Path:
        """A folder for columns that are mapped (mapped_columns.py): a run's own, of no use to the next."""
        return self.folder / "columns" / name

    def spool(self, chunk: int) -> Path:
        """The encoded images of a chunk, one after another."""
        return self.chunks / f"{chunk:06d}.spool"

    def table(self, chunk: int) -> Path:
        """What is known of the images of a chunk; it is written last."""
        return self.chunks / f"{chunk:06d}.arrow"

    def tar(self, shard: str) -> Path:
        """A shard, by its name in the artifact."""
        return self.folder / shard

    def part(self, shard: str) -> Path:
        """A shard's part of the index; it is written last."""
        return self.tar(shard).with_suffix(".arrow")
