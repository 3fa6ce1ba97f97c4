"""What holds for every source: a new one is tested by being in the stage's union."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest

from pipeline.config import Config
from pipeline.sharding.sources.base import SourceConfig
from pipeline.sharding.stage import SourceConfigs

SOURCES: tuple[type[Any], ...] = get_args(get_args(SourceConfigs)[0])


def test_every_kind_is_its_own() -> None:
    kinds = [source.model_fields["kind"].default for source in SOURCES]
    assert len(kinds) == len(set(kinds)) >= 3


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_offers_what_sharding_asks_for(source: type[Any]) -> None:
    assert issubclass(source, Config)
    for name, asked in inspect.getmembers(SourceConfig):
        if name.startswith("_"):
            continue
        if inspect.isfunction(asked):
            offered = getattr(source, name)
            assert list(inspect.signature(offered).parameters) == list(inspect.signature(asked).parameters)
        else:
            assert name in source.model_fields or isinstance(getattr(source, name), property)


@pytest.mark.parametrize("source", SOURCES)
def test_every_field_is_described_and_the_fingerprint_is_part_of_the_key(source: type[Any]) -> None:
    for name, field in source.model_fields.items():
        assert name == "kind" or field.description, name
    fingerprint = source.model_fields["fingerprint"]
    assert fingerprint.default is None
    assert fingerprint.json_schema_extra is None
