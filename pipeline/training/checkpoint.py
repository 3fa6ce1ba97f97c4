"""Checkpoints: the complete state from which a training resumes, written atomically.

A checkpoint is two objects in a Storage: step-N.pt (tensors; torch.load(weights_only=True) reads it) and
step-N.json, written last, with the size and SHA-256 of the first. An incomplete or corrupted checkpoint
does not match its JSON and is skipped in favour of the one before it. The newest two are retained.

With FSDP, each rank writes a file in place of step-N.pt (fsdp/checkpoint_files.py). Either kind can be read with any
number of workers.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from pipeline.errors import WorkError, first_line
from pipeline.owners import TEMPORARY, owned_name
from pipeline.storage import Storage
from pipeline.storage.sha256 import file_sha256
from pipeline.training.fsdp.checkpoint_files import SUFFIX, parts_of, read_whole

_log = logging.getLogger("tutelage.training")

ChoosePart = Callable[[Collection[str], Mapping[str, Any]], str]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after `step` steps.

    Attributes:
        step: optimiser steps done.
        tensors: state dicts: "model", "optimizer" and, if they are on, "average" and "best" (of early stopping).
        notes: JSON values: "policy" (the sampler's state), "rows" (metrics so far), "seconds" (training time so far),
            "times" (the same by part), "quarantine" (damaged samples so far), "exported" (state of ExportedWeights),
            "skipped" (steps without an update) and, if they are on, "early_stopping" and "loss_scale" (their states).
    """

    step: int
    tensors: dict[str, Any]
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training.

    Args:
        storage: contains the checkpoints.
        prefix: their folder in the storage.
        keep: number of newest checkpoints to retain.
    """

    KEPT: ClassVar[int] = 2
    WRITABLE: ClassVar[bool] = True  # else a training reads them only

    def __init__(self, storage: Storage, prefix: str, keep: int = KEPT) -> None:
        self.storage = storage
        self.prefix = prefix.rstrip("/")
        self.keep = keep

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, which exists once its JSON is written, then removes older ones.

        Raises:
            OSError, WorkError: the disk is full, or the storage cannot be written or does not answer. The checkpoint
                does not exist; of its tensors nothing is left that counts as one.
        """
        aside = self.aside()
        try:
            _save_tensors(checkpoint.tensors, aside)
            described = {"size": aside.stat().st_size, "sha256": file_sha256(aside)}
            self.storage.upload(aside, f"{self.stem(checkpoint.step)}.pt")
        finally:
            aside.unlink(missing_ok=True)
        try:
            self.commit(checkpoint, described)
        except (OSError, WorkError):
            with suppress(OSError, WorkError):
                self.storage.delete(f"{self.stem(checkpoint.step)}.pt")
            raise
        self.remove_older()

    def commit(self, checkpoint: Checkpoint, described: dict[str, Any]) -> None:
        """Writes the JSON of a checkpoint whose files are stored.

        Args:
            described: the files, as values of the JSON.
        """
        entry = {"step": checkpoint.step, **described, "notes": checkpoint.notes}
        self.storage.write(f"{self.stem(checkpoint.step)}.json", json.dumps(entry).encode())

    def remove_older(self) -> None:
        """Removes all but the newest checkpoints, and the parts of sharded ones that a killed run did not complete.

        What cannot be removed is only logged.
        """
        try:
            self._remove_older()
        except (OSError, WorkError) as error:
            _log.warning("%s: older checkpoints remain (%s); the next one removes them", self.prefix, error)

    def _remove_older(self) -> None:
        paths = self._paths()
        entries = _newest_first(paths)
        for path in entries[self.keep :]:
            # The JSON is deleted first: without it the tensors no longer count as a checkpoint.
            self.storage.delete(path)
            self.storage.delete(f"{path.removesuffix('.json')}.pt")
        kept = {path.removesuffix(".json") for path in entries[: self.keep]}
        for path in paths:
            if path.endswith(SUFFIX) and path.rsplit(".", 2)[0] not in kept:
                self.storage.delete(path)

    def save_beside(self, values: dict[str, Any], path: str) -> None:
        """Writes tensors that are no checkpoint to `path`, for torch.load; a thread may save a checkpoint meanwhile."""
        aside = self.aside("beside")
        try:
            _save_tensors(values, aside)
            self.storage.upload(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """The steps of the checkpoints, newest first; they may be damaged."""
        return [step_of(path) for path in self.entries()]

    def newest(self, part: ChoosePart | None = None) -> Checkpoint | None:
        """The newest intact checkpoint, with whole tensors, or None.

        Args:
            part: chooses, from the parts and the notes of a sharded checkpoint, the only one to read; None: all.
        """
        for path in self.entries():
            try:
                return self.read(path, part)
            except (OSError, ValueError, KeyError) as error:
                _log.warning("%s: skipped, it is not whole (%s)", path, error)
        return None

    def entry(self, path: str) -> dict[str, Any]:
        """The content of a checkpoint's JSON."""
        entry: dict[str, Any] = json.loads(self.storage.read(path))
        return entry

    def read(self, path: str, part: ChoosePart | None = None, *, mapped: bool = False) -> Checkpoint:
        """The checkpoint with this JSON, with whole tensors.

        Args:
            part: see `newest`.
            mapped: map the tensors of step-N.pt into memory, so that only what is used is read.
        Raises:
            OSError, ValueError, KeyError: it is not whole.
        """
        entry = self.entry(path)
        if "files" in entry:
            parts = parts_of(entry)
            wanted = parts if part is None else {part(parts, entry["notes"])}
            tensors = read_whole(self.storage, path.removesuffix(".json"), entry, wanted, self.aside)
            return Checkpoint(entry["step"], tensors, entry["notes"])
        stored = f"{path.removesuffix('.json')}.pt"
        local = self.storage.local_path(stored)
        aside = None if local is not None else self.aside()
        try:
            if aside is not None:
                self.storage.download(stored, aside)
            file = local if local is not None else aside
            assert file is not None
            if file.stat().st_size != entry["size"] or file_sha256(file) != entry["sha256"]:
                raise ValueError("its bytes are not those that its JSON promises")
            tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        finally:
            if aside is not None:
                aside.unlink(missing_ok=True)
        return Checkpoint(entry["step"], tensors, entry["notes"])

    def stem(self, step: int) -> str:
        """The path of the files of a checkpoint, without their suffixes."""
        return f"{self.prefix}/step-{step:09d}"

    def entries(self) -> list[str]:
        """Paths of the JSON files, newest first."""
        return _newest_first(self._paths())

    def aside(self, kind: str = "checkpoint") -> Path:
        """A temporary file, on the storage's disk if that is local; of each kind, a kill leaves at most one."""
        folder = self.storage.local_path(f"{self.prefix}/.aside")
        if folder is None:
            return Path(tempfile.gettempdir()) / f"{TEMPORARY}{owned_name()}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{kind}-{os.getpid()}"

    def _paths(self) -> list[str]:
        return [info.path for info in self.storage.list(self.prefix)]


def _newest_first(paths: list[str]) -> list[str]:
    """The JSON files among the paths, newest first."""
    return sorted((path for path in paths if path.endswith(".json")), reverse=True)


def step_of(path: str) -> int:
    """The step of a checkpoint's JSON file."""
    return int(path.removesuffix(".json").rpartition("-")[2])


def _save_tensors(values: dict[str, Any], file: Path) -> None:
    """torch.save, which on a full disk raises a RuntimeError about a position in its file."""
    try:
        torch.save(values, file)
        return
    except RuntimeError as error:
        reason = first_line(error)
    # Not within `except`: the traceback would keep torch's file open, and with it the space of the deleted file.
    free = shutil.disk_usage(file.parent).free
    raise OSError(f"{file.parent} has {free / 2**20:,.0f} MiB free: {reason}")
