"""The config of the stage shard-dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field

from pipeline.artifacts import ArtifactStore
from pipeline.config import Config, added, unkeyed
from pipeline.errors import InputError, UnknownNameError
from pipeline.machine import default_threads
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
    """The source of the images, and how they are filtered, split and stored."""

    source: SourceConfigs = Field(EmojiConfig(), description="The data set to read, and its layout.")
    split: SplitConfig = Field(SplitConfig(), description="How samples are assigned to train, val and test.")
    images: ImagesConfig = Field(
        ImagesConfig(), description="Limits on the size of images, and how they are re-encoded."
    )
    captions: CaptionsConfig = Field(CaptionsConfig(), description="How captions are cleaned and filtered.")
    duplicates: DuplicatesConfig = Field(DuplicatesConfig(), description="How duplicate images are handled.")
    caps: CapsConfig = Field(CapsConfig(), description="Maximum number of training images per label and per concept.")
    samples_per_shard: int = Field(
        1000, ge=1, le=1_000_000, description="Maximum number of samples in a shard (one tar)."
    )
    shard_megabytes: float | None = Field(
        None, gt=0, le=1_000_000, description="Maximum size of a shard (one tar) in MB (10^6 bytes). null: no limit."
    )
    max_unreadable_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Maximum fraction (0 to 1) of unreadable images; if more are unreadable, the stage fails. Up "
        "to this limit, they are quarantined.",
    )
    base: str | None = unkeyed(
        None,
        pattern=r"^(newest|[a-z-]+/[0-9a-f]{4,64})$",
        description="Shards to extend: an artifact such as shard-dataset/0a1b2c, or `newest`, the latest artifact"
        " of this source; only new or changed items are read. null: shard the whole source.",
    )
    trust_names: bool = added(
        False,
        description="With a base, for files whose modification time is unknown (e.g. objects in S3 named in a table). "
        "true: an image is unchanged if its name, label and captions are. false: read each one and compare its hash.",
    )
    runner: RunnerName = unkeyed(
        "threads",
        description="Where the work runs. threads: in this process; ray: as tasks on the Ray cluster of RAY_ADDRESS.",
    )
    writers: int = unkeyed(
        default_threads(),
        ge=1,
        le=4096,
        description="Number of concurrent read or write tasks, one CPU core each.",
    )

    def check_source(self, store: ArtifactStore) -> None:
        """Checks the source, and these settings against it, before any work; `check_base` checks the base.

        Raises:
            InputError: no such folder, no images, a class too small, no way to download, an unknown holdout family.
        """
        self.source.check(downloads_folder(store))
        families = self.source.holdout_families
        if self.split.holdout_family is not None:
            if len(families) < 2:
                raise InputError(
                    f"split.holdout_family: the images of source {self.source.kind!r} are one family; remove it"
                )
            if self.split.holdout_family not in families:
                raise UnknownNameError("family", self.split.holdout_family, families)
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
