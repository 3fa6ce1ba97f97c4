"""`tutelage artifacts`: list, show, verify."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.preflight import open_store
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.counted import counted
from pipeline.errors import TutelageError, UnknownNameError
from pipeline.headline import headline
from pipeline.printable import printable
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.shard_locations import ShardLocations

# Name in the line "committed" -> key of the manifest's "origin".
_ORIGIN = {"tutelage": "tutelage", "commit": "commit", "stage version": "stage_version"}
_FILES = 20  # files that `show` lists
_VALUE_CHARS = 200


def list_artifacts(stage: str | None, *, as_json: bool) -> int:
    """Prints one line for each committed artifact, the newest last.

    Raises:
        UnknownNameError: there are artifacts, but none of this stage.
    """
    store = open_store()
    artifact_names = list(store.names(stage))
    if stage is not None and not artifact_names:
        stages = {artifact_name.partition("/")[0] for artifact_name in store.names()}
        if stages:
            raise UnknownNameError("stage", stage, stages)
    artifacts, wrong = open_artifacts(store, artifact_names)
    artifacts.sort(key=commit_time)
    if as_json:
        rows = [
            {
                "artifact": artifact.name,
                "committed": _date(artifact, "T%H:%M:%SZ"),
                "seconds": artifact.seconds,
                "bytes": _size(artifact),
                "summary": artifact.summary,
            }
            for artifact in artifacts
        ]
        print(json.dumps(rows, indent=1))
        return _print_errors(wrong)
    if not artifacts and not wrong:
        print(f"no artifacts in {store.storage.url}")
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("artifact", no_wrap=True)
    table.add_column("date (UTC)", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    # The only column that a narrow terminal shortens: a name that is cut names nothing.
    table.add_column("result")
    for artifact in artifacts:
        table.add_row(
            f"{artifact.stage}/{artifact.key[:8]}",
            _date(artifact, " %H:%M"),
            decimal(_size(artifact)),
            _duration(artifact.seconds),
            # In a terminal, one line per artifact: `show` prints the whole result.
            Text(headline(artifact.summary), no_wrap=True, overflow="ellipsis"),
        )
    if artifacts:
        Console().print(table)
    return _print_errors(wrong)


def show_artifact(reference: str, *, as_json: bool) -> int:
    """Prints an artifact's result, inputs and files, or its manifest as JSON."""
    artifact = open_store().resolve(reference)
    if as_json:
        print(json.dumps({"url": artifact.url, **artifact.manifest}, indent=1, sort_keys=True))
        return 0
    origin = artifact.manifest.get("origin", {})
    written_by = ", ".join(
        f"{name} {str(origin[key])[:12]}" for name, key in _ORIGIN.items() if origin.get(key) is not None
    )
    inputs = [f"{name}: {artifact_name}" for name, artifact_name in sorted(artifact.manifest["inputs"].items())]
    summary = [f"{name}: {_short(value)}" for name, value in artifact.summary.items() if name != "headline"]
    files = [f"{name}  {decimal(entry.size)}" for name, entry in sorted(artifact.files.items())]
    rows = {
        "result": [headline(artifact.summary)],
        "summary": summary,
        "inputs": inputs,
        "committed": [f"{_date(artifact, ' %H:%M:%S UTC')} after {_duration(artifact.seconds)}, by {written_by}"],
        "files": [*files[:_FILES], *([f"... {len(files) - _FILES:,} more"] if len(files) > _FILES else [])],
    }
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, lines in rows.items():
        if lines:
            table.add_row(name, "\n".join(lines))
    console = Console()
    console.print(artifact.name, style="bold", soft_wrap=True)
    console.print(artifact.url, style="dim", soft_wrap=True)
    console.print(table)
    console.print("the config, and the SHA-256 of each file: add --json", style="dim")
    return 0


def verify_artifacts(references: Sequence[str]) -> int:
    """Compares every file with its manifest; returns 1 if any is missing or changed."""
    store = open_store()
    artifacts, lines = open_artifacts(store, [store.full_name(reference) for reference in references] or store.names())
    damaged = len(lines)
    _print_errors(lines)
    for artifact in artifacts:
        wrong = artifact.verify() or _missing_artifacts(artifact)
        for line in wrong:
            print(printable(line), file=sys.stderr)
        damaged += bool(wrong)
    files = sum(len(artifact.files) for artifact in artifacts)
    print(
        f"{counted(len(artifacts) + len(lines), 'artifact')}, {counted(files, 'file')}: "
        + (f"{damaged} damaged" if damaged else "all as committed")
    )
    return 1 if damaged else 0


def open_artifacts(store: ArtifactStore, artifact_names: Iterable[str]) -> tuple[list[Artifact], list[str]]:
    """The artifacts with a readable manifest, and an error line for each of the others."""
    artifacts, wrong = [], []
    for artifact_name in artifact_names:
        try:
            artifact = store.find(artifact_name)
        except TutelageError as error:
            wrong.append(str(error))
            continue
        if artifact is not None:
            artifacts.append(artifact)
    return artifacts, wrong


def _print_errors(wrong: Sequence[str]) -> int:
    for line in wrong:
        print(f"tutelage: {printable(line)}", file=sys.stderr)
    return 1 if wrong else 0


def _missing_artifacts(artifact: Artifact) -> list[str]:
    """An error line for each missing artifact that stores shards of this delta or mixture."""
    if "index.arrow" not in artifact.files:
        return []
    return ShardLocations(artifact, SampleIndex.open(artifact).shard_names).missing_owner_errors()


def commit_time(artifact: Artifact) -> float:
    """Unix time of an artifact's commit; 0 if its manifest does not have it."""
    time = artifact.manifest.get("origin", {}).get("committed", 0.0)
    return float(time) if isinstance(time, int | float) else 0.0


def _date(artifact: Artifact, time: str) -> str:
    """Date of an artifact's commit in UTC, then `time`, a strftime format; "-" if it is not known."""
    seconds = commit_time(artifact)
    return datetime.fromtimestamp(seconds, UTC).strftime(f"%Y-%m-%d{time}") if seconds else "-"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _size(artifact: Artifact) -> int:
    """Bytes of all files."""
    return sum(entry.size for entry in artifact.files.values())


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _VALUE_CHARS else f"{text[: _VALUE_CHARS - 3]}..."
