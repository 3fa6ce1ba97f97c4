"""tars.json: the tars outside the store that an index refers to, as they were when indexed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.sharding.format.file_addresses import FoundFile

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact

TARS_FILE = "tars.json"


def write_tars(output: Path, tars: Iterable[FoundFile]) -> None:
    """Writes tars.json: address, size and modification time (in S3: ETag) of each tar outside the store."""
    entries = [{"url": tar.url, "bytes": tar.size, "version": tar.mtime_or_etag} for tar in tars]
    (output / TARS_FILE).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def tars_outside_store(artifact: Artifact) -> list[FoundFile]:
    """The tars outside the store that an artifact refers to, as they were when indexed."""
    if TARS_FILE not in artifact.files:
        return []
    return [FoundFile(tar["url"], tar["bytes"], tar["version"]) for tar in json.loads(artifact.read(TARS_FILE))]
