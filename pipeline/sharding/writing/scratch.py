"""The files that the tasks of one run share: written to a temporary name and renamed, so every file is complete.

They are in the stage's scratch folder, which survives a killed run and is reused by the next run with the same key. A
killed task leaves at most one file, with a name that starts with a dot.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import WorkError

# Name of an empty file that `prepare` creates and `check` looks for.
_PREPARED_FILE = "sharding"


@dataclass(frozen=True)
class Scratch:
    """The scratch folder, and the paths of the files in it."""

    folder: Path

    def prepare(self) -> None:
        """Creates the folders, and removes files that killed tasks left."""
        for folder in (self.chunks, self.shards):
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(".*"):
                leftover.unlink(missing_ok=True)
        (self.folder / _PREPARED_FILE).touch()

    def check(self) -> None:
        """Checks that this machine of the cluster sees the folder.

        Raises:
            WorkError: the folder is missing or not prepared.
        """
        if not (self.folder / _PREPARED_FILE).exists():
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
        """A folder for memory-mapped columns (mapped_columns.py); not reused by the next run."""
        return self.folder / "columns" / name

    def spool(self, chunk: int) -> Path:
        """The encoded images of a chunk, one after another."""
        return self.chunks / f"{chunk:06d}.spool"

    def table(self, chunk: int) -> Path:
        """The table of a chunk's images; written last."""
        return self.chunks / f"{chunk:06d}.arrow"

    def tar(self, shard: str) -> Path:
        """A shard, by its name in the artifact."""
        return self.folder / shard

    def index_piece(self, shard: str) -> Path:
        """The index rows of a shard; written last."""
        return self.tar(shard).with_suffix(".arrow")
