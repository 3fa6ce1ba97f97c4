"""URLs of services, displayed and stored without user, password and tokens."""

from __future__ import annotations

import re
from urllib.parse import unquote

# A password may hold an apostrophe.
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.\-]*)://(?:[^\s\"<>/@]*@)?[^\s'\"<>]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_HIDDEN = "***"


def shown_url(url: str) -> str:
    """A URL, or HOST:PORT, without user, password, query and fragment; a path is unchanged."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return url if url.startswith(("/", ".", "~")) else url.rpartition("@")[2]
    _, bare = _split_for_display(url[scheme.end() :])
    return scheme.group() + re.split(r"[?#]", bare, maxsplit=1)[0]


def without_credentials(text: str) -> str:
    """The text with *** for user, password and query values in each URL, and without fragments."""
    return _URL.sub(lambda match: _masked(match.group()), text)


def split_credentials(url: str) -> tuple[str, str | None]:
    """The URL without user and password, and the decoded "user:password"; None if there is none."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return url, None
    credentials, bare = _split(url[scheme.end() :])
    return scheme.group() + bare, None if credentials is None else unquote(credentials)


def _split(rest: str) -> tuple[str | None, str]:
    """Splits the part after "://" at the @: credentials and the rest.

    If a password contains an unescaped slash or question mark, it ends at the last @: hiding too much is better than
    showing half a password.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    end = rest.rfind("@", 0, len(authority)) if "@" in authority else rest.rfind("@")
    if end < 0 or ("@" not in authority and ":" not in authority):
        return None, rest
    port = authority.rpartition(":")[2]
    if "@" not in authority and port.isdigit():  # host:port/path with an @ in the path
        return None, rest
    return rest[:end], rest[end + 1 :]


def _split_for_display(rest: str) -> tuple[str | None, str]:
    """As `_split`, for display: if there are credentials, they are taken to end at the last @ before the query.

    A password may contain @ and /.
    """
    credentials, bare = _split(rest)
    path = re.split(r"[?#]", bare, maxsplit=1)[0]
    if credentials is None or "@" not in path:
        return credentials, bare
    return credentials, bare[path.rindex("@") + 1 :]


def _masked(url: str) -> str:
    scheme, _, rest = url.partition("://")
    credentials, bare = _split_for_display(rest)
    address, mark, query = bare.partition("#")[0].partition("?")
    query = re.sub(r"=[^&]*", f"={_HIDDEN}", query)
    return f"{scheme}://{'' if credentials is None else f'{_HIDDEN}@'}{address}{mark}{query}"
