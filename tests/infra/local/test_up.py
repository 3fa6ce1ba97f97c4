"""`up`: the real servers come up together, serve one another, and go together."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local import postgres
from infra.local.server import PortTakenError, ServerError, is_free
from infra.local.servers import Keys
from infra.local.up import Ports, Stack, up

RUN = """
import sys
from pathlib import Path
from infra.local.up import Ports, up
up(Path(sys.argv[1]), pool="tutelage", ports=Ports(*map(int, sys.argv[2:])), say=lambda line: print(line, flush=True))
"""


# Of a shell that has servers, keys and a store of its own.
OF_THE_SHELL = {
    "TUTELAGE_STORE": "/store/of/the/shell",
    "AWS_ACCESS_KEY_ID": "key of the shell",
    "AWS_SESSION_TOKEN": "token of the shell",
    "AWS_PROFILE": "of-the-shell",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:1",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
    "PREFECT_SERVER_API_AUTH_STRING": "someone:secret",
    "RAY_AUTH_TOKEN": "token of the shell",
}


def environments(owner, program):
    """The environments of the processes below one whose command line holds `program`."""
    parents, found = {}, []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                parents[int(place.name)] = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    for pid in parents:
        above = pid
        while above in parents and above != owner:
            above = parents[above]
        if above != owner:
            continue
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        if program in command and "leash.py" not in command:
            found.append(dict(entry.split("=", 1) for entry in entries if "=" in entry))
    return found


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def soon(true, within_s=30.0):
    deadline = time.monotonic() + within_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return true()


@pytest.fixture
def parent():
    """Not tmp_path, which PostgreSQL's own user cannot enter when pytest runs as root."""
    parent = Path(tempfile.mkdtemp(prefix="tutelage-up-"))
    parent.chmod(0o755)
    yield parent
    shutil.rmtree(parent)


@pytest.fixture
def ports():
    return Ports.free()


@contextmanager
def running(folder, numbers):
    """The process of `up`, and the lines that it printed at its start."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), *map(str, numbers)],
        env={**os.environ, **OF_THE_SHELL},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = []
        while not (said and said[-1].startswith("Ctrl-C")):
            line = process.stdout.readline()
            assert line, f"{''.join(said)}\n{process.stderr.read()}"
            said.append(line)
        yield process, said
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=150)
    assert soon(lambda: all(map(is_free, numbers)))


def tar_commands():
    """The commands of docs/operations.md that copy the folder of `up`, and that restore it."""
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    (copy,) = re.findall(r"^tar .+$", page, flags=re.MULTILINE)
    (restore,) = re.findall(r"`(tar .+?)`", page)
    return copy, restore


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_the_stack_comes_up_serves_goes_without_a_trace_and_comes_back_from_a_backup(parent, ports, listeners):
    folder = parent / ".tutelage" / "up"
    numbers = [ports.s3, ports.postgres, ports.mlflow, ports.prefect, ports.worker, ports.ray]
    copy, restore = tar_commands()
    with running(folder, numbers) as (process, said):
        script = folder / "environment.sh"
        assert stat.S_IMODE(script.stat().st_mode) == 0o600
        environment = dict(
            word.split("=", 1) for line in script.read_text().splitlines() for word in shlex.split(line)[1:]
        )
        for secret in (environment["AWS_SECRET_ACCESS_KEY"], environment["RAY_AUTH_TOKEN"]):
            assert secret not in "".join(said)
        assert f"{environment['MLFLOW_TRACKING_URI']}/#/experiments?workflowType=machine_learning" in "".join(said)

        # MLflow passes an artifact on to S3: the two know each other.
        uploaded = f"{environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow-artifacts/artifacts/0/hello.txt"
        put = urllib.request.Request(uploaded, b"hello", {"Content-Type": "text/plain"}, method="PUT")
        urllib.request.urlopen(put, timeout=30).close()
        assert ask(uploaded) == b"hello"
        # The worker makes the pool that it serves.
        filtered = f"{environment['PREFECT_API_URL']}/work_pools/filter"
        assert soon(lambda: json.loads(ask(filtered, {})))
        (pool,) = json.loads(ask(filtered, {}))
        assert (pool["name"], pool["type"]) == ("tutelage", "process")
        with socket.create_connection(("127.0.0.1", ports.ray), 5):
            pass
        # What trains and what runs flows finds these servers, and nothing of the shell's.
        wanted = dict.fromkeys(OF_THE_SHELL) | environment
        for program, own in (("raylet/raylet", {"RAY_ADDRESS": None}), ("prefect worker start", {})):
            found = environments(process.pid, program)
            assert found, program
            for given in found:
                assert {name: given.get(name) for name in wanted} == wanted | own, program
        ours = listeners(process.pid)
        assert {ports.s3, ports.mlflow, ports.prefect, ports.worker, ports.ray} <= {one.port for one in ours}
        assert [one for one in ours if one.beyond_loopback] == []
        if postgres.is_installed():
            assert any(line.startswith("PostgreSQL") and "127.0.0.1" in line for line in said)
            assert not (folder / "prefect" / "prefect.db").exists()
        ask(f"{environment['PREFECT_API_URL']}/variables/", {"name": "kept", "value": "yes"})
    exports = script.read_text()
    subprocess.run(copy, shell=True, check=True, cwd=parent)
    shutil.rmtree(folder)
    subprocess.run(restore, shell=True, check=True, cwd=parent)
    with running(folder, numbers):
        assert script.read_text() == exports
        assert ask(uploaded) == b"hello"
        assert json.loads(ask(f"{environment['PREFECT_API_URL']}/variables/name/kept"))["value"] == "yes"


def test_without_its_extra_packages_it_keeps_everything_in_folders(tmp_path, ports, monkeypatch):
    monkeypatch.setattr("infra.local.up.weed_program", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = []
    stack = Stack(tmp_path, ports, "p", said.append)
    assert stack._s3(Keys("a", "b")) is None
    assert not stack._has_driver()
    assert f"the store is {tmp_path / 'store'}" in said[0]
    assert all("pip install 'tutelage[up]'" in line for line in said)


def test_data_in_postgresql_are_not_left_for_sqlite_where_its_programs_are_missing(tmp_path, ports, monkeypatch):
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text("16\n")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerError, match="its programs are not on the PATH; add their folder"):
        Stack(tmp_path, ports, "p", print)._database()


def test_a_taken_port_stops_it_before_anything_runs(tmp_path, ports):
    said = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports.ray))
        other.listen()
        with pytest.raises(PortTakenError, match=f"port {ports.ray} "):
            up(tmp_path, pool="p", ports=ports, say=said.append)
    assert [line.partition(" ")[0] for line in said] == ["starting", "stopping;"]
    assert list(tmp_path.iterdir()) == []


def test_keys_are_made_once_and_kept_from_others(tmp_path, ports):
    first = Stack(tmp_path, ports, "p", print)._secrets()
    assert Stack(tmp_path, ports, "p", print)._secrets() == first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert len(first[1]) >= 32
