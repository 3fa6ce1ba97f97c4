"""A stage: a function from a config and input artifacts to one artifact.

`run_stage` is the one rule everything rests on: if the artifact with the stage's key is committed it
is returned, else the stage runs in a folder aside and its output is committed at the end. Retries,
caching, lineage and re-runs follow from it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, TypeVar

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import Config, canonical_json, digest
from pipeline.errors import InputError, WorkError
from pipeline.owners import owned_name
from pipeline.progress import Progress, silent
from pipeline.whole_files import open_lock, take_lock, try_lock

# A lock's file goes with its folder when its holder ends; a new one is looked for so often.
_LOOKS = 200
_LOOK_S = 0.02

ConfigT = TypeVar("ConfigT", bound=Config, contravariant=True)


@dataclass(frozen=True)
class Workspace:
    """What a running stage works with.

    Attributes:
        output: empty local folder; what is in it when the stage returns becomes the artifact.
        scratch: local folder that survives a killed run of the same key, e.g. for checkpoints.
        store: the artifact store; a worker on another machine opens `store.storage.url` itself.
        key: the key of the artifact being made.
        progress: where to report.
    """

    output: Path
    scratch: Path
    store: ArtifactStore
    key: str
    progress: Progress


class NothingNew(Exception):
    """Raised by a stage whose result an input is already; nothing is committed, and `run_stage` gives that input."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact.uri)
        self.artifact = artifact


class Stage(Protocol[ConfigT]):
    """One step of the pipeline. Raise `version` when the same inputs give another result."""

    name: ClassVar[str]
    version: ClassVar[int]

    def run(self, config: ConfigT, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Fills `work.output`; returns the summary: headline numbers and words, plain JSON values."""


def stage_key(stage: Stage[Any], config: Config, inputs: Mapping[str, Artifact]) -> str:
    """The key of the artifact that these would give."""
    return digest(
        {
            "stage": stage.name,
            "version": stage.version,
            "config": config,
            "inputs": {name: artifact.uri for name, artifact in inputs.items()},
        }
    )


def run_stage(
    stage: Stage[Any],
    config: Config,
    inputs: Mapping[str, Artifact],
    *,
    store: ArtifactStore,
    progress: Progress = silent,
) -> Artifact:
    """The stage's artifact for this config and these inputs: found if committed, else made.

    A stage that finds nothing to add to one of its inputs gives that input.

    Two processes on one machine that want the same artifact wait for each other; on two machines
    both work and one wins.

    Raises:
        InputError: the store cannot be written, or the stage refused its input.
        WorkError: the stage failed; its scratch folder is kept for the next run.
    """
    key = stage_key(stage, config, inputs)
    uri = f"{stage.name}/{key}"
    place = store.work / uri
    found = store.find(uri)
    if found is not None:
        _remove_unless_held(place)
        return replace(found, cached=True)
    store.storage.check_writable()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{place.parent}: cannot be made ({error.strerror}), and work in progress lies there; set TUTELAGE_STORE, "
            "or for a store on S3 TUTELAGE_WORK, to a folder that can be written"
        ) from None
    with _locked(place / "lock", progress):
        found = store.find(uri)
        if found is not None:
            shutil.rmtree(place, ignore_errors=True)
            return replace(found, cached=True)
        work = Workspace(place / "output", place / "scratch", store, key, progress)
        shutil.rmtree(work.output, ignore_errors=True)
        work.output.mkdir()
        work.scratch.mkdir(exist_ok=True)
        started = time.monotonic()
        try:
            summary = stage.run(config, inputs, work)
        except NothingNew as found_nothing:
            shutil.rmtree(place, ignore_errors=True)
            return replace(found_nothing.artifact, cached=True)
        artifact = store.commit(
            stage.name,
            key,
            work.output,
            config=json.loads(canonical_json(config)),
            inputs={name: artifact.uri for name, artifact in inputs.items()},
            summary=summary,
            seconds=time.monotonic() - started,
            origin={"stage_version": stage.version, **code_origin(), "committed": round(time.time(), 3)},
        )
        shutil.rmtree(place, ignore_errors=True)
        return artifact


@cache
def code_origin() -> dict[str, str]:
    """The version of Tutelage and, in a git checkout, the commit (with "+" if files were changed)."""
    try:
        origin = {"tutelage": version("tutelage")}
    except PackageNotFoundError:
        origin = {"tutelage": "unknown"}
    here = Path(__file__).resolve().parents[1]
    if (here / ".git").exists():
        describe = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        try:
            answer = subprocess.run(describe, capture_output=True, text=True, check=False)
        except OSError:  # There is no git on this machine.
            return origin
        if answer.returncode == 0:
            origin["commit"] = answer.stdout.strip()
    return origin


def _remove_unless_held(place: Path) -> None:
    """A run that was killed after its commit may have left gigabytes there; one that lives may just be at its end."""
    with suppress(OSError, WorkError), open_lock(place / "lock") as file:
        if try_lock(file):
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Holds a file lock; it goes with the process, so a killed holder never blocks the next."""
    for _ in range(_LOOKS):
        file = _lock_taken(path, progress)
        if file is not None:
            break
        time.sleep(_LOOK_S)
    else:
        raise WorkError(f"{path.parent}: is no folder that work can be done in; remove what lies there, run again")
    with file:
        # For the sweep (left_over.py): where locks of other machines are not seen, it goes by this.
        file.truncate(0)
        file.write(owned_name().encode())
        file.flush()
        yield


def _lock_taken(path: Path, progress: Progress) -> IO[bytes] | None:
    """The locked file; None if the holder before us removed it with its folder, as it does at its end."""
    with suppress(FileExistsError):
        path.parent.mkdir()
    with suppress(FileNotFoundError), ExitStack() as stack:
        file = stack.enter_context(open_lock(path))
        take_lock(file, waiting=lambda: progress(note="waiting for another process that makes the same artifact"))
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
            stack.pop_all()
            return file
    return None
