"""What each flow takes: one model a flow, from which Prefect's form, the shell and a YAML file are checked alike.

A flow's model holds the configs of its own stage and of those before it, so that an upstream artifact
that is not named by reference is made, or found.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pipeline.config import Config
from pipeline.evaluation.stage import EvaluationConfig
from pipeline.sharding.stage import ShardingConfig
from pipeline.training.stage import ClassificationConfig


def reference(description: str, *stages: str) -> Any:
    """A field that names an artifact of one of `stages` by STAGE/KEY."""
    return Field(
        None,
        description=f"{description} by reference, e.g. {stages[0]}/0a1b2c; null: it is made from the config here.",
        pattern=r"^[a-z-]+/[0-9a-f]{4,64}$",
        json_schema_extra={"stages": list(stages)},
    )


class ShardDatasetParameters(Config):
    """shard-dataset: source -> shards, index, data card."""

    data: ShardingConfig = Field(ShardingConfig(), description="The images and their split.")


class TrainTeacherParameters(Config):
    """train-teacher: shards -> teacher and its metrics."""

    shards: str | None = reference("The shards", "shard-dataset")
    data: ShardingConfig = Field(ShardingConfig(), description="The images and their split.")
    teacher: ClassificationConfig = Field(ClassificationConfig(), description="The classifier and its training.")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="How models are measured.")
