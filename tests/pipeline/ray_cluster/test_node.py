"""The node that is started on this machine: nobody else gets in, and nothing of it stays."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import ray_cluster
from pipeline.errors import InputError
from pipeline.ray_cluster import folder as node_folder
from pipeline.ray_cluster import session as sessions
from pipeline.ray_cluster.folder import NodeFolder, parent_folder, remove_abandoned
from pipeline.ray_cluster.tasks import TaskPool

Listeners = Callable[[int], list[Any]]


@pytest.fixture
def node() -> Iterator[sessions.Session]:
    yield ray_cluster.start()
    ray_cluster.shutdown()


@pytest.fixture
def elsewhere() -> Iterator[tuple[list[str], str]]:
    """Another machine, as a network namespace: what runs a command there, and our address as it sees us."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and iproute2")
    name, number = f"tutelage{os.getpid()}", os.getpid() % 60000
    here, there = (f"10.213.{number // 250}.{number % 250 + low}" for low in (1, 2))
    ours, theirs = f"tu{os.getpid()}a", f"tu{os.getpid()}b"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)

    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs)
        ip("link", "set", theirs, "netns", name)
        ip("addr", "add", f"{here}/32", "peer", there, "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", f"{there}/32", "peer", here, "dev", theirs)
        ip("-n", name, "link", "set", theirs, "up")
        yield ["ip", "netns", "exec", name], here
    finally:
        subprocess.run(["ip", "link", "del", ours], check=False, capture_output=True)
        ip("netns", "del", name)


KNOCK = """
import socket, sys
for port in sys.argv[2:]:
    try:
        socket.create_connection((sys.argv[1], int(port)), 2).close()
        print(port)
    except OSError:
        pass
"""


@pytest.mark.ray
def test_nobody_gets_in_from_another_machine_and_here_none_without_the_token(
    node: sessions.Session, elsewhere: tuple[list[str], str], listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    assert TaskPool(sum).submit([1, 2]).result(timeout=60) == 3
    ours = listeners(os.getpid())
    assert any("gcs_server" in one.command for one in ours)
    assert any("raylet" in one.command for one in ours)
    assert [one for one in ours if one.beyond_loopback] == []

    there, here = elsewhere
    with socket.create_server(("", 0)) as open_to_all:
        control = open_to_all.getsockname()[1]
        ports = [str(control), *(str(one.port) for one in ours)]
        answer = subprocess.run(
            [*there, sys.executable, "-c", KNOCK, here, *ports], capture_output=True, text=True, check=True, timeout=120
        )
    assert answer.stdout.split() == [str(control)], "a port of ours answers to another machine"

    head = ray.get_runtime_context().gcs_address
    assert ask_as(head, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH="").startswith("AuthenticationError")
    assert ask_as(head, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="guessed").startswith("AuthenticationError")
    assert ask_as(head) == "", "with the token one gets in"


def ask_as(address: str, **env: str) -> str:
    """The error that a process with these variables gets from a cluster; "" if it gets in."""
    code = (
        "import os, sys; from pipeline.ray_cluster.probe import probe_cluster\n"
        "try: probe_cluster(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error, flush=True)\n"
        "os._exit(0)"
    )
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **env}
    answer = subprocess.run(
        [sys.executable, "-c", code, address], env=environment, capture_output=True, text=True, check=True, timeout=90
    )
    return answer.stdout


@pytest.mark.ray
def test_the_token_is_its_owners_and_goes_with_the_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listeners: Listeners
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    session = ray_cluster.start()
    try:
        assert session.folder is not None
        token = session.folder.token.read_text()
        assert len(token) >= 32
        assert stat.S_IMODE(session.folder.token.stat().st_mode) == 0o600
        # Within it Ray opens its folders, and sockets that ask for no token, to everybody.
        assert stat.S_IMODE(session.folder.path.stat().st_mode) == 0o700
        assert list(session.folder.session.glob("session_2*/sockets/raylet"))
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
        assert not [line for line in lines if token.encode() in line]
        assert token not in os.environ.values()
    finally:
        ray_cluster.shutdown()
    assert not session.folder.path.exists()
    assert not (tmp_path / ".ray").exists()
    assert os.environ["RAY_AUTH_MODE"] == "disabled", "what the user had set is there again"
    # Ray's C++ remembers what it read first.
    again = ray_cluster.start()
    try:
        assert TaskPool(sum).submit([1, 2]).result(timeout=60) == 3
    finally:
        ray_cluster.shutdown()
    assert again.folder is not None
    assert not again.folder.path.exists()


@pytest.mark.parametrize("length", [19, 20, 200])
def test_a_long_tmpdir_gives_way_to_a_short_folder(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(f"/tmp/{'t' * (length - 5)}") if length < 100 else tmp_path / ("t" * length)
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    try:
        assert parent_folder() == (folder if length == 19 else Path("/tmp"))
        monkeypatch.setattr(node_folder, "_OTHER_PARENTS", ("/no/such",))
        if length > 19:
            with pytest.raises(InputError, match="set TMPDIR to a folder that can be written and has a short name"):
                parent_folder()
    finally:
        folder.rmdir()


@pytest.mark.ray
def test_a_node_starts_below_a_folder_as_long_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(f"/tmp/{secrets.token_hex(7)}")
    assert len(str(folder)) == 19
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    try:
        session = ray_cluster.start()
        assert session.folder is not None
        assert session.folder.path.parent == folder
        assert TaskPool(sum).submit([1, 2]).result(timeout=60) == 3
    finally:
        ray_cluster.shutdown()
        folder.rmdir()


OWNER = """
import sys, time
from pipeline.ray_cluster.folder import NodeFolder
ours = NodeFolder()
print(ours.path, flush=True)
time.sleep(600)
"""


def test_the_folder_of_a_killed_owner_is_swept_and_that_of_a_living_one_is_not() -> None:
    alive = NodeFolder()
    strange = alive.path.with_name(f"tutelage-ray-of-somebody-{os.getpid()}")
    strange.mkdir()
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        remove_abandoned()
        assert left.is_dir()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        NodeFolder().remove()
        assert not left.exists()
        assert alive.token.is_file()
        assert strange.is_dir()
    finally:
        owner.kill()
        alive.remove()
        strange.rmdir()


@pytest.mark.ray
def test_waiting_for_ray_ends_at_once_when_the_waiting_one_is_told_to_stop() -> None:
    class ToldToStop(Exception):
        pass

    def stop() -> None:
        raise ToldToStop

    started = time.monotonic()
    with pytest.raises(ToldToStop):
        ray_cluster.start(stop)
    assert time.monotonic() - started < 2
    ray_cluster.shutdown()
    assert sessions._session is None
