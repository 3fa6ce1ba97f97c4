"""RAY_ADDRESS is asked before work: what will not do is one line, in seconds."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.local.servers import Server, free_port, ray_head
from pipeline.errors import InputError
from pipeline.ray_cluster import address as addresses
from pipeline.ray_cluster.address import _check_probe_result, check_cluster, cluster_address
from pipeline.training.placement import RunnerConfig
from pipeline.training.ray_train import check_machines


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    addresses._probe_results.clear()


def refused(monkeypatch: pytest.MonkeyPatch, address: str) -> str:
    """What is said of an address, in one line."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError) as caught:
        check_cluster()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize("address", ["", "local", "  "])
def test_without_an_address_there_is_a_node_of_our_own(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cluster_address() is None


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("auto", "the cluster that any user started last"),
        ("ray://10.0.0.5:10001", "client server and job server are not supported"),
        ("http://ann:hidden@10.0.0.5:8265", "RAY_ADDRESS=http://10.0.0.5:8265"),
        ("10.0.0.5", "not HOST:PORT"),
        ("10.0.0.5:", "not HOST:PORT"),
        (":6379", "not HOST:PORT"),
        ("10.0.0.5:0", "not HOST:PORT"),
        ("10.0.0.5:66666", "not HOST:PORT"),
        ("10.0.0.5:port", "not HOST:PORT"),
        ("10.0.0.5 :6379", "not HOST:PORT"),
        ("no-such-host.invalid:6379", "nobody answers"),
    ],
)
def test_what_is_no_address_of_a_head_is_refused(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused(monkeypatch, address)
    assert said in line
    assert "hidden" not in line


def test_a_port_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    assert "nobody answers (Connection refused)" in refused(monkeypatch, f"127.0.0.1:{free_port()}")
    assert time.monotonic() - started < 2


@pytest.mark.ray
def test_a_server_that_accepts_and_never_answers_is_refused_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_PROBE_TIMEOUT_S", 60.0)  # a busy machine needs longer to load Ray
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as mute:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(mute.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        line = refused(monkeypatch, f"127.0.0.1:{mute.getsockname()[1]}")
    assert "a server accepts there, but does not answer as Ray" in line
    for one in taken:
        one.close()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ray": "2.40.0"}, "the cluster has Ray 2.40.0, this machine"),
        ({"python": "3.9.1"}, "the cluster has Python 3.9.1, this machine"),
        ({"nodes": []}, "no live node"),
        ({"here": False}, "this machine is not a node of that cluster"),
        ({"error": "RpcError: Timed out while waiting for GCS\nand more"}, "does not answer as Ray"),
        ({"error": "AuthenticationError: InvalidAuthToken"}, "refuses our token"),
        ({"error": "Something: else\nTraceback"}, "Ray does not connect (Something: else)"),
    ],
)
def test_a_cluster_that_will_not_do_is_named_by_what_it_lacks(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=r"RAY_ADDRESS=10\.0\.0\.5:6379") as caught:
        _check_probe_result("10.0.0.5:6379", {"nodes": [{"CPU": 2.0}], "here": True, **changed})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A head as `tutelage up` starts it, with one CPU, and its token."""
    token = secrets.token_hex(16)
    with ray_head(tmp_path_factory.mktemp("head"), free_port(), token=token, cpus=1) as server:
        yield server, token


@pytest.mark.ray
def test_a_head_is_used_with_its_token_and_refused_without(
    head: tuple[Server, str],
    monkeypatch: pytest.MonkeyPatch,
    listeners: Callable[[int], list[Any]],
) -> None:
    server, token = head
    ours = listeners(os.getpid())
    assert any("gcs_server" in one.command for one in ours)
    assert [one for one in ours if one.beyond_loopback] == []
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "guessed")
    assert "refuses our token" in refused(monkeypatch, server.url)
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    assert [node["CPU"] for node in check_cluster()] == [1.0]
    with pytest.raises(InputError, match="workers=2 with 1 CPU each do not fit in 1 CPU on 1 machine"):
        check_machines(RunnerConfig(workers=2, cpus_per_worker=1))
    # In a process of its own: this one's Ray remembers its first cluster.
    code = (
        "from pipeline.ray_cluster import shutdown; from pipeline.ray_cluster.tasks import TaskPool\n"
        "print(TaskPool(sum).submit([1, 2]).result(timeout=60)); shutdown()"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert answer.stdout.strip() == "3", answer.stderr
    # A token in the environment is used though no mode is set, as Ray does.
    monkeypatch.delenv("RAY_AUTH_MODE")
    addresses._probe_results.clear()
    assert check_cluster()
