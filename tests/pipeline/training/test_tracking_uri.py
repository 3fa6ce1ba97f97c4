"""An MLflow that nobody can use costs seconds and one line, before any work and in the middle of it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.app import main
from pipeline.artifacts import ArtifactStore
from pipeline.errors import WorkError
from pipeline.training import tracking_uri
from pipeline.training.tracking import TrackedRun, log_report
from pipeline.training.tracking_uri import allow_long_transfers, check_tracking_uri, shorten_timeouts


@pytest.fixture
def silent() -> Iterator[str]:
    """HOST:PORT that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://me:hush@{deaf}", "Connection refused"),
        ("http://me:hush@{silent}", "nobody answers"),
        ("http://me:hush@{web}/404", "no MLflow server"),
        ("http://me:hush@{web}/503", "503"),
        ("http://me:hush@{web}/page", "JSON"),
        ("http://me:hush@{web}/401", "MLFLOW_TRACKING_USERNAME"),
        ("http://me:hush@host:port", "MLFLOW_TRACKING_URI"),
        ("http://me:hush/x@{web}", "not a URL"),
        ("postgresql://me:hush/x@{deaf}/mlflow", "not a URL"),
        ("postgresql://me:hush@{deaf}/mlflow", "Connection refused"),
        ("postgresql://me:hush@{silent}/mlflow", "MLFLOW_TRACKING_URI"),
        ("sqlite:////nowhere/at/all.db", "no folder"),
        ("./mlruns", "no longer writes to"),
    ],
)
def test_an_mlflow_that_cannot_be_used_is_one_line_within_10_s(
    uri: str,
    says: str,
    deaf: str,
    silent: str,
    web: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(deaf=deaf, silent=silent, web=web))
    (tmp_path / "a.png").write_bytes(b"a picture")
    began = time.monotonic()
    assert main(["predict", "models:/emoji@champion", str(tmp_path / "a.png")]) == 2
    assert time.monotonic() - began < 20  # importing MLflow on a busy core is a part of it
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert says in err
    assert "hush" not in err


@pytest.mark.parametrize("command", [["explain", "models:/a@champion"], ["zero-shot", "models:/a@champion"]])
def test_other_commands_ask_too(
    command: list[str], deaf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{deaf}")
    (tmp_path / "a.png").write_bytes(b"a picture")
    prompts = ["--prompt", "a", "--prompt", "b"]
    assert main([*command, str(tmp_path / "a.png"), *prompts]) == 2
    assert f"MLFLOW_TRACKING_URI=http://{deaf}: nobody answers" in capfd.readouterr().err


def test_a_run_is_refused_before_a_server_is_started(
    deaf: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{deaf}")
    (tmp_path / "pictures" / "red").mkdir(parents=True)
    source = f"data.source={{kind: image_folder, folder: {tmp_path}/pictures}}"
    assert main(["run", "train-teacher", "--set", source]) == 2
    assert "nobody answers" in capfd.readouterr().err
    assert not (tmp_path / "store" / "services").exists()


def test_a_server_that_goes_in_the_middle_costs_a_training_a_bounded_time_and_a_report_one_line(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    run = TrackedRun(MlflowClient(f"http://{silent}"), "run")
    run._sent_at -= 60
    began = time.monotonic()
    for step in range(200):
        run.row({"step": step, "loss": 1.0})
    assert time.monotonic() - began < 8  # asked once, not 200 times
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{silent}")
    store = ArtifactStore.open(str(tmp_path / "store"))
    with pytest.raises(WorkError, match="nobody answers"):
        log_report(store, tmp_path / "report.html", name="x", tags={})


def test_timeouts_that_the_environment_sets_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracking_uri._SHORT_TIMEOUTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    shorten_timeouts()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 3


def test_what_cannot_be_asked_is_left_to_mlflow() -> None:
    check_tracking_uri("databricks")
    check_tracking_uri("databricks://profile")


def test_files_have_minutes_where_other_requests_have_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    monkeypatch.delenv(limit, raising=False)
    shorten_timeouts()
    with allow_long_transfers():
        with allow_long_transfers():
            assert os.environ[limit] == "300"
        assert os.environ[limit] == "300"
    assert os.environ[limit] == "10"
    monkeypatch.setenv(limit, "7")
    with allow_long_transfers():
        assert os.environ[limit] == "7"
    assert os.environ[limit] == "7"
