"""docs/upgrade.md quotes what an old config and an artifact of a newer version are answered."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flows.parameters import LifecycleParameters
from pipeline.artifacts import MANIFEST, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import InputError

ROOT = Path(__file__).parents[1]
PAGE = " ".join((ROOT / "docs" / "upgrade.md").read_text().split())


def test_a_renamed_key_is_refused_with_its_new_name() -> None:
    (quoted,) = re.findall(r"`(mine\.yaml: \S+: is now called \S+)`", PAGE)
    section, old = quoted.split()[1].strip(":").split(".")
    with pytest.raises(InputError) as refused:
        parse_config(LifecycleParameters, {section: {old: "x"}}, "mine.yaml")
    assert str(refused.value) == quoted


def test_an_artifact_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    (quoted,) = re.findall(r"`(has format \d+, not \d+; update Tutelage)`", PAGE)
    manifest = tmp_path / "artifacts" / "shard-dataset" / "0a1b2c3d" / MANIFEST
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"format": int(quoted.split()[2].strip(","))}))
    with pytest.raises(InputError, match=f"{quoted}$"):
        ArtifactStore.open(str(tmp_path)).find("shard-dataset/0a1b2c3d")


def test_the_targets_of_make_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z-]+)`?", PAGE))
    assert targets
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)
