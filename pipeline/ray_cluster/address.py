"""RAY_ADDRESS: its valid forms, and a check before work starts that a suitable cluster answers there.

Unset or "local": a node is started on this machine. HOST:PORT is the head of a cluster (its GCS, 6379 by default), of
which this machine must be a node. "auto" is refused: for Ray it is the cluster that any user started last here.
"""

from __future__ import annotations

import ipaddress
import json
import os
import platform
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.reachability import tcp_problem
from pipeline.service_url import shown_url

_PROBE_TIMEOUT_S = 30.0  # loading Ray takes 2 s on an idle core, and 10 s on a busy one
_REUSE_PROBE_S = 60.0  # how long a probe's result is reused
_probe_results: dict[str, tuple[float, list[dict[str, float]]]] = {}


def cluster_address(given: str | None = None) -> str | None:
    """HOST:PORT of the cluster that RAY_ADDRESS names; None: a node on this machine.

    Args:
        given: used instead of RAY_ADDRESS; None: the variable.
    Raises:
        InputError: it has another form.
    """
    address = (os.environ.get("RAY_ADDRESS", "") if given is None else given).strip()
    if address in ("", "local"):
        return None
    if address == "auto":
        raise InputError(
            "RAY_ADDRESS=auto would join the cluster that any user started last on this machine; "
            "give the HOST:PORT of its head, or unset it for a node of your own"
        )
    if "://" in address:
        raise InputError(
            f"RAY_ADDRESS={shown_url(address)}: Ray's client server and job server are not supported; "
            "give the HOST:PORT of the head (6379 by default), and run it on a machine of the cluster"
        )
    host, _, port = address.rpartition(":")
    if not host.strip("[]") or not port.isdecimal() or not 0 < int(port) < 65536 or any(map(str.isspace, address)):
        raise InputError(f"RAY_ADDRESS={address}: not HOST:PORT, e.g. 10.0.0.5:6379; correct it, or unset it")
    return address


def check_cluster(given: str | None = None) -> list[dict[str, float]]:
    """The resources of each node of the cluster that RAY_ADDRESS names, after checking that the cluster is usable.

    Args:
        given: used instead of RAY_ADDRESS; None: the variable.
    Raises:
        InputError: nothing answers, or not as Ray; the token is wrong; versions differ; this machine is not a node.
    """
    address = cluster_address(given)
    if address is None:
        raise ValueError("RAY_ADDRESS names no cluster")
    probed_at, nodes = _probe_results.get(address, (0.0, []))
    if nodes and time.monotonic() - probed_at < _REUSE_PROBE_S:
        return nodes
    host, _, port = address.rpartition(":")
    if problem := tcp_problem(host.strip("[]"), int(port)):
        raise InputError(
            f"RAY_ADDRESS={address}: {problem}; start that Ray cluster, or unset it for a node of your own"
        )
    nodes = _check_probe_result(address, _run_probe(address))
    _probe_results[address] = time.monotonic(), nodes
    return nodes


def on_loopback_only(address: str) -> bool:
    """Whether the address is on loopback and its head listens nowhere else, as `tutelage up` starts it."""
    host, _, port = address.rpartition(":")
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
    return is_loopback and tcp_problem(_own_address(), int(port)) is not None


def authentication() -> dict[str, str]:
    """RAY_AUTH_MODE to add to the environment: token if the user has one where Ray looks for it, else disabled."""
    if "RAY_AUTH_MODE" in os.environ:
        return {}
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return {"RAY_AUTH_MODE": "token" if given or (Path.home() / ".ray" / "auth_token").is_file() else "disabled"}


def _own_address() -> str:
    """This machine's address in its network; 127.0.0.1 without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        try:
            connection.connect(("192.0.2.1", 9))  # Sends nothing.
        except OSError:
            return "127.0.0.1"
        return str(connection.getsockname()[0])


def _run_probe(address: str) -> dict[str, Any]:
    """The output of the probe; a failure is {"error": reason}."""
    command = [sys.executable, "-P", "-m", "pipeline.ray_cluster.probe", address]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, **authentication(), "PYTHONPATH": path}
    if on_loopback_only(address):
        env |= LOOPBACK_ENVIRONMENT
    try:
        answer = subprocess.run(
            command,
            env=env,
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            start_new_session=True,
        )
        result: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {_PROBE_TIMEOUT_S:g} s"}
    except (IndexError, ValueError):
        return {"error": "Ray ended during the probe"}
    return result


# Ray's own switch for systems without clusters: with 0, a node's address is 127.0.0.1, and its servers listen there.
LOOPBACK_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def _check_probe_result(address: str, result: dict[str, Any]) -> list[dict[str, float]]:
    """The resources of each node that the probe found; raises InputError if the cluster is not usable."""
    where = f"RAY_ADDRESS={address}"
    if error := result.get("error"):
        if "auth" in error.lower():
            raise InputError(
                f"{where}: the cluster refuses our token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to its token"
            )
        if "Timed out" in error or "no answer" in error:
            raise InputError(f"{where}: a server accepts there, but does not answer as Ray; correct it, or unset it")
        raise InputError(f"{where}: Ray does not connect ({error.splitlines()[0][:200]}); correct it, or unset it")
    for name, theirs, ours in (
        ("Ray", result.get("ray"), metadata.version("ray")),
        ("Python", result.get("python"), platform.python_version()),
    ):
        if theirs and theirs != ours:
            raise InputError(f"{where}: the cluster has {name} {theirs}, this machine {ours}; install the same on both")
    nodes: list[dict[str, float]] = result["nodes"]
    if not nodes:
        raise InputError(f"{where}: the cluster has no live node; add one with `ray start --address={address}`")
    if not result["here"]:
        raise InputError(
            f"{where}: this machine is not a node of that cluster; run it on one, or here "
            f"`ray start --address={address}`"
        )
    return nodes
