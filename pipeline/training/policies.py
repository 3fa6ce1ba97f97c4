"""The sampling policies for training a classifier."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.loading.policies.class_balanced import ClassBalancedConfig
from pipeline.loading.policies.mixture import MixtureConfig
from pipeline.loading.policies.shuffled import ShuffledConfig
from pipeline.loading.policies.streams import StreamsConfig

PolicyConfig = Annotated[
    ShuffledConfig | StreamsConfig | ClassBalancedConfig | MixtureConfig, Field(discriminator="kind")
]
