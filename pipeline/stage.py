"""A stage: a function from a config and input artifacts to one artifact.

`run_stage` returns the artifact with the stage's key if it is committed; else it runs the stage in a work folder and
commits the output at the end. Retries, caching, lineage and re-runs follow from this rule.
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
from pipeline.atomic_files import atomic_write
from pipeline.config import Config, canonical_json, digest
from pipeline.errors import InputError, WorkError
from pipeline.file_lock import open_lock, take_lock, try_lock
from pipeline.owners import owned_name
from pipeline.progress import Progress, silent

# A lock file is removed with its folder when its holder ends; then the lock is tried again.
_LOCK_TRIES = 200
_LOCK_PAUSE_S = 0.02
_REQUEST = "request.json"  # the config and the inputs of an unfinished artifact

ConfigT = TypeVar("ConfigT", bound=Config, contravariant=True)


@dataclass(frozen=True)
class Workspace:
    """The folders and services of a running stage.

    Attributes:
        output: empty local folder; its content at the end of the stage becomes the artifact.
        scratch: local folder that survives a killed run of the same key, e.g. for checkpoints.
        store: the artifact store; a worker on another machine opens `store.storage.url` itself.
        key: the key of the artifact that the stage builds.
        progress: callback for progress reports.
    """

    output: Path
    scratch: Path
    store: ArtifactStore
    key: str
    progress: Progress


class NothingNew(Exception):
    """Raised by a stage if its result equals an input; nothing is committed, and `run_stage` returns that input."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact.name)
        self.artifact = artifact


class Stage(Protocol[ConfigT]):
    """One step of the pipeline. Increment `version` when the same inputs give another result."""

    name: ClassVar[str]
    version: ClassVar[int]

    def run(self, config: ConfigT, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Writes the result to `work.output`; returns the summary: JSON values, "headline" for the result in words."""


def stage_key(stage: Stage[Any], config: Config, inputs: Mapping[str, Artifact]) -> str:
    """The key of the artifact of this stage, config and inputs."""
    return key_of_names(stage, config, {name: artifact.name for name, artifact in inputs.items()})


def key_of_names(stage: Stage[Any], config: Config, inputs: Mapping[str, str]) -> str:
    """The same from the inputs' names STAGE/KEY, for artifacts that do not exist yet."""
    return digest(
        {
            "stage": stage.name,
            "version": stage.version,
            "config": config,
            "inputs": dict(inputs),
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
    """The stage's artifact for this config and these inputs: from the store if committed, else built.

    A stage that has nothing to add to one of its inputs returns that input.

    Of two processes on one machine that need the same artifact, one waits for the other; on two machines both
    run the stage and the first commit is used.

    Raises:
        InputError: the store cannot be written, or the stage refused its input.
        WorkError: the stage failed; its scratch folder remains for the next run.
    """
    key = stage_key(stage, config, inputs)
    artifact_name = f"{stage.name}/{key}"
    work_folder = store.work / artifact_name
    existing = store.find(artifact_name)
    if existing is not None:
        _remove_unless_held(work_folder)
        return replace(existing, cached=True)
    store.storage.check_writable()
    try:
        work_folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{work_folder.parent}: cannot be created ({error.strerror}) for work in progress; set TUTELAGE_STORE, "
            "or for a store on S3 TUTELAGE_WORK, to a folder that can be written"
        ) from None
    with _locked(work_folder / "lock", progress):
        existing = store.find(artifact_name)
        if existing is not None:
            shutil.rmtree(work_folder, ignore_errors=True)
            return replace(existing, cached=True)
        work = Workspace(work_folder / "output", work_folder / "scratch", store, key, progress)
        shutil.rmtree(work.output, ignore_errors=True)
        work.output.mkdir()
        work.scratch.mkdir(exist_ok=True)
        _record_request(work_folder, config, inputs)
        started = time.monotonic()
        try:
            summary = stage.run(config, inputs, work)
        except NothingNew as found_nothing:
            shutil.rmtree(work_folder, ignore_errors=True)
            return replace(found_nothing.artifact, cached=True)
        artifact = store.commit(
            stage.name,
            key,
            work.output,
            config=json.loads(canonical_json(config)),
            inputs={name: artifact.name for name, artifact in inputs.items()},
            summary=summary,
            seconds=time.monotonic() - started,
            origin={"stage_version": stage.version, **code_origin(), "committed": round(time.time(), 3)},
        )
        shutil.rmtree(work_folder, ignore_errors=True)
        return artifact


def _record_request(work_folder: Path, config: Config, inputs: Mapping[str, Artifact]) -> None:
    names = {name: artifact.name for name, artifact in inputs.items()}
    request = {"config": config.model_dump(mode="json"), "inputs": names}
    with atomic_write(work_folder / _REQUEST, durable=False) as file:
        file.write_text(json.dumps(request))


def unfinished_names(store: ArtifactStore) -> list[str]:
    """STAGE/KEY of the artifacts that were begun on this machine and are not committed."""
    return sorted("/".join(file.parts[-3:-1]) for file in store.work.glob(f"*/*/{_REQUEST}"))


def unfinished_request(store: ArtifactStore, artifact_name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The whole config, and the inputs' STAGE/KEY by name, of the last run of an artifact that is not committed.

    Raises:
        InputError: they cannot be read.
    """
    file = store.work / artifact_name / _REQUEST
    try:
        request = json.loads(file.read_text())
        return request["config"], request["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{file}: cannot be read; run the flow of {artifact_name} again, which writes it") from None


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
        except OSError:  # git is not installed.
            return origin
        if answer.returncode == 0:
            origin["commit"] = answer.stdout.strip()
    return origin


def _remove_unless_held(work_folder: Path) -> None:
    """Removes the work folder of a run that was killed after its commit, unless another process holds its lock."""
    with suppress(OSError, WorkError), open_lock(work_folder / "lock") as file:
        if try_lock(file):
            shutil.rmtree(work_folder, ignore_errors=True)


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Holds a file lock; the system releases it with the process, so a killed holder does not block others."""
    for _ in range(_LOCK_TRIES):
        file = _try_to_lock(path, progress)
        if file is not None:
            break
        time.sleep(_LOCK_PAUSE_S)
    else:
        raise WorkError(f"{path.parent}: cannot be used as a work folder; remove what is there, then run again")
    with file:
        # left_over.py reads the owner if it cannot see the locks of other machines.
        file.truncate(0)
        file.write(owned_name().encode())
        file.flush()
        yield


def _try_to_lock(path: Path, progress: Progress) -> IO[bytes] | None:
    """The locked file; None if its previous holder removed the file with its folder, as it does at its end."""
    with suppress(FileExistsError):
        path.parent.mkdir()
    with suppress(FileNotFoundError), ExitStack() as stack:
        file = stack.enter_context(open_lock(path))
        take_lock(file, waiting=lambda: progress(note="waiting for another process that builds the same artifact"))
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
            stack.pop_all()
            return file
    return None
