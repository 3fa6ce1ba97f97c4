"""Requests to a Prefect server without importing Prefect."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
from typing import Any

from pipeline.reachability import opener_to, request_to

# Prefect's own clients retry these: too many requests, bad gateway, service unavailable.
_RETRIED_CODES = (429, 502, 503)


def ask(api: str, path: str, body: Any = None, *, method: str | None = None, patience_s: float = 30.0) -> Any:
    """The parsed JSON of a response; None if it has no body.

    A server on SQLite answers 503 at once if another client wrote between a request's first read and its
    first write (SQLITE_BUSY_SNAPSHOT, which no busy timeout waits for). The server changed nothing then, so
    the request is sent again, as Prefect's clients do.

    Args:
        api: PREFECT_API_URL; a user and password in it, or in PREFECT_API_AUTH_STRING, are sent along.
        path: relative to `api`, e.g. "flow_runs/filter".
        body: sent as JSON; None: no body.
        method: default: POST with a body, GET without.
        patience_s: total time for retries.

    Raises:
        urllib.error.HTTPError: the server refuses, or is still unavailable after `patience_s`.
        OSError: there is no answer.
    """
    request = request_to(f"{api}/{path}")
    request.data = None if body is None else json.dumps(body).encode()
    request.method = method or request.get_method()
    request.add_header("Content-Type", "application/json")
    login = os.environ.get("PREFECT_API_AUTH_STRING")
    if login and not request.has_header("Authorization"):
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    opener = opener_to(api)
    deadline, pause_s = time.monotonic() + patience_s, 0.05
    while True:
        try:
            with opener.open(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code not in _RETRIED_CODES or time.monotonic() + pause_s > deadline:
                raise
            error.close()
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)
