"""A user and password in PREFECT_API_URL, said as Prefect takes them: in PREFECT_API_AUTH_STRING.

Prefect's clients send a URL's user and password nowhere, and show the URL in many places.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from pipeline.service_url import split_credentials

_URL, _LOGIN = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"


def take_login_from_url(env: MutableMapping[str, str] = os.environ) -> None:
    """Moves them there, for this process and its children; a PREFECT_API_AUTH_STRING that is set stays."""
    bare, login = split_credentials(env.get(_URL, ""))
    if login is not None:
        env[_URL] = bare
        env.setdefault(_LOGIN, login)
