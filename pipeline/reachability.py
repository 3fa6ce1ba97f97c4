"""Checks before a run whether a server answers at an address, within a time limit.

A host that drops packets, a name server that does not answer, and a server that accepts and then sends nothing, or a
byte now and then, are all "no answer within 5 s": the limit is for the whole check, which no socket option provides.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from urllib.parse import unquote, urlsplit, urlunsplit

from pipeline.errors import first_line

WITHIN_S = 5.0
NOT_A_URL = "not a URL; write / ? # @ in a password as %2F %3F %23 %40"
_ANSWER_BYTES = 4096  # read of a response; enough for a health check


def http_problem(
    url: str, *, expected_body: bytes | None = None, accepted_statuses: Collection[int] = (), within_s: float = WITHIN_S
) -> str | None:
    """Why an HTTP URL does not answer as expected, in a few words without passwords; None if it does.

    Args:
        url: user and password in it are sent as basic authentication.
        expected_body: the expected body, without surrounding white space; None: anything.
        accepted_statuses: status codes from 400 on that are accepted, e.g. 401 of a server that requires a login.
        within_s: time limit for the whole check.
    """

    def check() -> str | None:
        try:
            with opener_to(url).open(request_to(url), timeout=within_s) as answer:
                body = answer.read(_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            error.close()
            return None if error.code in accepted_statuses else f"answers {error.code} {error.reason}".rstrip()
        if expected_body is not None and body.strip() != expected_body:
            return "answers, but as another kind of server"
        return None

    return problem_within(within_s, check)


def tcp_problem(host: str, port: int, *, within_s: float = WITHIN_S) -> str | None:
    """Why no connection to a port is accepted, in a few words; None if it is."""

    def check() -> None:
        socket.create_connection((host, port), within_s).close()

    return problem_within(within_s, check)


def problem_within(seconds: float, check: Callable[[], str | None]) -> str | None:
    """Runs a check in a thread; returns its problem, that there was no answer within the time limit, or None.

    Args:
        check: returns why the server cannot be used, in a few words, or None.
    """
    answers: list[str | None] = []

    def run_check() -> None:
        try:
            answers.append(check())
        except urllib.error.URLError as error:
            answers.append(f"nobody answers ({_reason(error.reason, seconds)})")
        except (ValueError, http.client.InvalidURL):
            # Their messages quote the supposed port, which may be half a password.
            answers.append(NOT_A_URL)
        except Exception as error:  # http.client's errors for a server with another protocol
            answers.append(f"nobody answers ({_reason(error, seconds)})")

    thread = threading.Thread(target=run_check, name="reachability", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"nobody answers ({_reason(TimeoutError(), seconds)})"


def request_to(url: str) -> urllib.request.Request:
    """A request with the URL's user and password as basic authentication instead of in the URL."""
    split = urlsplit(url)
    request = urllib.request.Request(urlunsplit(split._replace(netloc=split.netloc.rpartition("@")[2])))
    if split.username is not None:
        login = f"{unquote(split.username)}:{unquote(split.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    return request


def opener_to(url: str) -> urllib.request.OpenerDirector:
    """An opener for a URL; without the environment's proxies for local addresses, so that no proxy answers for them."""
    proxies = urllib.request.ProxyHandler({} if _is_local(urlsplit(url).hostname or "") else None)
    return urllib.request.build_opener(proxies)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: object, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"waited {seconds:g} s"
    return getattr(error, "strerror", None) or first_line(error, 200)
