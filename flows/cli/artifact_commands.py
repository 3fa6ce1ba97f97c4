"""`tutelage artifacts`: list, show, verify."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from rich.table import Table

from flows.cli.console import Console
from flows.preflight import open_store
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import TutelageError
from pipeline.headline import headline
from pipeline.printable import printable
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.shard_locations import ShardLocations


def list_artifacts(stage: str | None, *, as_json: bool) -> int:
    """Prints one line for each committed artifact."""
    store = open_store()
    artifacts, wrong = _readable(store, store.uris(stage))
    if as_json:
        rows = [
            {
                "artifact": artifact.uri,
                "seconds": artifact.seconds,
                "bytes": _size(artifact.manifest),
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
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    for artifact in artifacts:
        megabytes = f"{_size(artifact.manifest) / 1e6:.1f}"
        result = headline(artifact.summary)
        table.add_row(f"{artifact.stage}/{artifact.key[:12]}", megabytes, f"{artifact.seconds:.1f}", result)
    if artifacts:
        Console().print(table)
    return _print_errors(wrong)


def show_artifact(reference: str) -> int:
    """An artifact's manifest and address, as JSON."""
    artifact = open_store().resolve(reference)
    print(json.dumps({"url": artifact.url, **artifact.manifest}, indent=1, sort_keys=True))
    return 0


def verify_artifacts(references: Sequence[str]) -> int:
    """Compares every file with its manifest; returns 1 if any is missing or changed."""
    store = open_store()
    artifacts, lines = _readable(store, [store.uri(reference) for reference in references] or store.uris())
    damaged = len(lines)
    _print_errors(lines)
    for artifact in artifacts:
        wrong = artifact.verify() or _missing_artifacts(artifact)
        for line in wrong:
            print(printable(line), file=sys.stderr)
        damaged += bool(wrong)
    files = sum(len(artifact.files) for artifact in artifacts)
    print(
        f"{len(artifacts) + len(lines)} artifacts, {files} files: "
        + (f"{damaged} damaged" if damaged else "all as committed")
    )
    return 1 if damaged else 0


def _readable(store: ArtifactStore, uris: Iterable[str]) -> tuple[list[Artifact], list[str]]:
    """The artifacts with a readable manifest, and an error line for each of the others."""
    artifacts, wrong = [], []
    for uri in uris:
        try:
            artifact = store.find(uri)
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
    """Lines about missing artifacts that hold shards of this delta or mixture."""
    if "index.arrow" not in artifact.files:
        return []
    return ShardLocations(artifact, SampleIndex.open(artifact).shard_names).missing_owners()


def _size(manifest: dict[str, dict[str, dict[str, int]]]) -> int:
    return sum(entry["size"] for entry in manifest["files"].values())
