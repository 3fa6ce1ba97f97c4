"""Whether somebody answers at an address, asked before work is begun: in seconds, whatever the address does.

A host that drops packets, a name server that is gone, and a server that accepts and then sends nothing, or a byte now
and then, are all "no answer within 5 s": the limit is for the whole question, which no socket option gives.
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
NO_URL = "not a URL; of a password in it, write / ? # @ as %2F %3F %23 %40"
_ANSWER_BYTES = 4096  # of an answer: all that a health check looks at


def http_refusal(
    url: str, *, says: bytes | None = None, also_well: Collection[int] = (), within_s: float = WITHIN_S
) -> str | None:
    """Why an http URL does not answer as it should, in a few words that hold no password; None if it does.

    Args:
        url: user and password in it are sent as basic authentication.
        says: what the answer must be, apart from white space at its ends; None: anything.
        also_well: status codes of 400 and more that are right too, e.g. 401 of a server that knows nobody yet.
        within_s: how long the whole question may take.
    """

    def question() -> str | None:
        try:
            with opener_to(url).open(request_to(url), timeout=within_s) as answer:
                body = answer.read(_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            error.close()
            return None if error.code in also_well else f"answers {error.code} {error.reason}".rstrip()
        if says is not None and body.strip() != says:
            return "answers, but as another kind of server"
        return None

    return answered_within(within_s, question)


def tcp_refusal(host: str, port: int, *, within_s: float = WITHIN_S) -> str | None:
    """Why nobody accepts a connection at a port, in a few words; None if somebody does."""

    def question() -> None:
        socket.create_connection((host, port), within_s).close()

    return answered_within(within_s, question)


def answered_within(seconds: float, question: Callable[[], str | None]) -> str | None:
    """What a question gives, or why it gives nothing; it is left alone when its time is over.

    Args:
        question: gives why not, in a few words, or None.
    """
    answers: list[str | None] = []

    def ask() -> None:
        try:
            answers.append(question())
        except urllib.error.URLError as error:
            answers.append(f"nobody answers ({_reason(error.reason, seconds)})")
        except (ValueError, http.client.InvalidURL):  # They quote what they take for the port: half a password.
            answers.append(NO_URL)
        except Exception as error:  # http.client's own, of a server that speaks something else
            answers.append(f"nobody answers ({_reason(error, seconds)})")

    thread = threading.Thread(target=ask, name="reachability", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"nobody answers ({_reason(TimeoutError(), seconds)})"


def request_to(url: str) -> urllib.request.Request:
    """A request without user and password in its address; they go with it as basic authentication."""
    parts = urlsplit(url)
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    return request


def opener_to(url: str) -> urllib.request.OpenerDirector:
    """Asks an address, without the environment's proxies on this machine: a proxy must not answer for a server here."""
    proxies = urllib.request.ProxyHandler({} if _is_here(urlsplit(url).hostname or "") else None)
    return urllib.request.build_opener(proxies)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: object, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"waited {seconds:g} s"
    return getattr(error, "strerror", None) or first_line(error, 200)
