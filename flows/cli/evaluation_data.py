"""The data of `tutelage evaluate`: shards of the store, or a folder or table that is sharded into it first."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.data_targets import named_artifact
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.errors import InputError
from pipeline.evaluation.label_mapping import refuse_unknown
from pipeline.progress import Progress, silent
from pipeline.sharding.config import ShardingConfig, downloads_folder
from pipeline.sharding.sources.image_folder import ImageFolderConfig
from pipeline.sharding.sources.manifest import ManifestConfig
from pipeline.sharding.sources.normalised_labels import with_normalised_labels
from pipeline.sharding.sources.tables import SUFFIXES
from pipeline.sharding.stage import ShardDataset, check_sharding
from pipeline.sharding.writing.duplicates import DuplicatesConfig
from pipeline.sharding.writing.split_config import SplitConfig
from pipeline.stage import run_stage

if TYPE_CHECKING:
    from pipeline.exported_model import ExportedModel


@dataclass(frozen=True)
class EvaluationData:
    """What `--data` names.

    Attributes:
        shards_or_config: shards of the store, or the config by which a folder or a table is sharded.
    """

    shards_or_config: Artifact | ShardingConfig

    @property
    def default_split(self) -> str:
        """test for shards, whose other splits a model may have been trained on; all images of a folder or a table."""
        return "test" if isinstance(self.shards_or_config, Artifact) else "all"

    def shards(self, store: ArtifactStore, progress: Progress) -> Artifact:
        """The shards; those of a folder or a table are found in the store if its files are unchanged."""
        if isinstance(self.shards_or_config, Artifact):
            return self.shards_or_config
        return run_stage(ShardDataset(), self.shards_or_config.resolved(), {}, store=store, progress=progress)

    def check_labels(self, exported: ExportedModel, store: ArtifactStore, *, data: str, model: str) -> None:
        """Refuses labels of a folder or a table that a classifier does not have, before an image is read.

        Args:
            data, model: their names, for the message.
        Raises:
            InputError: there are some.
        """
        if isinstance(self.shards_or_config, Artifact) or exported.kind != "classifier":
            return
        collection = with_normalised_labels(self.shards_or_config.source.collect(downloads_folder(store), silent))
        known = set(exported.labels)
        counts = Counter(item.label for item in collection.items() if item.label and item.label not in known)
        refuse_unknown(dict(counts.most_common()), exported.labels, data=data, model=model)


def evaluation_data(data: str, store: ArtifactStore) -> EvaluationData:
    """The data that an argument names.

    Raises:
        InputError: there is no such artifact, folder or table, or it has no labelled images.
    """
    artifact = named_artifact(data)
    if artifact is not None:
        return EvaluationData(artifact)
    if os.path.isdir(data):
        source: ImageFolderConfig | ManifestConfig = ImageFolderConfig(folder=Path(data))
    elif os.path.isfile(data) and data.lower().endswith(tuple(SUFFIXES)):
        source = ManifestConfig(manifest=data, label_column="label")
    else:
        raise InputError(
            f"--data {data}: no such artifact or folder; give shards STAGE/KEY, a folder with one sub-folder per "
            "class, or a table (CSV, TSV, JSON lines, Parquet) with the columns path and label"
        )
    config = ShardingConfig(
        source=source,
        # Every image is evaluated: none is drawn into val or test, no rare class is dropped, repetitions are kept (an
        # image in several splits is evaluated once), and images that cannot be read are reported.
        split=SplitConfig(val_share=0, test_share=0, rare_classes="train_only"),
        duplicates=DuplicatesConfig(exact="keep"),
        max_unreadable_share=1.0,
    )
    check_sharding(config, store)
    return EvaluationData(config)
