"""Questions to a Prefect server that need no import of Prefect."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
from typing import Any

from pipeline.reachability import opener_to, request_to

# "Ask me again", in the words of Prefect's own clients: too many requests, a bad gateway, not available now.
_ASK_AGAIN = (429, 502, 503)


def ask(api: str, path: str, body: Any = None, *, method: str | None = None, patience_s: float = 30.0) -> Any:
    """What a Prefect server answers, from JSON; None if it answers nothing.

    A server on SQLite answers 503 at once where somebody else wrote between a request's first read and
    its first write (SQLITE_BUSY_SNAPSHOT, which no busy timeout waits for). Nothing was done then, and
    Prefect's clients ask again; so does this.

    Args:
        api: PREFECT_API_URL; a user and password in it, or in PREFECT_API_AUTH_STRING, go with the question.
        path: below it, e.g. "flow_runs/filter".
        body: sent as JSON; None: nothing is sent.
        method: by default POST with a body, and GET without.
        patience_s: how long a server that asks to be asked again is asked.

    Raises:
        urllib.error.HTTPError: the server refuses, or was not available for so long.
        OSError: it does not answer.
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
            if error.code not in _ASK_AGAIN or time.monotonic() + pause_s > deadline:
                raise
            error.close()
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)
