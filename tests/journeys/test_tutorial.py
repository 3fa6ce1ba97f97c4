"""docs/tutorial.md from step 2 to two nights, in one shell, with small images, one epoch and without Ray."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.local.server import free_port
from tests.page_commands import Block, blocks, run_blocks

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
PRESET = "lifecycle --preset photos"
SMALL = " ".join(
    f"--set {model}.{setting}"
    for model in ("teacher", "student")
    for setting in ("training.epochs=1", "image_size=64", "runner.runner=process")
)
# Under pytest-xdist COLUMNS is set, to which tables are wrapped also without a terminal.
UNSET = ("TUTELAGE_STORE", "MLFLOW_TRACKING_URI", "COLUMNS")
NEW_PHOTOS = """
from pathlib import Path
from PIL import Image
from sklearn.datasets import load_digits

for number in range(400, 407):
    picture = Image.fromarray((load_digits().images[number] * 15.9).astype("uint8")).resize((64, 64))
    picture.save(Path("photos") / f"digit-{load_digits().target[number]}" / f"{number}.png")
"""


@dataclass(frozen=True)
class Tutorial:
    """The page, done.

    Attributes:
        printed: commands of a block -> what they printed.
        port: where the model was served.
    """

    folder: Path
    env: dict[str, str]
    printed: dict[str, str]
    port: int

    def of(self, words: str) -> str:
        """What the block with these words in its commands printed."""
        (text,) = [text for commands, text in self.printed.items() if words in commands]
        return text

    def run(self, *command: str) -> str:
        """Runs a program as the page's shell would; returns what it printed."""
        answer = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout


@pytest.fixture(scope="module")
def tutorial(prefect_home: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Tutorial:
    folder = tmp_path_factory.mktemp("tutorial")
    prefect_home(folder / ".tutelage" / "services" / "prefect")
    env = {name: value for name, value in os.environ.items() if name not in UNSET}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    page = blocks(PAGE)
    # Step 1 installs; tests/journeys/test_up.py does what follows `tutelage up`.
    found = page[_first(page, "load_digits") : _first(page, "tutelage up")]
    port = free_port()
    replaced = {PRESET: f"{PRESET} {SMALL}", "--port 5001": f"--port {port}", ":5001": f":{port}"}
    printed = run_blocks(found, folder, env=env, within_s=1100, replaced=replaced)
    return Tutorial(folder, env, dict(zip((block.commands for block in found), printed, strict=True)), port)


def test_the_data_card_and_the_report_are_pages(tutorial: Tutorial) -> None:
    for words in ("artifacts open $SHARDS", "artifacts open\n"):
        page = tutorial.folder / tutorial.of(words).strip()
        assert page.read_text().startswith("<!DOCTYPE html>")


def test_one_model_is_champion_and_the_other_challenger(tutorial: Tutorial) -> None:
    registry = tutorial.folder / ".tutelage" / "services" / "mlflow" / "mlflow.db"
    with sqlite3.connect(f"file:{registry}?mode=ro", uri=True) as database:
        aliases = dict(database.execute("select alias, version from registered_model_aliases"))
    assert aliases.keys() == {"champion", "challenger"}
    assert sorted(aliases.values()) == [1, 2], "the night without new photos registers nothing"


def test_the_champion_is_far_better_than_chance(tutorial: Tutorial) -> None:
    (accuracy,) = re.findall(r"^accuracy +([\d.]+)%", tutorial.of("tutelage evaluate"), flags=re.MULTILINE)
    assert float(accuracy) > 50


def test_compare_shows_pictures(tutorial: Tutorial) -> None:
    assert tutorial.folder.joinpath("compare.html").read_text().count("data:image/") > 5


def test_the_server_answers_what_predict_prints_and_has_ended(tutorial: Tutorial) -> None:
    (prediction,) = json.loads(tutorial.of("mlflow models serve"))["predictions"]
    printed = tutorial.of("tutelage predict")
    ((label, score),) = re.findall(r"^photos/digit-3/3\.png +(\S+) +(\S+)", printed, flags=re.MULTILINE)
    assert prediction["label"] == label
    assert prediction["score"] == pytest.approx(float(score), abs=0.002)
    assert len(prediction["top_k"]) == 5
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", tutorial.port)) == errno.ECONNREFUSED


def test_a_night_with_new_photos_reads_only_these(tutorial: Tutorial) -> None:
    tutorial.run("python", "-c", NEW_PHOTOS)
    night = json.loads(tutorial.run("tutelage", "run", "shard-dataset", "--config", "nightly.yaml", "--json"))
    shards = night["stages"][0]
    assert shards["state"] == "done"
    summary = json.loads(tutorial.run("tutelage", "artifacts", "show", shards["artifact"], "--json"))["summary"]
    assert [summary[name] for name in ("new", "changed", "removed")] == [7, 0, 0]


def _first(page: Sequence[Block], words: str) -> int:
    return next(number for number, block in enumerate(page) if words in block.commands)
