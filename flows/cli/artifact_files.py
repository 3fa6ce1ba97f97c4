"""`tutelage artifacts open` and `get`: opens an artifact's page, and copies its files."""

from __future__ import annotations

import os
import shutil
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from flows.cli.artifact_commands import commit_time, open_artifacts
from flows.preflight import open_store
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.atomic_files import atomic_write
from pipeline.errors import InputError, listed

_REPORTS = "run-report"


def open_page(reference: str | None) -> int:
    """Prints the path of an artifact's page, and opens it in the browser if there is a display.

    Args:
        reference: STAGE/KEY; None: the latest report.
    Raises:
        InputError: there is no such artifact, or it has no page.
    """
    store = open_store()
    artifact = store.resolve(reference) if reference is not None else _latest_report(store)
    pages = [name for name in sorted(artifact.files) if name.endswith(".html")]
    if not pages:
        raise InputError(f"{artifact.name}: has no page; give a report or a data set, or see `tutelage artifacts get`")
    path = artifact.path(pages[0])
    print(path)
    if sys.stdout.isatty() and _has_display():
        webbrowser.open(path.absolute().as_uri())
    return 0


def copy_files(reference: str, names: Sequence[str], out: Path | None) -> int:
    """Copies files of an artifact, each compared with its manifest; prints the paths of the copies.

    Args:
        names: files of the artifact; empty: all.
        out: the folder for the copies; None: STAGE-KEY here.
    Raises:
        InputError: there is no such artifact or file, or a copy would replace a file.
        DamagedError: a file is missing, or differs from what was committed.
    """
    artifact = open_store().resolve(reference)
    folder = out if out is not None else Path(f"{artifact.stage}-{artifact.key[:8]}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder with --out")
    targets = {name: folder / name for name in names or sorted(artifact.files)}
    sources = {name: artifact.path(name) for name in targets}
    for name in targets:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{artifact.name}: the file name {name!r} leaves its folder; nothing was copied")
    existing = [str(target) for target in targets.values() if target.exists()]
    if existing:
        raise InputError(f"{listed(existing)}: exists already; remove it, or give another folder with --out")
    for name, target in targets.items():
        with atomic_write(target, durable=False) as temporary:
            shutil.copyfile(sources[name], temporary)
        print(target)
    return 0


def _latest_report(store: ArtifactStore) -> Artifact:
    reports, _ = open_artifacts(store, store.names(_REPORTS))
    if not reports:
        raise InputError(f"{store.storage.url}: has no report; `tutelage run lifecycle` writes one")
    return max(reports, key=commit_time)


def _has_display() -> bool:
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
