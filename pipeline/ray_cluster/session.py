"""The connection to Ray: started once per process, reused by later trainings, ended by `shutdown`."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.errors import WorkError
from pipeline.machine import whole_cores
from pipeline.ray_cluster.address import authentication, check_cluster, cluster_address, on_loopback_only
from pipeline.ray_cluster.folder import NodeFolder

# Read by Ray when it is imported or started; set only where the user has not.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A call after shutdown must fail; by default Ray would join any cluster on the machine, and hang.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # Interval in which the end or loss of a worker is noticed; Ray's default of 2 s is a third of a short training.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ray gives its workers niceness 15. With one other busy process, training then fell from 600 to 20 images/s: its
    # two threads waited for each other at every layer.
    "RAY_worker_niceness": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# No notice announces that this machine is preempted, and the watcher is one more process.
_EMBEDDED_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
# If the cluster has ended since `check_cluster`, Ray by default makes 20 attempts to connect, of 30 s each.
_CLUSTER_ENVIRONMENT = {"RAY_gcs_server_port_wait_time_s": "2", "RAY_py_gcs_connect_timeout_s": "15"}
_START_TIMEOUT_S = 180.0  # a node takes 6 s on two idle cores
_POLL_S = 0.2
_USERS_END_WITHIN_S = 20.0
_OBJECT_STORE_BYTES = 128 << 20  # no data passes through it: samples come from the store

_lock = threading.RLock()
_session: Session | None = None


class Channel:
    """A small actor (0 CPUs) that passes messages between workers and driver, for all trainings of a session."""

    def __init__(self) -> None:
        self._posts: dict[str, list[tuple[str, Any]]] = {}
        self._stops: set[str] = set()

    def post(self, training_id: str, kind: str, value: Any) -> bool:
        """Stores a message for the driver; returns whether the training must stop."""
        self._posts.setdefault(training_id, []).append((kind, value))
        return training_id in self._stops

    def take(self, training_id: str) -> list[tuple[str, Any]]:
        """The messages since the last call."""
        return self._posts.pop(training_id, [])

    def stop(self, training_id: str) -> None:
        self._stops.add(training_id)


class Session:
    """A connection to Ray in a thread of its own.

    The kernel kills the node's processes when the THREAD that started them ends. That cleans up after a kill -9, but
    would also end the node if it were started in a thread of a pool.

    Args:
        address: HOST:PORT of a cluster's head; None: a node is started here, which listens on loopback only and
            requires the token in its folder.
    Attributes:
        folder: the `NodeFolder` of a cluster that is on this machine only; else None.
    """

    def __init__(self, address: str | None) -> None:
        self.embedded = address is None
        self.channel: Any = None
        self._on_loopback = address is None or on_loopback_only(address)
        self.folder = NodeFolder() if self._on_loopback else None
        self._address = address
        self._failed: BaseException | None = None
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._users = 0
        self._users_changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ray-session", daemon=True)
        self._thread.start()

    def wait(self, while_waiting: Callable[[], None]) -> None:
        """Returns when Ray has started.

        Args:
            while_waiting: called a few times a second; what it raises ends the waiting.
        Raises:
            WorkError: Ray did not start, or not in time.
        """
        where = f"RAY_ADDRESS={self._address}" if self._address else "this machine"
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._ready.wait(_POLL_S):
            while_waiting()
            if time.monotonic() > deadline:
                raise WorkError(f"Ray did not start on {where} within {_START_TIMEOUT_S:g} s; run it again")
        if self._failed is not None:
            raise WorkError(f"Ray did not start on {where}: {last_line(self._failed)}; run it again") from self._failed

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """A thread that waits for answers of Ray does so in this block, whose end `close` awaits.

        If Ray is ended while a thread waits in its C++ code, that code exits the process, with status 1.
        """
        with self._users_changed:
            self._users += 1
        try:
            yield
        finally:
            with self._users_changed:
                self._users -= 1
                self._users_changed.notify_all()

    def close(self) -> None:
        """Ends Ray; waits a few seconds for its users, and for a start in progress, which then ends itself later."""
        with self._users_changed:
            self._users_changed.wait_for(lambda: self._users == 0, _USERS_END_WITHIN_S)
        self._closing.set()
        self._thread.join(timeout=30 if self._ready.is_set() else 15)

    def _run(self) -> None:
        with _environment(self._connection_environment()):
            try:
                import ray

                with _preserve_sigterm(), _own_process_groups():
                    self._connect(ray)
                if not self._closing.is_set():
                    self.channel = ray.remote(num_cpus=0)(Channel).remote()
                    self._ready.set()
                self._closing.wait()
            except BaseException as error:
                self._failed = error
            finally:
                with contextlib.suppress(Exception):
                    import ray

                    ray.shutdown()
                if self.folder is not None:
                    self.folder.remove()
                self._ready.set()

    def _connection_environment(self) -> dict[str, str | None]:
        """The environment of the connection; None removes a variable."""
        if not self.embedded:
            return dict(authentication())
        assert self.folder is not None
        # Without a mode ray.init writes ~/.ray/auth_token. The token is in a file and not in a variable, since every
        # child of this process inherits the environment.
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": str(self.folder.token)}

    def _connect(self, ray: Any) -> None:
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        # Ray reads these once, at import, which may have happened before.
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
        with _on_loopback() if self._on_loopback else contextlib.nullcontext():
            if self._address is not None:
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR, namespace="tutelage")
                return
            assert self.folder is not None
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=whole_cores(),
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="tutelage",
                _temp_dir=str(self.folder.session),
            )


def start(while_waiting: Callable[[], None] = lambda: None) -> Session:
    """The session of this process; the first call starts Ray on this machine, or connects to RAY_ADDRESS.

    Args:
        while_waiting: called a few times a second until Ray has started; an exception it raises ends the waiting.
    Raises:
        InputError: RAY_ADDRESS does not name a usable cluster.
        WorkError: Ray did not start.
    """
    global _session
    with _lock:
        session = _session
        if session is None:
            address = cluster_address()
            for name, value in (_ENVIRONMENT | (_CLUSTER_ENVIRONMENT if address else _EMBEDDED_ENVIRONMENT)).items():
                os.environ.setdefault(name, value)
            if address is not None:
                check_cluster()
            atexit.register(shutdown)
            session = _session = Session(address)
    try:
        session.wait(while_waiting)
    except WorkError:
        with _lock:
            if _session is session:
                shutdown()
        raise
    return session


def is_started() -> bool:
    """Whether this process has a session, or is starting one."""
    return _session is not None


def shutdown() -> None:
    """Ends the session, if there is one. Call it in a finally block, outside of `Session.in_use`."""
    global _session
    with _lock:
        session, _session = _session, None
    if session is not None:
        session.close()
        atexit.unregister(shutdown)


@contextlib.contextmanager
def _environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    """Sets variables of this process, which Ray and its children read, and restores the old values at the end."""
    before = {name: os.environ.get(name) for name in settings}
    _set_environment(settings)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Makes 127.0.0.1 the address of a node started here, so that all its servers listen on loopback only.

    Ray replaces a given loopback address by the machine's own, unless its constant ENABLE_RAY_CLUSTER is False,
    which it sets at import for systems on which it does not start clusters.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _preserve_sigterm() -> Iterator[None]:
    """Restores the SIGTERM handler that Ray's C++ code replaces with its own.

    Ray's handler calls the replaced one, and aborts the process 3 s later. The C library restores it, since Python sets
    handlers from the main thread only.
    """
    libc = ctypes.CDLL(None)
    action = ctypes.create_string_buffer(256)  # a struct sigaction, 152 bytes on Linux x86-64
    saved = libc.sigaction(signal.SIGTERM, None, action) == 0
    try:
        yield
    finally:
        if saved:
            libc.sigaction(signal.SIGTERM, action, None)


@contextlib.contextmanager
def _own_process_groups() -> Iterator[None]:
    """Gives each process of a node started here a process group of its own.

    A cancel in Prefect's UI is a SIGTERM to the whole group of the flow's process. In that group Ray would end
    before a worker has written its checkpoint, and the driver would wait for it until Prefect's SIGKILL, 30 s later.
    """
    from ray._private import utils

    # Ray calls this function in the child between fork and exec, and has no public hook there.
    die_with_parent = utils.set_kill_on_parent_death_linux

    def in_own_group() -> None:
        os.setpgid(0, 0)
        die_with_parent()

    utils.set_kill_on_parent_death_linux = in_own_group
    try:
        yield
    finally:
        utils.set_kill_on_parent_death_linux = die_with_parent


def last_line(error: BaseException) -> str:
    """The last line of an error's message, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Ray's messages are tracebacks, whose last line is the cause.
    return (lines[-1] if lines else type(error).__name__)[:300]
