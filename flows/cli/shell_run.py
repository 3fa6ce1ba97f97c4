"""A flow run from the shell: server, display, log and the summary at the end.

The order is chosen for speed: the Prefect server starts first, as a process, and the imports of a run happen while it
starts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from flows.catalog import FlowEntry
from flows.cli.console import Console
from flows.cli.machine_errors import machine_error_line
from flows.cli.outcome import outcome_of, print_outcome
from flows.cli.terminal import RunDisplay, output_to_log
from flows.prefect_server import EmbeddedPrefect, check_server, prefect_for_a_run
from flows.preflight import check_ready, open_store
from flows.run_board import RunBoard, use_board
from flows.second_signal import exit_on_second_signal, ignore_resent_sigterm
from flows.stage_failures import StagesFailedError, failures_line
from pipeline.errors import InputError, TutelageError, WorkError
from pipeline.ray_cluster.folder import remove_abandoned
from pipeline.service_url import shown_url, without_credentials

if TYPE_CHECKING:
    from flows.stage_run import RunSummary
    from pipeline.artifacts import ArtifactStore
    from pipeline.config import Config


def run_in_shell(entry: FlowEntry, parameters: Config, origin: str, *, as_json: bool) -> int:
    """Runs a flow to its end; returns the exit code.

    Args:
        origin: origin of the parameters, for the display.
        as_json: print one JSON object to stdout at the end; the display goes to stderr.

    Raises:
        InputError: the parameters were refused; no work was done.
    """
    store = open_store()
    check_ready(parameters, store)
    check_server()
    remove_abandoned()
    signal.signal(signal.SIGTERM, _interrupt)
    log = store.local / "logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{entry.name}-{os.getpid()}.log"
    board = RunBoard(checked=parameters)
    started = time.monotonic()
    summary: RunSummary | None = None
    error: BaseException | None = None
    with _output_to_log(log) as (real_out, real_err):
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        logging.getLogger().handlers[0].setFormatter(_LogLine("%(asctime)s %(name)s %(message)s"))
        logging.getLogger("httpx").setLevel(logging.WARNING)
        console = Console(file=real_err if as_json else real_out)
        display = RunDisplay(entry.name, origin, board, console)
        try:
            with (
                exit_on_second_signal(lambda: _print_end(real_err), on_first_signal=board.show_stop),
                display.drawing(),
            ):
                summary = _run(entry, parameters, store, board, display)
        except BaseException as raised:
            error = raised
            with contextlib.suppress(OSError):  # the disk is full
                sys.stderr.write(without_credentials(traceback.format_exc()))
        outcome = outcome_of(entry.name, store, board, summary, time.monotonic() - started, log)
        try:
            if as_json:
                real_out.write(json.dumps(outcome.plain(error)) + "\n")
            else:
                print_outcome(outcome, console, ok=error is None)
            real_out.flush()
        except OSError as refused:
            if error is not None:
                return exit_code(error, log, real_err)
            if isinstance(refused, BrokenPipeError):
                raise
            raise WorkError(
                f"standard output: cannot be written ({refused.strerror}); the run is done and its artifacts are "
                "committed: the same command prints what it found"
            ) from None
        return exit_code(error, log, real_err)


@contextlib.contextmanager
def _output_to_log(log: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """Redirects stdout and stderr to the log and yields the real ones, as `output_to_log` does.

    Raises:
        InputError: the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("ab").close()
    except OSError as error:
        raise InputError(
            f"{log}: the run's log cannot be written ({error.strerror}); give this user write permission"
        ) from None
    with output_to_log(log) as files:
        yield files


class _LogLine(logging.Formatter):
    """A log line without the passwords in URLs."""

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a run like Ctrl-C; Prefect sends it to the process again after ending the flow."""
    raise KeyboardInterrupt


def _print_end(stderr: IO[str]) -> None:
    # The display hides a terminal's cursor.
    show_cursor = "\n\x1b[?25h" if stderr.isatty() else ""
    stderr.write(f"{show_cursor}tutelage: ended at once; the same command continues where it stopped\n")
    stderr.flush()


def _run(
    entry: FlowEntry, parameters: Config, store: ArtifactStore, board: RunBoard, display: RunDisplay
) -> RunSummary:
    with prefect_for_a_run(store.local / "services") as server:
        if server is not None:
            board.set_phase("starting the Prefect server")
        flow = entry.load()
        if server is not None:
            server.wait()
        board.set_phase("preparing the run")
        display.link("Prefect", server.ui if server is not None else shown_url(os.environ["PREFECT_API_URL"]))
        try:
            with use_board(board), _settings(server), ignore_resent_sigterm():
                summary: RunSummary = flow(parameters)
        finally:
            if server is not None and board.flow_run_id is not None:
                board.set_phase("recording the run")
                flush_prefect()
                server.drain(board.flow_run_id, len(board.rows()))
    return summary


def flush_prefect() -> None:
    """Sends Prefect's queued logs and events; after the server has stopped they would be retried for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    EventsWorker.drain_all(timeout=10)


def _settings(server: EmbeddedPrefect | None) -> contextlib.AbstractContextManager[Any]:
    """Prefect's settings for a run in this process: no heartbeat with an embedded server.

    Stopping the heartbeat delays a flow by one second (Prefect 3.8), and only an automation on a server that outlives
    the run could use it.
    """
    if server is None:
        return contextlib.nullcontext()
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


def exit_code(error: BaseException | None, log: Path, stderr: IO[str]) -> int:
    """The exit code of a run; an error is printed in one line to `stderr`."""
    if error is None:
        return 0
    if isinstance(error, InputError):
        stderr.write(f"tutelage: {error}\n")
        return InputError.exit_code
    if not isinstance(error, Exception) or type(error).__name__ == "TerminationSignal":
        stderr.write("tutelage: interrupted; the same command continues where it stopped\n")
        return 130
    if isinstance(error, StagesFailedError):
        message = str(WorkError(failures_line(error.errors, _failure_line)))
    else:
        message = _failure_line(error)
    stderr.write(f"tutelage: {message.strip().removesuffix(':')} (log: {log})\n")
    return error.exit_code if isinstance(error, StagesFailedError) else WorkError.exit_code


def _failure_line(error: Exception) -> str:
    message = (isinstance(error, TutelageError) and str(error)) or f"{type(error).__name__}: {error}"
    return str(WorkError(machine_error_line(error) or without_credentials(message)))
