"""Settings for every test: quiet tools, no store or service of the machine's user; and fixtures for all tests."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from infra.local.servers import Keys, Server, free_port, prefect_server, weed_mini

# Before any test module imports torch, Prefect, MLflow or Ray: they read these when imported.
os.environ.update(
    DO_NOT_TRACK="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    MLFLOW_LOGGING_LEVEL="WARNING",  # as `tutelage` sets it
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    RAY_USAGE_STATS_ENABLED="0",
)
os.environ.setdefault("OMP_NUM_THREADS", "2")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # `make test &` in a script: the shell makes its background jobs ignore Ctrl-C, and every child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
for _name in ("TUTELAGE_STORE", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RAY_ADDRESS", "AWS_ENDPOINT_URL"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def own_store(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a test that does not name its store a temporary one, never the one in the working folder.

    MLflow's set_tracking_uri writes the environment, and an earlier test of this process may have called it.
    """
    monkeypatch.setenv("TUTELAGE_STORE", f"{tmp_path}/store")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@dataclass(frozen=True)
class S3Server:
    """The server's address and credentials."""

    url: str
    bucket: str
    keys: Keys

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that boto3 needs to reach it, in this or another process."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.keys.access,
            "AWS_SECRET_ACCESS_KEY": self.keys.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS with one empty bucket."""
    keys = Keys("tester", uuid.uuid4().hex)
    bucket = "tutelage-tests"
    with weed_mini(tmp_path_factory.mktemp("weed"), keys, buckets=[bucket]) as server:
        yield S3Server(server.url, bucket, keys)


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty s3:// store, to which this process's environment points."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Turns a folder into a PREFECT_HOME with a database that has its tables.

    A Prefect server creates them in 12 s of one core. Here they are created once for all processes and copied; the
    lifecycle's journey starts without them, as a user does.
    """
    ours = tmp_path_factory.getbasetemp()
    shared = ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours
    database_home = shared / "prefect-home"
    with FileLock(f"{database_home}.lock"):
        if not database_home.exists():
            env = {**os.environ, "PREFECT_HOME": f"{database_home}.new"}
            upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(upgrade, env=env, check=True, capture_output=True)
            os.rename(f"{database_home}.new", database_home)

    def copied(home: Path) -> Path:
        home.mkdir(parents=True)
        shutil.copy(database_home / "prefect.db", home)
        return home

    return copied


@pytest.fixture(scope="session")
def prefect(prefect_home: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Prefect server that runs before the flows, one per session."""
    from flows.cli.shell_run import flush_prefect

    home = prefect_home(tmp_path_factory.mktemp("prefect") / "home")
    with prefect_server(home, free_port()) as server:
        yield server
        flush_prefect()


@pytest.fixture(scope="session")
def serving() -> Callable[[type[BaseHTTPRequestHandler]], AbstractContextManager[str]]:
    """Runs an HTTP server with a given handler on a free port of loopback; the value is HOST:PORT."""

    @contextmanager
    def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
        class Quiet(handler):  # type: ignore[misc, valid-type]
            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    return served


@pytest.fixture
def deaf() -> Iterator[str]:
    """HOST:PORT on which no process listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture
def web(serving: Callable[[type[BaseHTTPRequestHandler]], AbstractContextManager[str]]) -> Iterator[str]:
    """HOST:PORT of a web server: /503/... answers with that status, any other path with a page."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            what = self.path.split("/")[1]
            self.send_response(int(what) if what.isdecimal() else 200)
            self.end_headers()
            self.wfile.write(b"<html>\n<p>Welcome\n</html>")

        do_POST = do_GET

    with serving(Answer) as address:
        yield address


@dataclass(frozen=True)
class Listener:
    """A TCP port on which a process listens.

    Attributes:
        address: e.g. "127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0".
    """

    address: str
    port: int
    command: str

    @property
    def beyond_loopback(self) -> bool:
        where = ipaddress.ip_address(self.address)
        return not (getattr(where, "ipv4_mapped", None) or where).is_loopback


@pytest.fixture
def listeners() -> Callable[[int], list[Listener]]:
    """The ports on which a process and its descendants listen, as `ss -ltnp` shows them."""

    def of(ancestor: int) -> list[Listener]:
        commands = {pid: command for pid in family(ancestor) if (command := read(f"/proc/{pid}/cmdline"))}
        holders = {}
        for pid in commands:
            for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    holders[os.readlink(descriptor)] = pid
        found = []
        for table in ("tcp", "tcp6"):
            for line in read(f"/proc/{ancestor}/net/{table}").splitlines()[1:]:
                local, state, inode = (words := line.split())[1], words[3], words[9]
                if state == "0A" and (holder := holders.get(f"socket:[{inode}]")):
                    found.append(Listener(*endpoint(local), commands[holder].replace("\0", " ")[:200]))
        return found

    def endpoint(text: str) -> tuple[str, int]:
        """Parses the kernel's notation: words of four bytes in the machine's byte order, in hexadecimal."""
        digits, _, port = text.partition(":")
        raw = b"".join(bytes.fromhex(digits[i : i + 8])[::-1] for i in range(0, len(digits), 8))
        return str(ipaddress.ip_address(raw)), int(port, 16)

    def read(path: str) -> str:
        try:
            return Path(path).read_text(errors="replace")
        except OSError:
            return ""

    def family(ancestor: int) -> list[int]:
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (status := read(f"{entry}/stat")):
                parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
        pids, before = {ancestor}, 0
        while len(pids) > before:
            before = len(pids)
            pids |= {pid for pid, parent in parents.items() if parent in pids}
        return sorted(pids)

    return of


@pytest.fixture
def without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables TF32 on a GPU, which rounds the inputs of float32 products and convolutions to 10 bits."""
    import torch

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.fixture
def no_waiting() -> Callable[[int], AbstractContextManager[None]]:
    """Makes an operation for which the CPU waits for the GPU raise RuntimeError, except at step 0, which allocates."""
    import torch

    @contextmanager
    def watched(step: int) -> Iterator[None]:
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return watched


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU: torch.cuda.is_available() is false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs fast tests first, then the longest, so that two processes do not end with a long one."""
    marks = ["journey", "ray", "servers"]
    items.sort(key=lambda item: next((n for n, mark in enumerate(marks) if item.get_closest_marker(mark)), -1))
