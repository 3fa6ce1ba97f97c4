"""Columns joined from the shell: made beside the shards, read in training, made anew only when the file changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.artifacts import ArtifactStore
from pipeline.sharding.index import SampleIndex

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

QUICK = {"clip.training.steps": 4, "clip.validation_pairs": 0, "clip.runner.runner": "process"}
STUDENT = {"student.training.steps": 2, "teacher.training.steps": 2}
PROCESS = {"student.runner.runner": "process", "teacher.runner.runner": "process"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """24 pictures a class, of two classes."""
    for label, colour in {"red": (200, 0, 0), "blue": (0, 0, 200)}.items():
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(24):
            picture = Image.new("RGB", (16, 16), (colour[0] + number, number, colour[2] + number))
            picture.save(tmp_path / "pictures" / label / f"{number}.png")
    return tmp_path / "pictures"


def test_new_captions_and_scores_change_what_reads_them_and_nothing_else(
    shell: Any, pictures: Path, tmp_path: Path
) -> None:
    data = {"data.source.folder": pictures, "data.split.val_share": 0.2, "data.split.test_share": 0.2}

    def states(flow: str, **settings: Any) -> dict[str, str]:
        arguments = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        answer = shell.run("run", flow, "--preset", "image-folder", "--json", *arguments)
        assert answer.returncode == 0, answer.stderr
        return {stage["stage"]: stage["state"] for stage in json.loads(answer.stdout)["stages"]}

    assert states("shard-dataset", **data) == {"shard-dataset": "done"}
    shards = next(ArtifactStore.open(str(shell.store)).list("shard-dataset"))
    index = SampleIndex.open(shards)
    new = tmp_path / "new.csv"
    rows = [f"{index.key(row)},{row / len(index)},the picture {index.key(row)}" for row in range(len(index))]
    new.write_text("\n".join(["key,quality,caption", *rows]))

    asked: dict[str, Any] = {**data, **QUICK, **STUDENT, **PROCESS, "columns.source": new}
    asked |= {"clip.captions_from": "caption", "clip.keep": "{quality: [0.1, null]}"}
    asked |= {"evaluation.captions_from": "caption"}
    first = states("pretrain-clip", **asked)
    assert first == {
        "shard-dataset": "cached",
        "join-columns": "done",
        "train-teacher": "done",
        "distill-student": "done",
        "pretrain-clip": "done",
        "evaluate clip": "done",
    }
    assert set(states("pretrain-clip", **asked).values()) == {"cached"}
    new.write_text(new.read_text().replace("the picture", "a picture"))
    again = states("pretrain-clip", **asked)
    assert [name for name, state in again.items() if state == "done"] == [
        "join-columns",
        "pretrain-clip",
        "evaluate clip",
    ]
