"""Fixtures for the tests of sources: real photos and scans, and a helper that lists a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.progress import silent
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.sources.base import Collection, Item


def source_config(**values: Any) -> Any:
    """The Config of a source, as a flow would read it."""
    return parse_config(ShardingConfig, {"source": values}, "test").source


@pytest.fixture(scope="session")
def photos() -> dict[str, bytes]:
    """china.jpg and flower.jpg, 640x427 photos from scikit-learn."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    return {name: (folder / f"{name}.jpg").read_bytes() for name in ("china", "flower")}


@pytest.fixture
def collect(tmp_path: Path) -> Callable[..., tuple[Collection, list[Item]]]:
    """collect(kind=..., ...): the collection and items of a source, after its check."""

    def listed(**values: Any) -> tuple[Collection, list[Item]]:
        config = source_config(**values)
        downloads = tmp_path / "downloads"
        config.check(downloads)
        resolved = config.resolved()
        assert resolved.fingerprint
        # Resolving must be idempotent, because the stage compares the configs.
        assert resolved.resolved() == resolved
        collection = config.collect(downloads, silent)
        items = list(collection.items())
        assert len(items) == collection.total
        assert [item.name for item in items] == [item.name for item in collection.items()]
        return collection, items

    return listed


@pytest.fixture
def refused(collect: Callable[..., Any]) -> Callable[..., str]:
    """refused(kind=..., ...): the error message for an invalid source."""

    def line(**values: Any) -> str:
        with pytest.raises(InputError) as caught:
            collect(**values)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return line


@pytest.fixture
def reason() -> Callable[[Item], str]:
    """reason(item): why an item has no image."""

    def why(item: Item) -> str:
        with pytest.raises(OSError) as caught:
            item.read()
        return str(caught.value)

    return why
