"""Addresses are asked in seconds, whatever is there."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from pipeline.reachability import http_problem, tcp_problem
from pipeline.service_url import shown_url

Serving = Callable[[type[BaseHTTPRequestHandler]], AbstractContextManager[str]]

Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Listens on a free port and gives each connection to a function, in a thread; gives HOST:PORT."""
    listeners: list[socket.socket] = []

    def start(answer: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def mute(connection: socket.socket) -> None:
    time.sleep(30)


def dribbling(connection: socket.socket) -> None:
    """Never quiet for long, so that no timeout of a socket ends it."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(300):
        try:
            connection.sendall(f"X-{number}: x\r\n".encode())
        except OSError:
            return
        time.sleep(0.1)


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"\x00\x16\x03 220 ready\r\n")
    connection.close()


def closing(connection: socket.socket) -> None:
    connection.close()


@pytest.mark.parametrize("answer", [mute, dribbling, garbage, closing])
def test_a_server_that_gives_no_answer_is_refused_in_time(answer: Any, serve: Serve) -> None:
    address = serve(answer)
    started = time.monotonic()
    problem = http_problem(f"http://{address}/health", within_s=1)
    assert problem is not None
    assert "\n" not in problem
    assert time.monotonic() - started < 10, "it answers for 30 s"


@pytest.fixture
def drops() -> Iterator[int]:
    """A port of this machine that drops packets, as a firewall does: its queue of connections is full."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_host_that_drops_packets_is_refused_in_time(drops: int) -> None:
    started = time.monotonic()
    assert tcp_problem("127.0.0.1", drops, within_s=0.5) == "nobody answers (waited 0.5 s)"
    assert http_problem(f"http://127.0.0.1:{drops}/health", within_s=0.5) == "nobody answers (waited 0.5 s)"
    assert time.monotonic() - started < 10, "a kernel gives up after minutes"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "with space", "", "a" * 70, "[::"])
def test_what_is_no_host_is_refused_in_one_line(host: str) -> None:
    for problem in (tcp_problem(host, 99_999), http_problem(f"http://ann:hidden@{host}:99999/")):
        assert problem
        assert "\n" not in problem
        assert "hidden" not in problem


def test_nobody_at_the_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert tcp_problem("127.0.0.1", port) == "nobody answers (Connection refused)"
        assert http_problem(f"http://127.0.0.1:{port}") == "nobody answers (Connection refused)"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        code = {"/health": 200, "/closed": 401, "/broken": 503}.get(self.path, 404)
        if self.path == "/login":
            code = 200 if self.headers["Authorization"] == "Basic YW5uOnNlIGNyZXQ=" else 401
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b"true\n")


def test_an_answer_counts_if_it_is_the_right_one(monkeypatch: pytest.MonkeyPatch, serving: Serving) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(Answers) as address:
        url = f"http://{address}"
        assert http_problem(f"{url}/health") is None
        assert http_problem(f"{url}/health", expected_body=b"true") is None
        assert http_problem(f"{url}/health", expected_body=b"OK") == "answers, but as another kind of server"
        assert http_problem(f"{url}/closed", accepted_statuses=(401,)) is None
        assert (http_problem(f"{url}/broken") or "").startswith("answers 503")
        assert http_problem(f"{url}/login".replace("//", "//ann:se%20cret@")) is None
        wrong = http_problem(f"{url}/login".replace("//", "//ann:hidden@"))
        assert wrong is not None
        assert "hidden" not in wrong


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://ann:hidden@host:4200/api?key=hidden#hidden", "http://host:4200/api"),
        ("http://ann:hid@den@host", "http://host"),
        ("ann:hidden@host:5000", "host:5000"),
        ("127.0.0.1:6379", "127.0.0.1:6379"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown
