"""A PREFECT_API_URL with user and password works, and shows them nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler

import pytest

from flows.prefect_login import move_login_out_of_url
from flows.prefect_server import check_server
from pipeline.errors import InputError


def test_a_login_in_the_url_is_said_as_prefect_takes_it() -> None:
    env = {"PREFECT_API_URL": "https://me:hu%40sh@host:4200/api"}
    move_login_out_of_url(env)
    assert env == {"PREFECT_API_URL": "https://host:4200/api", "PREFECT_API_AUTH_STRING": "me:hu@sh"}
    env = {"PREFECT_API_URL": "http://me:hush@host/api", "PREFECT_API_AUTH_STRING": "mine:own"}
    move_login_out_of_url(env)
    assert env == {"PREFECT_API_URL": "http://host/api", "PREFECT_API_AUTH_STRING": "mine:own"}
    for untouched in ({}, {"PREFECT_API_URL": "http://host/api"}):
        env = dict(untouched)
        move_login_out_of_url(env)
        assert env == untouched


@pytest.fixture
def guarded(serving: Callable[[type[BaseHTTPRequestHandler]], AbstractContextManager[str]]) -> Iterator[str]:
    """HOST:PORT of a server that answers me:hush, as Prefect's does, and its health to all."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = f"Basic {base64.b64encode(b'me:hush').decode()}"
            known = self.path.endswith("/health") or self.headers.get("Authorization") == wanted
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(b"true" if self.path.endswith("/health") else json.dumps("3.8").encode())

    with serving(Answer) as address:
        yield address


@pytest.mark.parametrize("login", ["me:hush@", "me:hsuh@", ""])
def test_a_server_that_refuses_the_login_is_one_line_before_work(
    guarded: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://{login}{guarded}/api")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "")
    monkeypatch.delenv("PREFECT_API_AUTH_STRING")
    move_login_out_of_url()
    if login == "me:hush@":
        check_server()
        return
    with pytest.raises(InputError, match="set PREFECT_API_AUTH_STRING") as error:
        check_server()
    assert "hsuh" not in str(error.value)
