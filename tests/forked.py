"""Processes of a test, forked from one that has torch and our training imported.

Importing them takes 8 s of one core, a fork 20 ms. Tests of several ranks, or of a killed training, start their
processes here; those of Ray, of an interpreter's start or of a C library's settings start a new interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

# The server is multiprocessing's: it starts with the first process, has one thread and never computes.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pipeline.training.stage", "torch._dynamo", __name__])


class ForkedProcess:
    """A process that runs a function; the attributes are those of subprocess.Popen."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self._process = _CONTEXT.Process(target=function, args=arguments, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """That of subprocess: -N after signal N."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return self.returncode

    def kill(self) -> None:
        self._process.kill()


class Forked(ForkedProcess):
    """Runs Python code as `python -c` would, with one thread of torch.

    Args:
        arguments: of the code, in sys.argv[1:].
        with_errors: stderr goes to `stdout` as well, and not to that of the test.
    """

    def __init__(self, code: str, *arguments: str, with_errors: bool = False) -> None:
        reader, writer = multiprocessing.Pipe(duplex=False)
        super().__init__(_run, code, arguments, writer, with_errors, (dict(os.environ), os.getcwd()))
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()))
        reader.close()

    def communicate(self, timeout: float) -> str:
        """What it printed until its end."""
        said: list[str] = []
        reading = Thread(target=lambda: said.append(self.stdout.read()), daemon=True)
        reading.start()
        reading.join(timeout)
        self.wait(0 if reading.is_alive() else timeout)
        return said[0]


def _run(
    code: str, arguments: tuple[str, ...], output: Connection, with_errors: bool, here: tuple[dict[str, str], str]
) -> None:
    import torch

    for stream in (1, 2) if with_errors else (1,):
        os.dup2(output.fileno(), stream)
    output.close()
    os.environ.clear()
    os.environ.update(here[0])
    os.chdir(here[1])
    torch.set_num_threads(1)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})


def fork_decoding_process(pipe: int, memory: int) -> ForkedProcess:
    """What a test of the batches, and not of the start of processes, puts in the place of `_start_process`."""
    with Connection(os.dup(pipe)) as its_pipe, Connection(os.dup(memory)) as its_memory:  # they can be sent
        return ForkedProcess(_decode, its_pipe, its_memory)


def _decode(pipe: Connection, memory: Connection) -> None:
    from pipeline.loading.decode_processes import serve

    serve(os.dup(pipe.fileno()), memory.fileno())
