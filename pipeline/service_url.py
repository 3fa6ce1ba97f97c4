"""URLs of services: shown and stored without the user, password and tokens in them."""

from __future__ import annotations

import re
from urllib.parse import unquote

# A password may hold an apostrophe.
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.\-]*)://(?:[^\s\"<>/@]*@)?[^\s'\"<>]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_HIDDEN = "***"


def shown_url(url: str) -> str:
    """A URL, or HOST:PORT, without user, password, query and fragment; a path stays as it is."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return url if url.startswith(("/", ".", "~")) else url.rpartition("@")[2]
    _, bare = _cut(url[scheme.end() :])
    return scheme.group() + re.split(r"[?#]", bare, maxsplit=1)[0]


def without_credentials(text: str) -> str:
    """A text in which every URL has *** for its user and password, the values in its query, and no fragment."""
    return _URL.sub(lambda found: _masked(found.group()), text)


def split_credentials(url: str) -> tuple[str, str | None]:
    """The URL without user and password, and "user:password" as it is meant (None: there is none)."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return url, None
    credentials, bare = _cut(url[scheme.end() :])
    return scheme.group() + bare, None if credentials is None else unquote(credentials)


def _cut(rest: str) -> tuple[str | None, str]:
    """What stands before and after the @ of what follows "://".

    A password may have a slash or a question mark in it that should have been written as %2F or %3F: then the
    last @ ends it. Better too much is hidden than half a password shown.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    end = rest.rfind("@", 0, len(authority)) if "@" in authority else rest.rfind("@")
    if end < 0 or ("@" not in authority and ":" not in authority):
        return None, rest
    port = authority.rpartition(":")[2]
    if "@" not in authority and port.isdigit():  # host:port/path with an @ in the path
        return None, rest
    return rest[:end], rest[end + 1 :]


def _masked(url: str) -> str:
    scheme, _, rest = url.partition("://")
    credentials, bare = _cut(rest)
    place, mark, query = bare.partition("#")[0].partition("?")
    query = re.sub(r"=[^&]*", f"={_HIDDEN}", query)
    return f"{scheme}://{'' if credentials is None else f'{_HIDDEN}@'}{place}{mark}{query}"
