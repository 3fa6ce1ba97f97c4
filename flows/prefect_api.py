"""Questions to a Prefect server that need no import of Prefect."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

# "Ask me again", in the words of Prefect's own clients: too many requests, a bad gateway, not available now.
_ASK_AGAIN = (429, 502, 503)


def ask(api: str, path: str, body: dict[str, Any] | None = None, *, patience_s: float = 30.0) -> Any:
    """What a Prefect server answers, from JSON.

    A server on SQLite answers 503 at once where somebody else wrote between a request's first read and
    its first write (SQLITE_BUSY_SNAPSHOT, which no busy timeout waits for). Nothing was done then, and
    Prefect's clients ask again; so does this.

    Args:
        api: PREFECT_API_URL.
        path: below it, e.g. "flow_runs/filter".
        body: sent as JSON by POST; None: GET.
        patience_s: how long a server that asks to be asked again is asked.

    Raises:
        urllib.error.HTTPError: the server refuses, or was not available for so long.
        OSError: it does not answer.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}/{path}", data=data, headers={"Content-Type": "application/json"})
    # Without proxies: a proxy of the environment must not answer for a server on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline, pause_s = time.monotonic() + patience_s, 0.05
    while True:
        try:
            with opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in _ASK_AGAIN or time.monotonic() + pause_s > deadline:
                raise
            error.close()
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)
