"""The connection to Ray: started once a process, kept for the next training, ended by `shutdown`."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import WorkError

# Read by Ray when it is imported or started; set only where the user has not.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A call after shutdown must fail; Ray would join any cluster that it finds on the machine, and hang there.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # Without it ray.init writes ~/.ray/auth_token.
    "RAY_AUTH_MODE": "disabled",
    # How soon the end, or the loss, of a worker is noticed; Ray's 2 s are a third of a short training.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ray gives its workers niceness 15. The training is what the machine is for: beside one busy process it fell
    # from 600 to 20 images/s, its two threads waiting for each other at every layer.
    "RAY_worker_niceness": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Nobody takes this machine away with a notice, and the watcher is one more process.
_EMBEDDED_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
_OBJECT_STORE_BYTES = 128 << 20  # no data passes through it: samples come from the store

_lock = threading.RLock()
_session: Session | None = None


class Channel:
    """A tiny actor (no CPU) between the workers and the driver, for all trainings of a session."""

    def __init__(self) -> None:
        self._posts: dict[str, list[tuple[str, Any]]] = {}
        self._stops: set[str] = set()

    def post(self, training: str, kind: str, value: Any) -> bool:
        """Leaves a message for the driver; says whether the training is to stop."""
        self._posts.setdefault(training, []).append((kind, value))
        return training in self._stops

    def take(self, training: str) -> list[tuple[str, Any]]:
        """The messages since the last call."""
        return self._posts.pop(training, [])

    def stop(self, training: str) -> None:
        self._stops.add(training)


class Session:
    """A connection to Ray that lives in a thread of its own.

    The kernel kills the node's processes when the THREAD that started them ends, which is
    what cleans up after a kill -9, and what would end the node under a caller that is a pool's thread.
    """

    def __init__(self) -> None:
        self.embedded = not os.environ.get("RAY_ADDRESS")
        self.channel: Any = None
        self._folder = Path(tempfile.mkdtemp(prefix="tutelage-ray-")) if self.embedded else None
        self._failed: BaseException | None = None
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="ray-session", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            self._thread.join()
            address = os.environ.get("RAY_ADDRESS", "this machine")
            raise WorkError(f"Ray did not start on {address}: {last_line(self._failed)}") from self._failed

    def close(self) -> None:
        self._over.set()
        self._thread.join(timeout=30)

    def _live(self) -> None:
        try:
            import ray

            with _sigterm_kept(), _out_of_our_group():
                self._connect(ray)
            self.channel = ray.remote(num_cpus=0)(Channel).remote()
            self._ready.set()
            self._over.wait()
        except BaseException as error:
            self._failed = error
        finally:
            with contextlib.suppress(Exception):
                import ray

                ray.shutdown()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._ready.set()

    def _connect(self, ray: Any) -> None:
        if self.embedded:
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=os.cpu_count(),
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="tutelage",
                _temp_dir=str(self._folder),
            )
        else:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, namespace="tutelage")


def start() -> Session:
    """The session; starts Ray on this machine, or connects to RAY_ADDRESS, if that was not done yet."""
    global _session
    with _lock:
        if _session is None:
            environment = _ENVIRONMENT if os.environ.get("RAY_ADDRESS") else _ENVIRONMENT | _EMBEDDED_ENVIRONMENT
            for name, value in environment.items():
                os.environ.setdefault(name, value)
            atexit.register(shutdown)
            _session = Session()
        return _session


def shutdown() -> None:
    """Ends what `start` started; does nothing if nothing runs. Call it in a finally block."""
    global _session
    with _lock:
        session, _session = _session, None
        if session is not None:
            session.close()
            atexit.unregister(shutdown)


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Undoes what Ray's C++ does to SIGTERM: its handler calls ours, and aborts the process 3 s later.

    Python sets handlers from the main thread only; the C library does from any.
    """
    libc = ctypes.CDLL(None)
    kept = ctypes.create_string_buffer(256)  # a struct sigaction, 152 bytes on Linux x86-64
    saved = libc.sigaction(signal.SIGTERM, None, kept) == 0
    try:
        yield
    finally:
        if saved:
            libc.sigaction(signal.SIGTERM, kept, None)


@contextlib.contextmanager
def _out_of_our_group() -> Iterator[None]:
    """Gives each process of a node that is started here a process group of its own.

    A cancel in Prefect's UI is a SIGTERM to the whole group of the flow's process. In that group Ray would be gone
    before a worker has written its checkpoint, and the driver would wait for it until Prefect's SIGKILL, 30 s later.
    """
    from ray._private import utils

    # What Ray calls in the child between fork and exec, and has no public way to add to.
    share_our_fate = utils.set_kill_on_parent_death_linux

    def apart() -> None:
        os.setpgid(0, 0)
        share_our_fate()

    utils.set_kill_on_parent_death_linux = apart
    try:
        yield
    finally:
        utils.set_kill_on_parent_death_linux = share_our_fate


def last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Ray's messages are tracebacks: the cause stands last.
    return (lines[-1] if lines else type(error).__name__)[:300]
