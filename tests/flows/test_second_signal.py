"""The first signal ends a run in order; the second ends it at once, whatever the main thread waits for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from flows.run_board import RunBoard

# Deaf in its main thread after the first signal: what Prefect, Ray or a server that does not answer may make of it.
WAITS = """
import ctypes, os, signal, sys, time
from flows.second_signal import exit_on_second_signal

def note(number, frame):
    os.write(1, b"first\\n")  # in one piece: the same stop, sent again, interrupts a print
    # In C, where no handler of Python's runs.
    ctypes.CDLL(None).pause() if sys.argv[1] == "in C" else time.sleep(60)

signal.signal(signal.SIGINT, note)
signal.signal(signal.SIGTERM, note)
with exit_on_second_signal(lambda: print("last words", flush=True)):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("where", ["in Python", "in C"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_process_that_waits_for_ever(how: signal.Signals, where: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", WAITS, where], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        # The same stop, sent to the process and to its group.
        child.send_signal(how)
        child.send_signal(how)
        assert child.stdout.readline() == "first\n"
        time.sleep(0.7)
        assert child.poll() is None
        child.send_signal(how)
        assert child.wait(timeout=5) == 130
        assert "last words" in child.stdout.read()
    finally:
        child.kill()
        child.wait()


PASSED_ON = """
import os, signal, sys, time
from flows.second_signal import count_every_signal, exit_on_second_signal, ignore_resent_sigterm

signal.signal(signal.SIGTERM, lambda number, frame: None)
with exit_on_second_signal(lambda: print("last words", flush=True)):
    with ignore_resent_sigterm():
        with count_every_signal():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.7)
            if sys.argv[1] == "twice from outside":
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.7)
        # The thread that hears it comes to it only when this one waits: after the flow.
        sys.setswitchinterval(60)
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.7)
    print("in order", flush=True)
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("who", "said", "code"), [("prefect", "in order\n", 0), ("twice from outside", "last words\n", 130)]
)
def test_a_signal_that_prefect_passes_on_is_no_second_one(who: str, said: str, code: int) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PASSED_ON, who], capture_output=True, text=True, check=False, timeout=60
    )
    assert (answer.stdout, answer.returncode) == (said, code)


def test_the_first_signal_is_noticed_although_the_main_thread_is_busy() -> None:
    from flows.second_signal import exit_on_second_signal

    board = RunBoard()
    board.set_phase("preparing the run")
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        with exit_on_second_signal(lambda: None, on_first_signal=board.show_stop):
            signal.raise_signal(signal.SIGINT)
            deadline = time.monotonic() + 5
            while board.phase != "stopping; Ctrl-C again ends the run at once":
                assert time.monotonic() < deadline
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGINT, before)
    assert board.stopping


def test_after_it_signals_are_as_before() -> None:
    from flows.second_signal import exit_on_second_signal

    with exit_on_second_signal(lambda: None), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.set_wakeup_fd(-1) == -1
