"""Whether the services that the environment names answer; each look takes at most a few seconds.

Every function gives what a `Check` needs after its name: status, what was found, the mend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pipeline.reachability import http_refusal, tcp_refusal
from pipeline.service_url import shown_url

Found = tuple[Literal["ok", "warn", "fail"], str, str]

_TIMEOUT_S = 3.0
_RAY_PORTS = {"ray": 10001, "": 6379}


def mlflow_service(uri: str) -> Found:
    """The tracking server or database that MLFLOW_TRACKING_URI names."""
    if not uri:
        return "ok", "embedded, SQLite under the store", ""
    from pipeline.training.tracking_uri import is_asked, refusal

    shown = shown_url(uri)
    if not is_asked(uri):
        return "warn", f"{shown}: of a kind that was not looked at", "Try it with: mlflow doctor"
    reason = refusal(uri)
    if reason is None:
        return "ok", f"{shown} answers" if not uri.startswith("sqlite") else f"{shown}, a database file", ""
    found, mend = reason
    return "fail", f"{shown}: {found}", f"{mend[0].upper()}{mend[1:]}."


def prefect_service(url: str) -> Found:
    """The server that PREFECT_API_URL names."""
    if not url:
        return "ok", "embedded, a server for each run", ""
    shown = shown_url(url)
    reason = http_refusal(f"{url.rstrip('/')}/health", also_well=(401, 403), within_s=_TIMEOUT_S)
    if reason is None:
        return "ok", f"{shown} answers", ""
    if not urlsplit(url).path.rstrip("/").endswith("/api"):
        return "fail", f"{shown}: {reason}", "PREFECT_API_URL should end in /api, e.g. http://127.0.0.1:4200/api."
    return "fail", f"{shown}: {reason}", "Start that Prefect server, or unset PREFECT_API_URL for the embedded one."


def ray_service(address: str) -> Found:
    """The cluster that RAY_ADDRESS names."""
    if not address or address == "local":
        return "ok", "embedded, started for each run", ""
    shown = shown_url(address)
    mend = "Start that Ray cluster, or unset RAY_ADDRESS for the embedded one."
    if address == "auto":
        try:
            # Where Ray itself looks.
            address = Path("/tmp/ray/ray_current_cluster").read_text().strip()
        except OSError:
            return "fail", "auto, but no cluster was started on this machine", mend
        shown = f"auto, {address}"
    if address.startswith(("http://", "https://")):
        reason = http_refusal(f"{address.rstrip('/')}/api/version", within_s=_TIMEOUT_S)
        return ("ok", f"{shown} answers", "") if reason is None else ("fail", f"{shown}: {reason}", mend)
    scheme, _, rest = address.rpartition("://")
    host, _, port = rest.rpartition("/")[2].rpartition(":") if ":" in rest else (rest, "", "")
    if scheme not in _RAY_PORTS or not host or not (port or "0").isdigit():
        return "fail", f"{shown}: no Ray address", "Set RAY_ADDRESS to HOST:PORT, ray://HOST:PORT or auto."
    return _connects(host, int(port or _RAY_PORTS[scheme]), shown, mend)


def s3_service(endpoint: str, store_url: str) -> Found:
    """The S3 server that AWS_ENDPOINT_URL names; whether the keys fit is the store's check."""
    if not endpoint:
        return "ok", "AWS" if store_url.startswith("s3://") else "not used, the store is a folder", ""
    shown = shown_url(endpoint)
    # Who does not say who he is gets a 403 from a server that is well.
    reason = http_refusal(endpoint, within_s=_TIMEOUT_S, also_well=(301, 307, 400, 401, 403, 404, 405))
    if reason is None:
        return "ok", f"{shown} answers", ""
    return "fail", f"{shown}: {reason}", "Start that S3 server, or correct AWS_ENDPOINT_URL."


def _connects(host: str, port: int, shown: str, mend: str) -> Found:
    reason = tcp_refusal(host, port, within_s=_TIMEOUT_S)
    return ("ok", f"{shown} answers", "") if reason is None else ("fail", f"{shown}: {reason}", mend)
