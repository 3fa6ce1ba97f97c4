"""A proxy in front of the S3 server, which simulates a faulty connection to it."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from tests.conftest import S3Server


Serving = Callable[[type[BaseHTTPRequestHandler]], AbstractContextManager[str]]


@dataclass
class BadLine:
    """A proxy in front of the S3 server that injects faults into responses to GET requests, by a seeded draw.

    Attributes:
        url: its URL for clients.
        faults: faults to inject: "500", "503" (slow down), "reset" (no response), "truncated" (a body that
            ends early), "altered" (one changed byte), "stall" (a body that stops midway).
        share: fraction of responses with a fault; initially 0.
        done: number of injections of each fault.
        requests: number of GET requests received.
    """

    url: str
    faults: tuple[str, ...] = ("500", "503", "reset", "truncated", "altered", "stall")
    share: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    stall_s: float = 3.0
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def choose(self) -> str | None:
        with self.lock:
            self.requests += 1
            fault = self.draw.choice(self.faults) if self.draw.random() < self.share else None
            if fault is not None:
                self.done[fault] += 1
            return fault


class Proxy(BaseHTTPRequestHandler):
    """A proxy in front of the S3 server; subclasses override `serve`, which forwards a request.

    Attributes:
        upstream: HOST:PORT of the server.
    """

    protocol_version = "HTTP/1.1"
    upstream: str

    def serve(self, body: bytes) -> None:
        self.answer(*self.passed_on(body))

    def passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The server's answer to the request: status, headers, body."""
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        # The signature covers the Host header: the server must receive the one that the client signed.
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        skipped = ("transfer-encoding", "connection")
        return response.status, {n: v for n, v in response.getheaders() if n.lower() not in skipped}, data

    def answer(self, status: int, headers: dict[str, str], data: bytes, sent: int | None = None) -> None:
        """Sends a response; `sent` limits the bytes of the body, whatever length the headers state."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        length = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:sent])
            self.wfile.flush()

    def _serve(self) -> None:
        self.serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()


@pytest.fixture(scope="session")
def s3_proxy(s3_server: S3Server) -> type[Proxy]:
    """The base class for proxies in front of the S3 server."""

    class S3Proxy(Proxy):
        upstream = urlsplit(s3_server.url).netloc

    return S3Proxy


@pytest.fixture(scope="session")
def bad_line_server(s3_proxy: type[Proxy], serving: Serving) -> Iterator[BadLine]:
    """The proxy, with session scope because a client caches its endpoint."""

    class Handler(s3_proxy):  # type: ignore[misc, valid-type]
        def serve(self, body: bytes) -> None:
            fault = line.choose() if self.command == "GET" and "list-type" not in self.path else None
            if fault in ("500", "503"):
                code = "InternalError" if fault == "500" else "SlowDown"
                self.answer(int(fault), {}, f"<Error><Code>{code}</Code></Error>".encode())
                return
            if fault == "reset":
                self.cut()
                return
            status, headers, data = self.passed_on(body)
            if fault == "altered" and data:
                data = data[:-1] + bytes([data[-1] ^ 255])
            if fault not in ("truncated", "stall"):
                self.answer(status, headers, data)
                return
            self.answer(status, headers, data, sent=len(data) // 2)
            if fault == "stall":
                time.sleep(line.stall_s)
            self.cut()

        def cut(self) -> None:
            """Closes the connection with a reset, like the machine of a crashed server."""
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    with serving(Handler) as address:
        line = BadLine(f"http://{address}")
        yield line


@pytest.fixture
def bad_line(bad_line_server: BadLine, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadLine]:
    """Routes the store at `s3_url` through the proxy, which injects no faults until configured."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", bad_line_server.url)
    yield bad_line_server
    bad_line_server.share = 0.0
    bad_line_server.done.clear()
    bad_line_server.requests = 0
