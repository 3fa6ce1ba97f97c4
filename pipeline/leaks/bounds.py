"""The bounds of a leak check: how large a share of an evaluation split may be in the training data.

The finding is an artifact, and the bounds are not part of its key. So the check is held after the artifact is there,
made or found: listing and pictures are at hand for whoever looks, and the same run stops again in a second.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pipeline.artifacts import Artifact
from pipeline.config import Config, unkeyed
from pipeline.errors import WorkError
from pipeline.leaks.search import KINDS

SHEET, LISTING = "leaks.png", "leaks.parquet"
_WORDS = {
    "exact": "are also training images",
    "pixels": "have the pixels of a training image",
    "near": "look like a training image",
}


def _bound(default: float, description: str) -> Any:
    return unkeyed(default, ge=0, le=1, description=f"Stops if more of an evaluation split {description}; 1: never.")


class LeakBounds(Config):
    """Shares of an evaluation split, of 1, above which a run stops."""

    max_exact_share: float = _bound(0.0, "has the very bytes of a training image")
    max_pixels_share: float = _bound(0.0, "has other bytes, but the very pixels of a training image")
    max_near_share: float = _bound(0.01, "looks like a training image and is none of the above")

    def broken(self, findings: Mapping[str, Any]) -> list[str]:
        """The bounds that are broken, a clause each, the worst kind first.

        Args:
            findings: of leaks.json.
        """
        clauses = []
        for kind in KINDS:
            name = f"max_{kind}_share"
            bound = getattr(self, name)
            for split in findings["splits"]:
                found = split[kind]
                if found["share"] > bound:
                    of = f"{split['images']:,} {split_name(split['data'], split['split'])} images"
                    clauses.append(
                        f"{found['images']:,} of {of} ({found['share']:.2%}) {_WORDS[kind]}, more than {name}={bound:g}"
                    )
        return clauses

    def hold(self, artifact: Artifact) -> None:
        """Does nothing if the shares of a finding are within the bounds.

        Raises:
            WorkError: they are not; the line names the shares, the bounds and the pictures.
        """
        clauses = self.broken(json.loads(artifact.read("leaks.json")))
        if clauses:
            more = f" ({len(clauses) - 2} more in leaks.md)" if len(clauses) > 2 else ""
            raise WorkError(
                f"leaks: {'; '.join(clauses[:2])}{more}; look at {where(artifact, SHEET)} ({LISTING} beside it lists "
                "them), then take them out of the data, or raise the bound"
            )


def split_name(data: str, split: str) -> str:
    """A split as it is spoken of: the data set is named if it is not the first."""
    return split if data == "shards" else f"{data} {split}"


def where(artifact: Artifact, name: str) -> str:
    """The path, or the address, of one of an artifact's files."""
    stored = artifact.object_path(name)
    return str(artifact.storage.local_path(stored) or f"{artifact.storage.url}/{stored}")


class LeakCheckConfig(LeakBounds):
    """What counts as a leak, what is listed, and what stops a run."""

    near_radius: int = Field(
        6, ge=0, le=10, description="Images are compared more closely if their 64-bit hashes differ in so many bits."
    )
    near_difference: float = Field(
        0.01,
        gt=0,
        le=0.1,
        description="How far two images may be apart on the closer look: 1 - the correlation of their 16x16 cells.",
    )
    max_unreadable_share: float = unkeyed(
        0.01, ge=0, le=1, description="A larger share of images that cannot be read stops the check; fewer are listed."
    )
    listed: int = Field(3, ge=1, le=100, description="Training images listed for an evaluation image, the worst first.")
    pictures: int = Field(40, ge=0, le=400, description="Pairs shown on the sheet, the worst first.")
    threads: int = unkeyed(
        min(8, os.cpu_count() or 1), ge=1, le=256, description="Threads that read and decode images, a core each."
    )
