"""What the presets make keeps its key from one version of Tutelage to the next, or every store is made again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows import lifecycle as module
from flows.presets import find_preset
from pipeline.artifacts import ArtifactStore
from pipeline.config import Config, digest
from pipeline.registration.config import RegistrationConfig
from pipeline.sharding.sources import fashion_mnist

# The first 16 digits. A change here needs a line in CHANGELOG.md that says what is made again, and why.
KEYS = {
    "emoji-tiny": {
        "shard-dataset": "6f6a4292dca8e388",
        "train-teacher": "2cae680cb9d47d88",
        "distill-student": "62f08997d3b90d81",
        "evaluate teacher": "9bbaf1d0e9b8ed79",
        "evaluate student": "6f035ae9d7459f42",
        "register student": "2787648a813e785e",
        "build-ontology": "c13c2ebc9d248419",
        "pretrain-clip": "905e3d444ea58cd3",
        "evaluate clip": "15f7f703374da930",
        "register clip": "6e991822b43c91d0",
        "run-report": "d0f13a49555c7883",
    },
    "fashion-mnist": {
        "shard-dataset": "d01aa0e1bd2ca2a1",
        "train-teacher": "5929c5e84fc239a1",
        "distill-student": "a75ae3a13d89efa8",
        "evaluate teacher": "84fe260cf8da48dc",
        "evaluate student": "1249581fdc10b2dc",
        "register student": "5c5cf42c006a783c",
        "register teacher": "794deba9c9b20810",
        "pretrain-clip": "0829b7b9284c699c",
        "evaluate clip": "f4bf51477ee6f6d6",
        "register clip": "6c6e0f9754c30599",
        "run-report": "de0ef2f9c7030f46",
    },
}


@dataclass
class Requested:
    """Takes the place of a run of stages: notes the key of what each stage would make."""

    store: ArtifactStore
    keys: dict[str, str] = field(default_factory=dict)

    def existing(self, reference: str | None) -> None:
        assert reference is None

    def submit(
        self, stage: Any, config: Config, inputs: Mapping[str, str] | None = None, *, label: str = "", **_: Any
    ) -> str:
        made_of = {"stage": stage.name, "version": stage.version, "config": config, "inputs": dict(inputs or {})}
        key = digest(made_of)
        self.keys[label or stage.name] = key[:16]
        return f"{stage.name}/{key}"

    def result(self) -> None:
        pass


@pytest.mark.parametrize("preset", KEYS)
def test_the_keys_of_a_preset_are_what_they_were(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its four files have another fingerprint than torchvision's.
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "absent")
    # What it adds is the address of the registry.
    monkeypatch.setattr(RegistrationConfig, "resolved", lambda config, store: config)
    requested = Requested(ArtifactStore.open(str(tmp_path / "store")))

    @contextlib.contextmanager
    def stage_run(*_: Any) -> Iterator[Requested]:
        yield requested

    monkeypatch.setattr(module, "stage_run", stage_run)
    module.lifecycle.fn(find_preset(preset).parameters("lifecycle"))
    assert requested.keys == KEYS[preset]
