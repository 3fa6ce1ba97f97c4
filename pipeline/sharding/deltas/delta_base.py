"""The base of a delta: the shards artifact to which a run adds. It is named, or the newest that fits.

recipe.json in a shards artifact records its settings. A delta must have the settings of its base, so that splits and
duplicates of both follow the same rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import canonical_json
from pipeline.errors import DamagedError, InputError
from pipeline.json_file import write_json
from pipeline.sharding.config import ShardingConfig
from pipeline.sharding.format.index import SampleIndex
from pipeline.sharding.format.item_names import LISTING_FILE
from pipeline.sharding.format.tars_file import TARS_FILE

RECIPE_FILE = "recipe.json"
NEWEST = "newest"
STAGES = ("shard-dataset", "compact-shards")
_SETTINGS = ("source", "split", "images", "captions", "duplicates", "caps")


@dataclass(frozen=True)
class Base:
    """An artifact that a delta adds to."""

    artifact: Artifact

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """The content of recipe.json."""
        return read_recipe(self.artifact)

    @cached_property
    def index(self) -> SampleIndex:
        return SampleIndex.open(self.artifact)

    def is_up_to_date(self, config: ShardingConfig) -> bool:
        """Whether the source is unchanged since the base was created."""
        return bool(self.recipe["fingerprint"] == config.source.fingerprint)


def write_recipe(folder: Path, config: ShardingConfig, title: str) -> None:
    """Writes recipe.json for a full run or a delta."""
    recipe = {
        "title": title,
        "fingerprint": config.source.fingerprint,
        "samples_per_shard": config.samples_per_shard,
        "shard_megabytes": config.shard_megabytes,
        "settings": _settings(config),
    }
    write_json(folder / RECIPE_FILE, recipe)


def read_recipe(artifact: Artifact) -> Mapping[str, Any]:
    """The content of an artifact's recipe.json.

    Raises:
        DamagedError: the file is not a valid recipe.
    """
    try:
        recipe: Mapping[str, Any] = json.loads(artifact.read(RECIPE_FILE))
        recipe["settings"], recipe["fingerprint"]
    except (ValueError, KeyError, TypeError):
        raise DamagedError(f"{artifact.name}/{RECIPE_FILE}: not a recipe; re-run {artifact.stage}") from None
    return recipe


def find_base(config: ShardingConfig, store: ArtifactStore) -> Base | None:
    """The base that the config names; None: shard the whole source.

    Args:
        config: `resolved`.
    Raises:
        InputError: there is no such artifact, or it does not match this config.
    """
    named = check_named_base(config, store)
    return _newest(config, store) if named is None and config.base == NEWEST else named


def check_named_base(config: ShardingConfig, store: ArtifactStore) -> Base | None:
    """The base that the config names by STAGE/KEY, or None; the config need not be `resolved`.

    Raises:
        InputError: see `find_base`.
    """
    if config.base is None:
        return None
    problem = _problem_of_config(config)
    if problem is not None:
        raise InputError(problem)
    if config.base == NEWEST:
        return None
    base = Base(store.resolve(config.base))
    check_base(config, base)
    return base


def check_base(config: ShardingConfig, base: Base) -> None:
    """Checks that a run with this config can add to the base.

    Raises:
        InputError: it cannot; the message says why, and what to do.
    """
    problem = _problem_of_config(config) or _problem_of_base(config, base)
    if problem is not None:
        raise InputError(problem)


def source_address(config: ShardingConfig) -> str:
    """The source's kind and the address of its data, which distinguish data sets of the same layout."""
    source = config.source
    where = {}
    for name, field in type(source).model_fields.items():
        extra, value = field.json_schema_extra, getattr(source, name)
        if isinstance(extra, dict) and extra.get("keyed") is False and isinstance(value, str | Path):
            where[name] = str(value)
    return " ".join([source.kind, *(f"{name}={value}" for name, value in sorted(where.items()))])


def _newest(config: ShardingConfig, store: ArtifactStore) -> Base | None:
    """The latest committed artifact with this source and these settings."""
    address = source_address(config)
    artifacts = [
        artifact
        for stage in STAGES
        for artifact in store.list(stage)
        if artifact.manifest["summary"].get("source") == address
    ]
    artifacts.sort(key=lambda artifact: (artifact.manifest["origin"].get("committed", 0.0), artifact.key), reverse=True)
    return next((base for base in map(Base, artifacts) if _problem_of_base(config, base) is None), None)


def _problem_of_config(config: ShardingConfig) -> str | None:
    if config.duplicates.near == "remove":
        return (
            "base: near duplicates are found by comparing all images, and a delta reads only some; "
            "set duplicates.near=keep, or remove base"
        )
    if getattr(config.source, "in_place", False):
        return "base: tars that are indexed in place are not copied, so there is nothing to add to; remove base"
    return None


def _problem_of_base(config: ShardingConfig, base: Base) -> str | None:
    artifact = base.artifact
    if artifact.stage not in STAGES:
        return f"base: {artifact.name} is an artifact of {artifact.stage}; give one of {' or '.join(STAGES)}"
    if TARS_FILE in artifact.files:
        return f"base: {artifact.name} is an index of tars in place; a delta adds to shards: run without base once"
    if LISTING_FILE not in artifact.files or RECIPE_FILE not in artifact.files:
        return f"base: {artifact.name} has no listing of its items, being of an older version; run without base once"
    before, now = base.recipe["settings"], _settings(config)
    if before["source"]["kind"] != now["source"]["kind"]:
        return (
            f"base: {artifact.name} is of a source of kind {before['source']['kind']!r}, not "
            f"{now['source']['kind']!r}; name another base, or remove it"
        )
    changed = next(
        (
            f"{part}.{name}"
            for part in _SETTINGS
            for name in sorted(before[part].keys() | now[part].keys())
            if before[part].get(name) != now[part].get(name)
        ),
        None,
    )
    if changed is None:
        return None
    part, _, name = changed.partition(".")
    was = before[part].get(name)
    if name not in before[part] and name in (fields := type(getattr(config, part)).model_fields):
        was = fields[name].default  # Fields that were added later are omitted at their default.
    return (
        f"base: {artifact.name} was created with {changed}={json.dumps(was)}, and a delta needs the settings of its "
        f"base; set {changed} to that, or remove base"
    )


def _settings(config: ShardingConfig) -> dict[str, dict[str, Any]]:
    """The settings that must be equal in a delta and its base."""
    settings: dict[str, dict[str, Any]] = {
        name: json.loads(canonical_json(getattr(config, name))) for name in _SETTINGS
    }
    settings["source"].pop("fingerprint")
    return settings
