"""A server as a child process: start it, wait until it answers, stop it with all its children.

`start` returns when the server answers, or raises with the end of its log. The server ends with this
process, even if this process is killed (see leash.py). Its output goes to a log file, never to
the terminal.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

from infra.local.child_processes import child_processes

LOOPBACK = "127.0.0.1"


class ServerError(Exception):
    """A server could not be started: one line, followed by the end of its log if there is one."""


class PortTakenError(ServerError):
    """Another process listens on a port that a server needs."""


@dataclass
class Server:
    """How to start a server, and how to check that it answers.

    Args:
        name: shown in messages.
        command: program and arguments.
        url: the address for its clients.
        probes: addresses that must all answer: http URLs (status below 400, 401 or 403) or "host:port" (a connection).
        log: file for its output; parent folders are created.
        ports: the ports it listens on; all must be free.
        env: added to this process's environment; None removes a variable.
        folder: its working directory; must exist if given.
        start_timeout_s: maximum time until it answers.
        grace_s: maximum time from SIGTERM to its end, before SIGKILL.
        children_grace_s: `stop` first ends the processes that the server has started, and meanwhile suspends the
            server so that it starts no others: the maximum time from SIGTERM to their end. 0: the server ends them.
        is_ready: a further check after the probes, for a server that accepts connections before it serves them.
        creates: the SQLite file that it creates at its first start. If the server was ended before it first answered,
            the file may be incomplete and unusable, so it is removed before the next start.
    """

    name: str
    command: Sequence[str]
    url: str
    probes: Sequence[str]
    log: Path
    ports: Sequence[int] = ()
    env: Mapping[str, str | None] = field(default_factory=dict)
    folder: Path | None = None
    start_timeout_s: float = 60.0
    grace_s: float = 10.0
    children_grace_s: float = 0.0
    is_ready: Callable[[], bool] | None = None
    creates: Path | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> Server:
        """Starts the server and waits until it answers.

        Raises:
            PortTakenError: one of its ports is in use.
            ServerError: it cannot be run, ended early, or did not answer in time.
        """
        self.launch()
        self.wait()
        return self

    def launch(self) -> None:
        """Starts the server and returns at once, so that several can start in parallel; then call `wait`."""
        if self.running:
            return
        for port in self.ports:
            check_free(port, self.name)
        if shutil.which(self.command[0]) is None:
            raise ServerError(f"{self.name}: cannot run {self.command[0]}: there is no such program; install it")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._prepare_created_file()
        leash = [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py"))]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash, str(os.getpid()), str(self.grace_s), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_merged(self.env),
                cwd=self.folder,
                # Ctrl-C in the terminal must not reach the server: this process stops its servers in order.
                start_new_session=True,
            )

    def wait(self) -> None:
        """Waits until the server answers.

        Raises:
            ServerError: it was not launched, ended early, or did not answer in time.
        """
        deadline = time.monotonic() + self.start_timeout_s
        try:
            for probe in self.probes:
                self._wait_for(partial(answers, probe), f"no answer at {probe}", deadline)
            if self.is_ready is not None:
                self._wait_for(self.is_ready, "not ready", deadline)
        except BaseException:
            self.stop()
            raise
        if self.creates is not None:
            _mark(self.creates).unlink(missing_ok=True)

    def _wait_for(self, succeeds: Callable[[], bool], problem: str, deadline: float) -> None:
        """Waits until a check succeeds; `deadline` is in seconds of time.monotonic."""
        while not succeeds():
            if not self.running:
                raise ServerError(f"{self.name}: ended early, {problem}; {self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name}: {problem} in {self.start_timeout_s:.0f} s; {self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the server and all processes it started; does nothing if it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        if self.children_grace_s:
            # The process is the leash. Its children are the server and the guard, which ignores SIGTERM.
            for child in child_processes(process.pid):
                _end_children(child, self.children_grace_s)
        process.terminate()
        try:
            process.wait(self.grace_s + 5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _prepare_created_file(self) -> None:
        """Removes `creates` if its mark says that it may be incomplete; sets the mark if there is no such file yet."""
        if self.creates is None:
            return
        mark = _mark(self.creates)
        if mark.exists():
            for ending in ("", "-journal", "-wal", "-shm"):
                self.creates.with_name(f"{self.creates.name}{ending}").unlink(missing_ok=True)
        elif not self.creates.exists():
            mark.touch()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The pid of the leash process, or None."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the log, after the log's name."""
        try:
            text = self.log.read_bytes()[-8000:].decode(errors="replace")
        except OSError:
            text = ""
        tail = "\n".join(text.strip().splitlines()[-lines:])
        return f"the end of {self.log}:\n{tail}" if tail else f"{self.log} is empty"


def _end_children(parent: int, grace_s: float) -> None:
    """Ends the children of a process and then asks the process to end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(parent, signal.SIGSTOP)
        for child in child_processes(parent):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while child_processes(parent) and time.monotonic() < deadline:
            time.sleep(0.1)
        # In this order: it would start a process if it ran on before it has the signal.
        os.kill(parent, signal.SIGTERM)
        os.kill(parent, signal.SIGCONT)


def _mark(file: Path) -> Path:
    """A file that exists from a server's first start until the server first answers."""
    return file.with_name(f"{file.name}.making")


def answers(probe: str, timeout_s: float = 2.0) -> bool:
    """Whether a server answers at an http URL (status below 400, 401 or 403) or accepts connections at "host:port"."""
    if not probe.startswith(("http://", "https://")):
        host, _, port = probe.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout_s).close()
        except OSError:
            return False
        return True
    # Without proxies: a proxy set in the environment must not answer for a server on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(probe, timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code in (401, 403)
    except (OSError, ValueError):
        return False
    return True


def check_free(port: int, name: str) -> None:
    """Raises PortTakenError unless a port of this machine is free.

    Raises:
        PortTakenError: the port is in use.
    """
    if not is_free(port):
        raise PortTakenError(
            f"{name}: port {port} on {LOOPBACK} is taken by another process; end that one or choose another port"
        )


def is_free(port: int) -> bool:
    """Whether no process listens on a port of this machine's loopback."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that is free at the moment; use it soon."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def free_port_block(count: int, twins_at: int = 0) -> int:
    """The first of `count` consecutive free ports; with `twins_at`, each port + twins_at is free too.

    Raises:
        ServerError: there is no such block.
    """
    # Below the system's range of ephemeral ports (from 32768 on Linux).
    start = 15000 + (os.getpid() * 101) % 5000
    for step in range(0, 5000, count):
        first = 15000 + (start - 15000 + step) % 5000
        block = range(first, first + count)
        if all(is_free(port) and (not twins_at or is_free(port + twins_at)) for port in block):
            return first
    raise ServerError(f"no {count} free ports in a row between 15000 and 20000")


def _merged(env: Mapping[str, str | None]) -> dict[str, str]:
    merged = dict(os.environ)
    for name, value in env.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged
