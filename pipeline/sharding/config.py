"""The config of the stage shard-dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import Field

from pipeline.artifacts import ArtifactStore
from pipeline.config import Config, added, unkeyed
from pipeline.errors import InputError, UnknownNameError
from pipeline.sharding.sources.catalogue import SourceConfigs
from pipeline.sharding.sources.demo.emoji import EmojiConfig
from pipeline.sharding.sources.webdataset_tars import WebdatasetConfig
from pipeline.sharding.writing.captions import CaptionsConfig
from pipeline.sharding.writing.duplicates import DuplicatesConfig
from pipeline.sharding.writing.images import ImagesConfig
from pipeline.sharding.writing.plan import CapsConfig
from pipeline.sharding.writing.rare_classes import check_class_sizes
from pipeline.sharding.writing.runner import RunnerName
from pipeline.sharding.writing.split_config import SplitConfig


class ShardingConfig(Config):
    """Which images, how they are split, and how they are stored."""

    source: SourceConfigs = Field(EmojiConfig(), description="Where the images come from.")
    split: SplitConfig = Field(SplitConfig(), description="What is held out.")
    images: ImagesConfig = Field(ImagesConfig(), description="Which images are refused, and which are re-encoded.")
    captions: CaptionsConfig = Field(CaptionsConfig(), description="How captions are cleaned.")
    duplicates: DuplicatesConfig = Field(DuplicatesConfig(), description="Which duplicates are removed.")
    caps: CapsConfig = Field(CapsConfig(), description="How many training images there may be of one thing.")
    samples_per_shard: int = Field(1000, ge=1, le=1_000_000, description="Images in one tar, at most.")
    shard_megabytes: float | None = Field(
        None, gt=0, le=1_000_000, description="Size of one tar, at most, in MB (10^6 bytes); null: however large."
    )
    max_unreadable_share: float = Field(
        0.01, ge=0, le=1, description="A larger share of unreadable images stops the stage; fewer are quarantined."
    )
    base: str | None = unkeyed(
        None,
        pattern=r"^(newest|[a-z-]+/[0-9a-f]{4,64})$",
        description="Shards to add to, e.g. shard-dataset/0a1b2c, or newest: the latest artifact of this source; only "
        "new or changed items are read. null: shard the whole source.",
    )
    trust_names: bool = added(
        False,
        description="With a base: a file in S3 that a table names counts as unchanged if its name, label and captions "
        "are; false: it is read, and compared by hash.",
    )
    runner: RunnerName = unkeyed(
        "threads", description="Where the work is done: in threads of this process, or as Ray tasks (RAY_ADDRESS)."
    )
    writers: int = unkeyed(
        min(8, os.cpu_count() or 1),
        ge=1,
        le=4096,
        description="Tasks that read or write at the same time, a core each.",
    )

    def check_source(self, store: ArtifactStore) -> None:
        """Checks the source against these settings before any work; `check_base` checks the base.

        Raises:
            InputError: no such folder, no images, a class too small, no way to download, an unknown artist family.
        """
        self.source.check(downloads_folder(store))
        families = self.source.holdout_families
        if self.split.holdout_family is not None:
            if len(families) < 2:
                raise InputError(
                    f"split.holdout_family: the source {self.source.kind!r} has no artist families; remove it"
                )
            if self.split.holdout_family not in families:
                raise UnknownNameError("artist family", self.split.holdout_family, families)
        if isinstance(self.source, WebdatasetConfig) and self.source.in_place:
            changed = next(
                (name for name in ("max_side", "encoding") if getattr(self.images, name) not in (None, "keep")), None
            )
            if changed is not None:
                raise InputError(f"images.{changed}: an image that is indexed in place cannot be re-encoded; remove it")
        # With a base, a new class is checked when the splits are assigned.
        check_class_sizes(self.source.class_sizes(), self.split, has_base=self.base is not None)

    def resolved(self) -> Self:
        """The config with the source's fingerprint, as `run_stage` expects it, so that new data give a new key.

        Raises:
            InputError: the source does not exist.
        """
        return self.model_copy(update={"source": self.source.resolved()})


def downloads_folder(store: ArtifactStore) -> Path:
    """The folder of the sources' downloads; shared by all runs of a store on this machine."""
    return store.local / "downloads"
