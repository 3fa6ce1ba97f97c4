"""The bounds of a leak check: which fraction of an evaluation split may be in the training data.

The bounds are not in the key of the result's artifact: they are checked after it is committed or found in the store. So
the listing and the pictures can be reviewed after a failure, and a rerun with the same data fails within a second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pipeline.artifacts import Artifact
from pipeline.config import Config, unkeyed
from pipeline.counted import counted
from pipeline.errors import WorkError
from pipeline.leaks.kinds import KINDS
from pipeline.machine import default_threads

SHEET, LISTING = "leaks.png", "leaks.parquet"
_KIND_PHRASES = {
    "exact": "are also training images",
    "pixels": "have the pixels of a training image",
    "near": "look like a training image",
}


def _bound(default: float, description: str) -> Any:
    return unkeyed(
        default,
        ge=0,
        le=1,
        description=f"Maximum fraction (0 to 1) of an evaluation split that may {description}. 1: no limit.",
    )


class LeakBounds(Config):
    """Maximum fractions (0 to 1) of an evaluation split that may be in the training data; a larger one stops a run."""

    max_exact_share: float = _bound(0.0, "be byte-identical to a training image")
    max_pixels_share: float = _bound(0.0, "have the same pixels as a training image in other bytes")
    max_near_share: float = _bound(0.01, "be near duplicates of a training image")

    def exceeded_in_words(self, findings: Mapping[str, Any]) -> list[str]:
        """The exceeded bounds, one clause of an error message each, the worst kind first.

        Args:
            findings: the content of leaks.json.
        """
        clauses = []
        for kind in KINDS:
            name = f"max_{kind}_share"
            bound = getattr(self, name)
            for split in findings["splits"]:
                matches = split[kind]
                if matches["share"] > bound:
                    images = counted(split["images"], f"{split_name(split['data'], split['split'])} image")
                    clauses.append(
                        f"{matches['images']:,} of {images} ({matches['share']:.2%}) {_KIND_PHRASES[kind]}, "
                        f"more than {name}={bound:g}"
                    )
        return clauses

    def sufficient_bounds(self, findings: Mapping[str, Any]) -> dict[str, float]:
        """Each exceeded bound -> the least value, in three decimals, that lets the run continue.

        Args:
            findings: the content of leaks.json.
        """
        worst = {
            f"max_{kind}_share": max((split[kind]["share"] for split in findings["splits"]), default=0.0)
            for kind in KINDS
        }
        return {
            name: math.ceil(share * 1000) / 1000 for name, share in worst.items() if share > float(getattr(self, name))
        }

    def check(self, artifact: Artifact, *, in_flow: bool = False, can_remove_near: bool = False) -> None:
        """Checks the shares in an artifact of check-leaks against the bounds.

        Args:
            in_flow: the message names settings of a flow instead of command-line options.
            can_remove_near: the flow would accept data.duplicates.near=remove, which would drop the near duplicates.
        Raises:
            WorkError: a bound is exceeded; the message has the shares, the bounds and the path of the pictures.
        """
        findings = json.loads(artifact.read("leaks.json"))
        clauses = self.exceeded_in_words(findings)
        if clauses:
            sufficient = self.sufficient_bounds(findings)
            if in_flow:
                settings = " ".join(f"--set leaks.{name}={value:g}" for name, value in sufficient.items())
                ways = [f"{settings} (raise the bound)"]
                if can_remove_near and "max_near_share" in sufficient:
                    ways.append("--set data.duplicates.near=remove (keep one of several similar images)")
                advice = f"remove them from the data, or {', '.join(ways)} or --set leaks=null (no check)"
            else:
                options = " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in sufficient.items())
                advice = f"remove them from the data, or raise the bound: {options}"
            more = f" ({len(clauses) - 2} more in leaks.md)" if len(clauses) > 2 else ""
            raise WorkError(
                f"leaks: {'; '.join(clauses[:2])}{more}; look at {file_location(artifact, SHEET)} "
                f"({LISTING} next to it lists them), then {advice}"
            )


def split_name(data: str, split: str) -> str:
    """A split as it is shown: "val" in the data set "shards" that is checked, "other val" in the data set "other"."""
    return split if data == "shards" else f"{data} {split}"


def file_location(artifact: Artifact, name: str) -> str:
    """The local path, or the URL, of a file of an artifact."""
    stored = artifact.object_path(name)
    return str(artifact.storage.local_path(stored) or f"{artifact.storage.url}/{stored}")


class LeakCheckConfig(LeakBounds):
    """When two images count as near duplicates, how many are listed, and the bounds that stop a run."""

    near_radius: int = Field(
        6,
        ge=0,
        le=10,
        description="Maximum Hamming distance of the 64-bit perceptual hashes of two images that are compared in "
        "detail.",
    )
    near_difference: float = Field(
        0.01,
        gt=0,
        le=0.1,
        description="Maximum difference of near duplicates: 1 - the correlation of the images, scaled to 16x16 "
        "grey pixels.",
    )
    max_unreadable_share: float = unkeyed(
        0.01,
        ge=0,
        le=1,
        description="Maximum fraction (0 to 1) of damaged images; if more are damaged, the check fails. Up to "
        "this limit, they are listed.",
    )
    listed: int = Field(
        3,
        ge=1,
        le=100,
        description="Maximum number of matching training images listed per evaluation image, the closest first.",
    )
    pictures: int = Field(
        40, ge=0, le=400, description="Maximum number of image pairs shown on the sheet leaks.png, the closest first."
    )
    threads: int = unkeyed(
        default_threads(),
        ge=1,
        le=256,
        description="Number of threads that read and decode images, one CPU core each.",
    )
