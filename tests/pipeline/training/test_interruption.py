"""Requests to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import pytest

from pipeline.training.interruption import request_stop, stoppable


def test_a_signal_is_held_until_the_block_ends_and_then_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []

    def former(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, former)
    try:
        with stoppable() as stop:
            assert not stop
            signal.raise_signal(signal.SIGTERM)
            assert stop
            assert heard == []
        assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is former
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_ctrl_c_is_not_held() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), stoppable():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        reached = True
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one was held back")
    assert reached


def test_another_thread_can_ask_for_a_stop_and_later_trainings_are_not_concerned() -> None:
    seen: list[bool] = []

    def training(started: threading.Event) -> None:
        with stoppable() as stop:
            started.set()
            seen.append(stop.wait(10))

    started = threading.Event()
    thread = threading.Thread(target=training, args=(started,))
    thread.start()
    started.wait()
    request_stop(within_s=30)
    thread.join()
    assert seen == [True]
    with stoppable() as stop:
        assert not stop
