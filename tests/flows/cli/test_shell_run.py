"""How a run ends is said in one line and one exit code."""

from __future__ import annotations

import errno
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.outcome import outcome_of, print_outcome
from flows.cli.shell_run import exit_code
from flows.run_board import RunBoard
from flows.stage_failures import StagesFailedError
from pipeline.artifacts import ArtifactStore
from pipeline.errors import DamagedError, InputError, WorkError


class TerminationSignal(BaseException):
    """Prefect's, which must not be imported before its server's address is known."""


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (None, 0, ""),
        (InputError("photos: no images; give another folder"), 2, "tutelage: photos: no images; give another folder\n"),
        (WorkError(""), 1, "tutelage: WorkError (log: run.log)\n"),
        (WorkError("npm failed\nlong story"), 1, "tutelage: npm failed long story (log: run.log)\n"),
        (DamagedError("a/b: missing"), 1, "tutelage: a/b: missing (log: run.log)\n"),
        (KeyError("x"), 1, "tutelage: KeyError: 'x' (log: run.log)\n"),
        (RuntimeError(""), 1, "tutelage: RuntimeError (log: run.log)\n"),
        (
            StagesFailedError(
                {"teacher": WorkError("it broke"), "clip": KeyError("x"), "student": WorkError("it broke")}
            ),
            1,
            "tutelage: 3 stages failed. teacher, student: it broke; clip: KeyError: 'x' (log: run.log)\n",
        ),
        (
            StagesFailedError({"shards a": InputError("a: no images"), "shards b": InputError("b: no images")}),
            2,
            "tutelage: 2 stages failed. shards a: a: no images; shards b: b: no images (log: run.log)\n",
        ),
        (KeyboardInterrupt(), 130, "tutelage: interrupted; the same command continues where it stopped\n"),
        (TerminationSignal(), 130, "tutelage: interrupted; the same command continues where it stopped\n"),
    ],
)
def test_every_end_has_its_code_and_its_line(error: BaseException | None, code: int, says: str) -> None:
    stderr = io.StringIO()
    assert exit_code(error, Path("run.log"), stderr) == code
    assert stderr.getvalue() == says


def test_many_failures_are_one_bounded_line_that_keeps_what_to_do() -> None:
    stderr = io.StringIO()
    full = OSError(errno.ENOSPC, "No space left on device", "/store/tmp")
    errors = {"teacher": full, **{f"stage {number}": WorkError(f"{number} " + "x" * 900) for number in range(40)}}
    assert exit_code(StagesFailedError(errors), Path("run.log"), stderr) == 1
    (line,) = stderr.getvalue().splitlines()
    assert line.startswith(
        "tutelage: 41 stages failed. teacher: /store/tmp: no space left on the disk; free some space"
    )
    assert "stage 4: 4 x" in line
    assert line.endswith("; 35 more (log: run.log)")
    assert len(line) < 1600


def test_a_run_that_failed_still_shows_what_was_done(tmp_path: Path) -> None:
    board = RunBoard()
    for label in ("shard-dataset", "train-teacher"):
        board.announce(label)
    board.begin("shard-dataset")
    board.end("shard-dataset", "done", headline="1,000 images")
    board.close()
    store = ArtifactStore.open(str(tmp_path))
    outcome = outcome_of("train-teacher", store, board, None, 61.0, tmp_path / "run.log")
    plain = json.loads(json.dumps(outcome.plain(WorkError("it broke"))))
    assert (plain["ok"], plain["error"], plain["seconds"]) == (False, "it broke", 61.0)
    assert [stage["state"] for stage in plain["stages"]] == ["done", "not run"]
    file = io.StringIO()
    print_outcome(outcome, Console(file=file, width=80, color_system=None), ok=False)
    for words in ("not done in 1:01, 0 of 2 stages cached", "1,000 images", str(tmp_path / "run.log")):
        assert words in file.getvalue()


def test_the_shards_of_a_run_are_named_as_the_commands_on_data_take_them(tmp_path: Path) -> None:
    board = RunBoard()
    board.announce("shard-dataset")
    board.end("shard-dataset", "done")
    outcome = outcome_of("train-teacher", ArtifactStore.open(str(tmp_path)), board, None, 1.0, tmp_path / "run.log")
    artifacts = {"shards a": "shard-dataset/0a", "shards b": "shard-dataset/0b", "train-teacher": "train-teacher/0c"}
    file = io.StringIO()
    print_outcome(replace(outcome, artifacts=artifacts), Console(file=file, width=80, color_system=None), ok=True)
    assert "\ndata   shard-dataset/0a shard-dataset/0b\nstore  " in file.getvalue()


def test_photos_that_are_not_read_are_named_and_the_most_frequent_kind_is_first(tmp_path: Path) -> None:
    board = RunBoard()
    board.announce("shard-dataset")
    board.end("shard-dataset", "done")
    outcome = outcome_of("shard-dataset", ArtifactStore.open(str(tmp_path)), board, None, 1.0, tmp_path / "run.log")
    # As a manifest has it: by name.
    skipped = {"count": 12, "per_kind": {".aae": 1, ".heic": 2, "hidden": 9}, "first": ["a.heic", "b.heic"]}
    file = io.StringIO()
    data = ({"stage": "shard-dataset", "passed_over": skipped},)
    print_outcome(replace(outcome, data=data), Console(file=file, width=80, color_system=None), ok=True)
    assert "shard-dataset: skipped 9 hidden, 2 .heic, 1 .aae (a.heic, b.heic, ...)\n" in file.getvalue()
    assert "shard-dataset: 2 .heic are photos in formats that are not read: convert" in file.getvalue()


def test_one_stage_is_no_stages(tmp_path: Path) -> None:
    board = RunBoard()
    board.announce("shard-dataset")
    board.begin("shard-dataset")
    board.end("shard-dataset", "done")
    store = ArtifactStore.open(str(tmp_path))
    file = io.StringIO()
    outcome = outcome_of("shard-dataset", store, board, None, 1.0, tmp_path / "run.log")
    print_outcome(outcome, Console(file=file, width=80, color_system=None), ok=True)
    assert "0 of 1 stage cached" in file.getvalue()


def test_the_end_of_a_run_says_what_a_training_waited_for_unless_it_was_cached(tmp_path: Path) -> None:
    from flows.stage_run import RunSummary
    from flows.stage_task import StageResult

    words = "waits 38% of its time for data: decoding takes 2.1 ms an image on 2 threads; set loader.threads=6"
    store, board = ArtifactStore.open(str(tmp_path)), RunBoard()
    for cached in (False, True):
        result = StageResult("train-teacher", "train-teacher/0a", cached, 9.0, {"bottleneck": words})
        summary = RunSummary("train-teacher", (result,))
        outcome = outcome_of("train-teacher", store, board, summary, 61.0, tmp_path / "run.log")
        assert outcome.data == (() if cached else ({"stage": "train-teacher", "notes": [words]},))
