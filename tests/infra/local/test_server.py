"""Servers: they answer when `start` returns, say why when they do not, and never outlive their owner."""

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from infra.local.server import PortTakenError, Server, ServerError, free_port, free_port_block, is_free
from infra.local.servers import Keys

# A web server that starts a child of its own in the same group and writes both ids, as MLflow's does.
FAMILY = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ids", os.getpid(), child.pid, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


# Ends its child by itself when it is told to end, as Ray's head does with its node.
ORDERLY = """
import signal, subprocess, sys, time
tells = "signal.signal(signal.SIGTERM, lambda *_: print('child told', flush=True)); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", "import signal, time; " + tells])

def end(number, frame):
    child.kill()
    child.wait()
    print("ended in order", flush=True)
    sys.exit()

signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int, within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def ids(log: Path) -> list[int]:
    return [int(word) for word in log.read_text().splitlines()[0].split()[1:]]


@pytest.fixture
def family(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    return Server(
        "family", [sys.executable, "-c", FAMILY, str(port)], url, [url], tmp_path / "log" / "server.log", ports=[port]
    )


def test_it_answers_when_start_returns_and_its_children_end_with_stop(family):
    with family:
        with socket.create_connection(("127.0.0.1", family.ports[0]), 1):
            pass
        server, child = ids(family.log)
        assert alive(server)
        assert alive(child)
    assert ends(server)
    assert ends(child)
    assert is_free(family.ports[0])


def test_it_ends_when_its_owner_is_killed(tmp_path):
    port = free_port()
    log = tmp_path / "server.log"
    owner_code = textwrap.dedent(f"""
        import sys, threading, time
        from pathlib import Path
        from infra.local.server import Server
        url = "http://127.0.0.1:{port}"
        server = Server("family", [sys.executable, "-c", {FAMILY!r}, "{port}"], url, [url], Path({str(log)!r}))
        # Started by a thread that ends at once: the server must outlive it.
        starter = threading.Thread(target=server.start)
        starter.start()
        starter.join()
        print("up", flush=True)
        time.sleep(600)
    """)
    owner = subprocess.Popen([sys.executable, "-c", owner_code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        server, child = ids(log)
        time.sleep(0.3)
        assert alive(server)
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    assert ends(server)
    assert ends(child)


# Deaf to SIGTERM, with a child in its group.
DEAF = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ids", os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("whom", [os.kill, os.killpg])
@pytest.mark.parametrize("code", [FAMILY, DEAF])
def test_it_ends_when_its_leash_is_killed(tmp_path, whom, code):
    port = free_port()
    command = [sys.executable, "-c", code, str(port)]
    server = Server("family", command, "", [f"127.0.0.1:{port}"], tmp_path / "server.log", grace_s=0.5)
    server.launch()
    try:
        deadline = time.monotonic() + 20
        while b"ids" not in server.log.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.02)
        leader, child = ids(server.log)
        whom(server.pid, signal.SIGKILL)
        assert ends(leader)
        assert ends(child)
        assert not server.running
    finally:
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's death exists on Linux only")
def test_it_ends_when_its_owner_its_leash_and_the_guard_are_killed_together(tmp_path):
    log = tmp_path / "server.log"
    owner_code = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from infra.local.server import Server
        server = Server("orderly", [sys.executable, "-c", {ORDERLY!r}], "", [], Path({str(log)!r}))
        server.launch()
        print(server.pid, flush=True)
        time.sleep(600)
    """)
    owner = subprocess.Popen([sys.executable, "-c", owner_code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert owner.stdout is not None
    leash = int(owner.stdout.readline())
    deadline = time.monotonic() + 20
    while b"up" not in log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    children = [int(pid) for pid in Path(f"/proc/{leash}/task/{leash}/children").read_text().split()]
    guard, server = sorted(children, key=lambda pid: b"leash.py" not in Path(f"/proc/{pid}/cmdline").read_bytes())
    # The guard first: it would end the server as soon as the leash is gone.
    for pid in (guard, owner.pid, leash):
        os.kill(pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    try:
        assert ends(server)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server, signal.SIGKILL)
    assert b"ended in order" in log.read_bytes()


def test_one_that_ignores_sigterm_is_killed(tmp_path):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(9e3)"
    )
    server = Server("deaf", [sys.executable, "-c", code], "", ["127.0.0.1:1"], tmp_path / "log", grace_s=0.3)
    server.launch()
    deadline = time.monotonic() + 10
    while b"deaf" not in server.log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    started = time.monotonic()
    server.stop()
    assert 0.2 < time.monotonic() - started < 3


def test_it_is_told_to_end_before_what_it_started(tmp_path):
    server = Server("orderly", [sys.executable, "-c", ORDERLY], "", ["127.0.0.1:1"], tmp_path / "log")
    server.launch()
    deadline = time.monotonic() + 10
    while b"up" not in server.log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    # The child hears as soon as Python has started in it.
    time.sleep(0.3)
    server.stop()
    assert server.log.read_text().split("\n") == ["up", "ended in order", ""]


def test_one_that_dies_shows_the_end_of_its_log(tmp_path):
    server = Server(
        "frail",
        [sys.executable, "-c", "raise SystemExit('no such database')"],
        "",
        [f"127.0.0.1:{free_port()}"],
        tmp_path / "frail.log",
    )
    with pytest.raises(ServerError, match=r"(?s)frail: ended early, no answer at .*frail\.log.*no such database"):
        server.start()
    assert not server.running


def test_one_that_never_answers_is_stopped_and_reported(tmp_path):
    command = [sys.executable, "-c", "import os, time; print('ids', os.getpid(), flush=True); time.sleep(600)"]
    server = Server("mute", command, "", [f"127.0.0.1:{free_port()}"], tmp_path / "log", start_timeout_s=1)
    with pytest.raises(ServerError, match=r"mute: no answer at .* in 1 s"):
        server.start()
    assert ends(ids(server.log)[0])


def test_a_program_that_is_not_there_is_reported(tmp_path):
    server = Server("ghost", ["/no/such/program"], "", [f"127.0.0.1:{free_port()}"], tmp_path / "log")
    with pytest.raises(ServerError, match="ghost: cannot run /no/such/program"):
        server.start()


def test_a_taken_port_is_refused_before_anything_starts(family):
    with socket.socket() as other:
        other.bind(("127.0.0.1", family.ports[0]))
        other.listen()
        with pytest.raises(PortTakenError, match=f"family: port {family.ports[0]} .* is taken"):
            family.start()
    assert not family.log.exists()


def test_a_broken_answer_is_no_answer(tmp_path, serving):
    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with serving(Broken) as address:
        url = f"http://{address}/"
        starting = Server("starting", command, url, [url], tmp_path / "log", start_timeout_s=1)
        with pytest.raises(ServerError, match="no answer"):
            starting.start()


def test_environment_variables_are_set_and_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("GONE", "1")
    code = "import os; print(os.environ.get('GONE'), os.environ.get('SET'))"
    env = {"GONE": None, "SET": "yes"}
    server = Server("env", [sys.executable, "-c", code], "", ["127.0.0.1:1"], tmp_path / "log", env=env)
    with pytest.raises(ServerError):
        server.start()
    assert server.log.read_text().startswith("None yes")
    assert os.environ["GONE"] == "1"


def test_a_port_block_is_free_with_its_twins():
    first = free_port_block(5, twins_at=10000)
    assert all(is_free(port) and is_free(port + 10000) for port in range(first, first + 5))


def test_a_secret_is_not_shown():
    assert "hidden" not in repr(Keys("name", "hidden"))


# Makes a database in two steps and serves; it cannot use one that was left after the first.
TWO_STEPS = """
import http.server, os, sqlite3, sys, time
made = os.path.exists("data.db")
database = sqlite3.connect("data.db")
if not made:
    database.execute("CREATE TABLE first (x)")
    database.commit()
    if os.path.exists("slow"):
        print("half made", flush=True)
        time.sleep(600)
    database.execute("CREATE TABLE second (x)")
    database.commit()
database.execute("SELECT * FROM second")
database.close()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_server_killed_while_it_makes_its_database_starts_again(tmp_path: Path) -> None:
    def server() -> Server:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", TWO_STEPS, str(port)]
        return Server("two steps", command, url, [url], tmp_path / "log", folder=tmp_path, creates=tmp_path / "data.db")

    (tmp_path / "slow").touch()
    first = server()
    first.launch()
    deadline = time.monotonic() + 30
    while "half made" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    first.stop()
    (tmp_path / "slow").unlink()
    with server():
        inode = (tmp_path / "data.db").stat().st_ino
    # One that came to answer is never removed, however it ended.
    with server():
        assert (tmp_path / "data.db").stat().st_ino == inode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.db", "log"]
