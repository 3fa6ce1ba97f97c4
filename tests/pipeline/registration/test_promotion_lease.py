from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import DamagedError, WorkError
from pipeline.registration.promotion_lease import promotion_lease
from pipeline.storage import Storage, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def test_one_holder_at_a_time(storage: Storage) -> None:
    inside, limit, lock = [0], [0], threading.Lock()

    def hold() -> None:
        for _ in range(3):
            with promotion_lease(storage, "model"):
                with lock:
                    inside[0] += 1
                    limit[0] = max(limit[0], inside[0])
                time.sleep(0.01)
                with lock:
                    inside[0] -= 1

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit == [1]


def test_a_dead_holders_lease_ends(storage: Storage) -> None:
    storage.write("leases/model.json", json.dumps({"owner": "gone", "ends": time.time() + 0.3}).encode())
    told: list[bool] = []
    started = time.monotonic()
    with promotion_lease(storage, "model", on_wait=lambda: told.append(True)):
        assert 0.1 < time.monotonic() - started < 5
    assert told == [True]


def test_waiting_ends_with_the_holders_name(storage: Storage) -> None:
    storage.write("leases/model.json", json.dumps({"owner": "host/7", "ends": time.time() + 60}).encode())
    with pytest.raises(WorkError, match="held by host/7"), promotion_lease(storage, "model", wait_s=0.1):
        pass


def test_an_ended_lease_protects_nothing(storage: Storage) -> None:
    # Long enough for a machine that is busy with other things.
    with promotion_lease(storage, "model", length_s=2.0) as lease:
        lease.check()
        time.sleep(2.1)
        with pytest.raises(WorkError, match="lease ended"):
            lease.check()


def test_who_lost_the_lease_does_not_take_it_from_the_next(storage: Storage) -> None:
    with promotion_lease(storage, "model", length_s=0.01):
        time.sleep(0.05)
        storage.write("leases/model.json", json.dumps({"owner": "next", "ends": time.time() + 60}).encode())
    assert json.loads(storage.read("leases/model.json"))["owner"] == "next"


def test_models_do_not_wait_for_each_other(storage: Storage) -> None:
    with promotion_lease(storage, "one"), promotion_lease(storage, "two", wait_s=0.1):
        pass


def test_an_error_under_the_lease_frees_it(storage: Storage) -> None:
    with pytest.raises(KeyError), promotion_lease(storage, "model"):
        raise KeyError
    with promotion_lease(storage, "model", wait_s=0.1):
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b'{"owner": "a"}',
        b'{"owner": "a", "ends": "soon"}',
        b'{"owner": "a", "ends": NaN}',
        b'{"owner": "a", "ends": 1e999}',
        b'{"owner": 7, "ends": 0}',
        b'{"owner": "a", "ends": true}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_a_lease_is_an_error_at_once(storage: Storage, content: bytes) -> None:
    storage.write("leases/model.json", content)
    started = time.monotonic()
    with pytest.raises(DamagedError, match=r"leases/model\.json: not a lease; if nobody promotes"):
        promotion_lease(storage, "model").__enter__()
    assert time.monotonic() - started < 2
    assert storage.read("leases/model.json") == content


@pytest.mark.parametrize("obstacle", ["folder", "full folder", "broken link", "parent is a file"])
def test_what_cannot_be_a_lease_is_an_error_and_no_endless_loop(
    storage: Storage, tmp_path: Path, obstacle: str
) -> None:
    place = tmp_path / "leases" / "model.json"
    if obstacle == "parent is a file":
        place.parent.write_text("")
    else:
        place.parent.mkdir()
        if obstacle == "broken link":
            place.symlink_to(tmp_path / "nothing")
        else:
            place.mkdir()
            if obstacle == "full folder":
                (place / "x").write_text("")
    started = time.monotonic()
    with pytest.raises(WorkError, match=r"leases/model\.json: .*run") as caught:
        promotion_lease(storage, "model").__enter__()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10


def test_a_lease_that_is_spoiled_while_it_is_held_spoils_nothing_else(storage: Storage) -> None:
    with promotion_lease(storage, "model"):
        storage.write("leases/model.json", b"")
