"""What holds for every source: a new one is tested by being in the catalogue."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import pytest

from pipeline.sharding import sources
from pipeline.sharding.sources.base import SourceConfig, SourceDescription
from pipeline.sharding.sources.catalogue import SOURCES

EVERY = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)


def test_the_catalogue_holds_every_source_of_the_folder() -> None:
    for module in pkgutil.iter_modules(sources.__path__, f"{sources.__name__}."):
        for one in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(one) and issubclass(one, SourceConfig) and "about" in vars(one):
                assert SOURCES[one.model_fields["kind"].default] is one


@EVERY
def test_every_source_offers_what_sharding_asks_for(source: type[Any]) -> None:
    assert issubclass(source, SourceConfig)
    assert not inspect.isabstract(source)


@EVERY
def test_every_field_is_described_and_the_fingerprint_is_part_of_the_key(source: type[Any]) -> None:
    for name, field in source.model_fields.items():
        assert name == "kind" or field.description, name
    fingerprint = source.model_fields["fingerprint"]
    assert fingerprint.default is None
    assert fingerprint.json_schema_extra is None


@EVERY
def test_every_source_says_what_it_needs_and_its_example_names_fields_that_exist(source: type[Any]) -> None:
    assert isinstance(source.about, SourceDescription)
    assert source.about.reads
    assert source.about.needs
    for setting in source.about.example:
        assert setting.partition("=")[0].partition(".")[0] in source.model_fields
