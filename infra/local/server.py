"""A server as a child process: started, waited for, stopped with everything it started.

`start` returns when the server answers, or raises with the end of its log. The server ends with this
process, also when this process is killed (see leash.py). Its output goes to a log file, never to
the terminal.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

LOOPBACK = "127.0.0.1"


class ServerError(Exception):
    """A server could not be started; one line, with the log's end below it where there is one."""


class PortTakenError(ServerError):
    """Another process listens on a port that a server needs."""


@dataclass
class Server:
    """A server: how to start it and how to know that it answers.

    Args:
        name: what to call it in messages and on the screen.
        command: program and arguments.
        url: what its users connect to.
        probes: where all must answer: http URLs (below 400, 401 or 403) or "host:port" (a connection).
        log: file that gets its output; parent folders are made.
        ports: ports it will listen on; each must be free.
        env: added to this process's environment; None removes a variable.
        folder: its working directory; must exist if given.
        start_timeout_s: how long it may take to answer.
        grace_s: how long it may take to end after SIGTERM, before SIGKILL.
        makes: the SQLite file that it makes at its first start. If it was ended before it first answered, the file may
            be half made, and no later start could use it: it is removed before the next one.
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
    makes: Path | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> Server:
        """Starts it and waits until it answers.

        Raises:
            PortTakenError: one of its ports is in use.
            ServerError: it cannot be run, ended early, or did not answer in time.
        """
        self.launch()
        self.wait()
        return self

    def launch(self) -> None:
        """Starts it and returns at once, so that several can come up side by side; then `wait`."""
        if self.running:
            return
        for port in self.ports:
            check_free(port, self.name)
        if shutil.which(self.command[0]) is None:
            raise ServerError(f"{self.name}: cannot run {self.command[0]}: there is no such program; install it")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._remove_half_made()
        leash = [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py"))]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash, str(os.getpid()), str(self.grace_s), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_merged(self.env),
                cwd=self.folder,
                # Ctrl-C in the terminal must not reach it: whoever started it stops it, in order.
                start_new_session=True,
            )

    def wait(self) -> None:
        """Returns when it answers.

        Raises:
            ServerError: it was not launched, ended early, or did not answer in time.
        """
        deadline = time.monotonic() + self.start_timeout_s
        try:
            for probe in self.probes:
                while not answers(probe):
                    if not self.running:
                        raise ServerError(f"{self.name}: ended before it answered at {probe}; {self._log_tail()}")
                    if time.monotonic() > deadline:
                        raise ServerError(
                            f"{self.name}: no answer at {probe} in {self.start_timeout_s:.0f} s; {self._log_tail()}"
                        )
                    time.sleep(0.05)
        except BaseException:
            self.stop()
            raise
        if self.makes is not None:
            _mark(self.makes).unlink(missing_ok=True)

    def stop(self) -> None:
        """Ends it and every process it started; does nothing if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(self.grace_s + 5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _remove_half_made(self) -> None:
        """Marks a first start, and removes what one left that never came to answer."""
        if self.makes is None:
            return
        mark = _mark(self.makes)
        if mark.exists():
            for ending in ("", "-journal", "-wal", "-shm"):
                self.makes.with_name(f"{self.makes.name}{ending}").unlink(missing_ok=True)
        elif not self.makes.exists():
            mark.touch()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process that holds the leash, or None."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _log_tail(self, lines: int = 15) -> str:
        try:
            text = self.log.read_bytes()[-8000:].decode(errors="replace")
        except OSError:
            text = ""
        tail = "\n".join(text.strip().splitlines()[-lines:])
        return f"the end of {self.log}:\n{tail}" if tail else f"{self.log} is empty"


def _mark(file: Path) -> Path:
    """A file that is there from a server's first start until it first answers."""
    return file.with_name(f"{file.name}.making")


def answers(probe: str, timeout_s: float = 2.0) -> bool:
    """Whether a server answers at an http URL (below 400, 401 or 403) or accepts at "host:port"."""
    if not probe.startswith(("http://", "https://")):
        host, _, port = probe.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout_s).close()
        except OSError:
            return False
        return True
    # Without proxies: a proxy of the environment must not answer for a server on this machine.
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
    """Does nothing if a port of this machine is free.

    Raises:
        PortTakenError: it is in use.
    """
    if not is_free(port):
        raise PortTakenError(
            f"{name}: port {port} on {LOOPBACK} is taken by another process; end that one or choose another port"
        )


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine's loopback."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nobody listens on just now; take it soon."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def free_port_block(count: int, twins_at: int = 0) -> int:
    """The first of `count` consecutive free ports; with `twins_at`, each port + twins_at is free too.

    Raises:
        ServerError: there is no such block.
    """
    # Below the range from which the system hands out ports of its own (32768 on Linux).
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
