"""Moves a user and password from PREFECT_API_URL to PREFECT_API_AUTH_STRING, where Prefect reads them.

Prefect's clients do not send a URL's user and password, and print the URL in many messages.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from pipeline.service_url import split_credentials

_URL, _LOGIN = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"


def move_login_out_of_url(env: MutableMapping[str, str] = os.environ) -> None:
    """Moves the login, for this process and its children; does not overwrite PREFECT_API_AUTH_STRING."""
    bare, login = split_credentials(env.get(_URL, ""))
    if login is not None:
        env[_URL] = bare
        env.setdefault(_LOGIN, login)
