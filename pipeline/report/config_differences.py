"""The settings in which two models differ: configs of their trainings and of the inputs of these."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.artifacts import Artifact, ArtifactStore

ABSENT = "-"


@dataclass(frozen=True, slots=True)
class ConfigDifference:
    """A setting with different values.

    Attributes:
        key: e.g. "training.epochs", or "shards.split.seed" of the input `shards`.
        a, b: the values as text; `ABSENT` if there is no such setting.
    """

    key: str
    a: str
    b: str


def config_differences(a: str, b: str, store: ArtifactStore) -> list[ConfigDifference]:
    """The differences between two artifacts (STAGE/KEY) and between their inputs of the same name.

    An artifact that is no longer in the store is named instead.
    """
    return list(_differences("", a, b, store, set()))


def _differences(
    prefix: str, a: str, b: str, store: ArtifactStore, seen: set[tuple[str, str]]
) -> Iterator[ConfigDifference]:
    if a == b or (a, b) in seen:
        return
    seen.add((a, b))
    artifacts = store.find(a), store.find(b)
    if artifacts[0] is None or artifacts[1] is None:
        removed = [name if artifact else f"{name} (removed)" for name, artifact in zip((a, b), artifacts, strict=True)]
        yield ConfigDifference(f"{prefix}artifact", *removed)
        return
    yield from _value_differences(prefix, _values(artifacts[0]), _values(artifacts[1]))
    inputs = [artifact.manifest["inputs"] for artifact in artifacts if artifact is not None]
    for name in dict.fromkeys((*inputs[0], *inputs[1])):
        if name in inputs[0] and name in inputs[1]:
            yield from _differences(f"{prefix}{name}.", inputs[0][name], inputs[1][name], store, seen)
        else:
            yield ConfigDifference(f"{prefix}{name}", inputs[0].get(name, ABSENT), inputs[1].get(name, ABSENT))


def _value_differences(prefix: str, a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[ConfigDifference]:
    for key in dict.fromkeys((*a, *b)):
        values = a.get(key, ABSENT), b.get(key, ABSENT)
        if values[0] != values[1]:
            yield ConfigDifference(f"{prefix}{key}", *values)


def _values(artifact: Artifact) -> dict[str, str]:
    """The stage, its version, and the config with dotted keys."""
    version = artifact.manifest.get("origin", {}).get("stage_version")
    stage = artifact.stage if version is None else f"{artifact.stage} {version}"
    return {"stage": stage, **dict(_flat("", artifact.config))}


def _flat(prefix: str, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
