"""A Prefect server that asks to be asked again is asked again, and a refusal is an answer."""

from __future__ import annotations

import sqlite3
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from flows.prefect_api import ask
from infra.local.servers import Server

Serving = Callable[[type[BaseHTTPRequestHandler]], AbstractContextManager[str]]
Answering = Callable[..., AbstractContextManager[tuple[str, list[int]]]]


@pytest.fixture
def answering(serving: Serving) -> Answering:
    """answering(*codes): the URL of a server that gives these status codes, then 200; and the codes it has given."""

    @contextmanager
    def answering(*codes: int) -> Iterator[tuple[str, list[int]]]:
        given: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                given.append(codes[len(given)] if len(given) < len(codes) else 200)
                self.send_response(given[-1])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        with serving(Handler) as address:
            yield f"http://{address}", given

    return answering


@pytest.mark.parametrize("code", [429, 502, 503])
def test_a_busy_server_is_asked_again(code: int, answering: Answering) -> None:
    with answering(code, code) as (api, given):
        assert ask(api, "flow_runs/filter", {"limit": 1}) == {"limit": 1}
    assert given == [code, code, 200]


@pytest.mark.parametrize("code", [404, 409, 422, 500])
def test_a_refusal_is_not_asked_again(code: int, answering: Answering) -> None:
    with answering(code) as (api, given), pytest.raises(urllib.error.HTTPError) as refused:
        ask(api, "flow_runs/filter", {})
    assert (refused.value.code, given) == (code, [code])


def test_a_server_that_stays_busy_is_given_up(answering: Answering) -> None:
    with answering(*[503] * 100) as (api, given), pytest.raises(urllib.error.HTTPError, match="503"):
        ask(api, "flow_runs/filter", {}, patience_s=0.3)
    assert 2 <= len(given) < 10


@pytest.mark.servers
def test_a_database_that_others_write_to_is_no_error(prefect: Server) -> None:
    # Other writers come between a request's first read and its first write: SQLite ends it at once.
    written = threading.Event()
    database = Path(prefect.log).parent / "prefect.db"

    def write() -> None:
        with sqlite3.connect(database, isolation_level=None, timeout=60) as connection:
            connection.execute("create table busy (number)")
            while not written.is_set():
                connection.execute("insert into busy values (1)")
                time.sleep(0.002)
            connection.execute("drop table busy")

    flow = ask(prefect.url, "flows/", {"name": "busy"})["id"]
    new = {"flow_id": flow, "state": {"type": "PENDING"}}
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert any(is_busy(prefect, new) for _ in range(200))
        threading.Timer(1.0, written.set).start()
        run = ask(prefect.url, "flow_runs/", new)["id"]
    finally:
        written.set()
        writer.join()
    assert ask(prefect.url, f"flow_runs/{run}")["state"]["type"] == "PENDING"


def is_busy(server: Server, new: dict[str, object]) -> bool:
    """Whether a client that asks once only is turned away."""
    try:
        ask(server.url, "flow_runs/", new, patience_s=0)
    except urllib.error.HTTPError as error:
        return error.code == 503
    return False


@pytest.mark.parametrize("where", ["address", "PREFECT_API_AUTH_STRING"])
def test_a_login_goes_with_the_question_and_not_into_the_address(
    where: str, monkeypatch: pytest.MonkeyPatch, serving: Serving
) -> None:
    seen: list[str | None] = []

    class Answer(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            seen.extend([self.headers.get("Authorization"), self.path])
            self.send_response(204)
            self.end_headers()

    with serving(Answer) as address:
        login = "" if where != "address" else "ann:secret@"
        if not login:
            monkeypatch.setenv(where, "ann:secret")
        assert ask(f"http://{login}{address}/api", "flows/1", method="DELETE") is None
    assert seen == ["Basic YW5uOnNlY3JldA==", "/api/flows/1"]
