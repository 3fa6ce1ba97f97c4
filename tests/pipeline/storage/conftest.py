"""A gateway in front of the S3 server that fakes some responses, and an address that never answers."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest

PAGE = b"<html><head><title>Sign in</title></head><body>This network needs a sign-in.</body></html>"


@dataclass
class Gateway:
    """A proxy that forwards every request except the ones for which `fakes` returns a fake response.

    Attributes:
        url: its URL for clients.
        fakes: maps method and path with query to "page" (a web page, 200), "page with etag", "nothing" (200, no body),
            "json", "stored" (200 with the ETag of the sent body, not forwarded), "silence" (no response), or None:
            the server's own response.
        sent: the fake responses that were sent.
    """

    url: str = ""
    fakes: Callable[[str, str], str | None] = lambda method, path: None
    sent: list[str] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def gateway(
    s3_proxy: type[Any],
    serving: Callable[[type[Any]], AbstractContextManager[str]],
    s3_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Gateway]:
    """Routes the store at `s3_url` through a gateway."""
    state = Gateway()

    class Handler(s3_proxy):  # type: ignore[misc]
        def serve(self, body: bytes) -> None:
            fake = state.fakes(self.command, self.path)
            if fake is not None:
                state.sent.append(fake)
            if fake == "silence":
                state.ending.wait(200)
                self.close_connection = True
                return
            if fake in ("page", "page with etag"):
                etag = {"ETag": '"5f3a-61b2c8"'} if fake == "page with etag" else {}
                self.answer(200, {"Content-Type": "text/html; charset=utf-8", **etag}, PAGE)
            elif fake == "nothing":
                self.answer(200, {}, b"")
            elif fake == "json":
                self.answer(200, {"Content-Type": "application/json"}, b'{"status": "ok"}')
            elif fake == "stored":
                self.answer(200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}, b"")
            else:
                super().serve(body)

    with serving(Handler) as address:
        state.url = f"http://{address}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", state.url)
        yield state
        state.ending.set()


@pytest.fixture
def silent_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address that accepts every connection and every byte, and never responds."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    accepted: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    yield url
    # Closing a listener does not end another thread's wait for it.
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for connection in accepted:
        connection.close()
