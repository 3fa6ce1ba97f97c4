"""A checkpoint is written while the training goes on, and is the state at the step at which it was due."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from infra.local.servers import Keys, weed_mini
from pipeline.errors import InputError, WorkError
from pipeline.storage import open_storage, s3_client
from pipeline.storage.local import LocalStorage
from pipeline.training.checkpoint import Checkpoint, Checkpoints
from pipeline.training.checkpoint_writer import CheckpointWriter


class SlowStorage(LocalStorage):
    """Writes only when it may."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.may_write = threading.Event()
        self.writing = threading.Event()

    def upload(self, local: Path, path: str) -> None:
        self.writing.set()
        assert self.may_write.wait(60)
        super().upload(local, path)


class FullStorage(LocalStorage):
    def upload(self, local: Path, path: str) -> None:
        raise OSError(28, "No space left on device")


@pytest.fixture
def storage(tmp_path: Path) -> SlowStorage:
    return SlowStorage(tmp_path)


def state(value: float = 1.0) -> Checkpoint:
    weight = torch.full((3,), value)
    tensors = {"model": {"weight": weight, "tied": weight.detach()}, "optimizer": {"state": {0: {"step": weight[:1]}}}}
    return Checkpoint(int(value), tensors, {"policy": {"version": [1]}, "rows": [{"step": 1}], "seconds": 1.5})


def test_what_changes_after_the_start_is_not_in_the_checkpoint(storage: SlowStorage) -> None:
    checkpoints, checkpoint = Checkpoints(storage, "here"), state()
    writer = CheckpointWriter(checkpoints)
    writer.start(checkpoint)
    assert storage.writing.wait(60), "start has returned, and nothing is written yet"
    assert checkpoints.newest() is None
    checkpoint.tensors["model"]["weight"].fill_(7.0)
    checkpoint.notes["policy"]["version"].append(2)
    checkpoint.notes["rows"].append({"step": 2})
    storage.may_write.set()
    writer.wait()
    newest = checkpoints.newest()
    assert newest is not None
    assert torch.equal(newest.tensors["model"]["weight"], torch.ones(3))
    assert torch.equal(newest.tensors["optimizer"]["state"][0]["step"], torch.ones(1))
    assert newest.notes == state().notes


def test_tensors_that_are_one_remain_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(LocalStorage(tmp_path), "here")
    writer = CheckpointWriter(checkpoints)
    writer.start(state())
    writer.wait()
    newest = checkpoints.newest()
    assert newest is not None
    model = newest.tensors["model"]
    assert model["weight"].data_ptr() == model["tied"].data_ptr()


def test_one_is_written_at_a_time(storage: SlowStorage) -> None:
    writer = CheckpointWriter(Checkpoints(storage, "here"))
    writer.start(state(1.0))
    second = threading.Thread(target=writer.start, args=(state(2.0),))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "it waits for the first"
    storage.may_write.set()
    second.join(60)
    writer.wait()
    newest = Checkpoints(storage, "here").newest()
    assert newest is not None
    assert newest.step == 2


def test_a_write_that_fails_is_logged_and_the_last_one_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = CheckpointWriter(Checkpoints(FullStorage(tmp_path), "here"))
    writer.start(state())
    writer.start(state(2.0))
    assert "here: a checkpoint was not written ([Errno 28] No space left on device)" in caplog.text
    with pytest.raises(WorkError, match=r"here: the last checkpoint cannot be written .*No space left on device"):
        writer.wait()


class DefectiveStorage(LocalStorage):
    def upload(self, local: Path, path: str) -> None:
        raise ValueError("a defect")


@pytest.mark.parametrize("ask", [CheckpointWriter.wait, lambda writer: writer.start(state(2.0))])
def test_a_defect_in_a_write_is_an_error(tmp_path: Path, ask: Callable[[CheckpointWriter], None]) -> None:
    writer = CheckpointWriter(Checkpoints(DefectiveStorage(tmp_path), "here"))
    writer.start(state())
    with pytest.raises(ValueError, match="a defect"):
        ask(writer)


def test_an_error_of_the_training_ends_the_write_and_stays_the_error(storage: SlowStorage, tmp_path: Path) -> None:
    def train(writer: CheckpointWriter) -> None:
        with writer.finished_on_error():
            writer.start(state())
            raise ValueError("of the training")

    storage.may_write.set()
    for checkpoints in (Checkpoints(storage, "here"), Checkpoints(FullStorage(tmp_path), "there")):
        with pytest.raises(ValueError, match="of the training"):
            train(CheckpointWriter(checkpoints))
    assert Checkpoints(storage, "here").newest() is not None


@pytest.mark.servers
def test_an_s3_server_that_is_away_at_a_checkpoint_does_not_end_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(s3_client, "REQUEST_TIME_LIMIT_S", 2.0)  # else a request is tried for 45 s
    keys = Keys("tester", "of-checkpoints")
    with weed_mini(tmp_path / "weed", keys, buckets=["tutelage-tests"]) as server:
        for name, value in (
            ("ENDPOINT_URL", server.url),
            ("ACCESS_KEY_ID", keys.access),
            ("SECRET_ACCESS_KEY", keys.secret),
        ):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        checkpoints = Checkpoints(open_storage("s3://tutelage-tests/run"), "here")
        writer = CheckpointWriter(checkpoints)
        writer.start(state(1.0))
        writer.wait()
    # The server is down.
    writer.start(state(2.0))
    writer.start(state(3.0))
    assert caplog.text.count("here: a checkpoint was not written") == 1
    assert "no answer from" in caplog.text
    with pytest.raises(WorkError, match=r"the last checkpoint cannot be written .* see that the storage answers"):
        writer.wait()
    port = int(server.url.rpartition(":")[2])
    with weed_mini(tmp_path / "weed", keys, buckets=["tutelage-tests"], port=port):
        writer.start(state(4.0))
        writer.wait()
        assert checkpoints.steps() == [4, 1]
        newest = checkpoints.newest()
        assert newest is not None
        assert torch.equal(newest.tensors["model"]["weight"], torch.full((3,), 4.0))


class RefusingStorage(LocalStorage):
    def upload(self, local: Path, path: str) -> None:
        raise InputError("wrong keys")


def test_a_storage_that_refuses_the_keys_ends_the_training(tmp_path: Path) -> None:
    writer = CheckpointWriter(Checkpoints(RefusingStorage(tmp_path), "here"))
    writer.start(state())
    with pytest.raises(InputError, match="wrong keys"):
        writer.start(state(2.0))
