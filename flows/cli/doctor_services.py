"""Checks that the services in the environment answer; each check takes at most a few seconds.

Every function returns the fields of a `Check` except the name: the status, what was found, and the fix.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.ray_cluster.address import check_cluster, cluster_address
from pipeline.reachability import http_problem
from pipeline.service_url import shown_url

# (status, what was found, how to fix it)
Found = tuple[Literal["ok", "warn", "fail"], str, str]

_TIMEOUT_S = 3.0


def mlflow_service(uri: str) -> Found:
    """The tracking server or database at MLFLOW_TRACKING_URI."""
    if not uri:
        return "ok", "embedded, SQLite under the store", ""
    from pipeline.training.tracking_uri import can_be_checked, problem_and_fix

    shown = shown_url(uri)
    if not can_be_checked(uri):
        return "warn", f"{shown}: this kind of URI is not checked", "Try it with: mlflow doctor"
    problem = problem_and_fix(uri)
    if problem is None:
        return "ok", f"{shown} answers" if not uri.startswith("sqlite") else f"{shown}, a database file", ""
    found, fix = problem
    return "fail", f"{shown}: {found}", f"{fix[0].upper()}{fix[1:]}."


def prefect_service(url: str) -> Found:
    """The server at PREFECT_API_URL."""
    if not url:
        return "ok", "embedded, a server for each run", ""
    shown = shown_url(url)
    reason = http_problem(f"{url.rstrip('/')}/health", accepted_statuses=(401, 403), within_s=_TIMEOUT_S)
    if reason is None:
        return "ok", f"{shown} answers", ""
    if not urlsplit(url).path.rstrip("/").endswith("/api"):
        return "fail", f"{shown}: {reason}", "PREFECT_API_URL should end in /api, e.g. http://127.0.0.1:4200/api."
    return "fail", f"{shown}: {reason}", "Start that Prefect server, or unset PREFECT_API_URL for the embedded one."


def ray_service(address: str) -> Found:
    """The cluster at RAY_ADDRESS."""
    try:
        if cluster_address(address) is None:
            return "ok", "embedded, started for each run; only its user on this machine can connect", ""
        nodes = check_cluster(address)
    except InputError as error:
        found, _, fix = str(error).removeprefix("RAY_ADDRESS=").partition("; ")
        return "fail", found, f"{fix[:1].upper()}{fix[1:]}."
    return "ok", f"{address} answers: {counted(len(nodes), 'machine')}", ""


def s3_service(endpoint: str, store_url: str) -> Found:
    """The S3 server at AWS_ENDPOINT_URL; the check of the store tests the credentials."""
    if not endpoint:
        return "ok", "AWS" if store_url.startswith("s3://") else "not used, the store is a folder", ""
    shown = shown_url(endpoint)
    # A working server answers a request without credentials with 403.
    reason = http_problem(endpoint, within_s=_TIMEOUT_S, accepted_statuses=(301, 307, 400, 401, 403, 404, 405))
    if reason is None:
        return "ok", f"{shown} answers", ""
    return "fail", f"{shown}: {reason}", "Start that S3 server, or correct AWS_ENDPOINT_URL."
