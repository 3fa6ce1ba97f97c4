"""The time of a training by part: waiting for data, the step's parts, evaluation, checkpoints.

On a CPU a part's time is that between two laps. A GPU computes later than the host asks for it: there the step's parts
are timed by events of the device, and a wait for data counts only as far as the device was idle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from time import perf_counter

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.training.heartbeat import Position

COMPUTED = ("forward_backward", "reduce", "optimizer")
"""Parts of a step that the device computes."""
PARTS = ("data_wait", *COMPUTED, "first_batch", "evaluation", "checkpoint")
"""All parts; first_batch is the wait for the first batch of a loader, which has nothing prepared yet."""
_AFTER = {
    "first_batch": "forward_backward",
    "data_wait": "forward_backward",
    "forward_backward": "reduce",
    "reduce": "optimizer",
    "optimizer": "between steps",
}
_WORDS = {"data_wait": "waiting for data", "forward_backward": "forward and backward pass"}
_ORDER = ("data_wait", *COMPUTED, "between steps")


class PartClock:
    """Adds up the seconds of each part since the last `take`.

    Args:
        device: computes the step.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._mark = self._taken = perf_counter()
        self._events: list[tuple[str | None, torch.cuda.Event]] = []
        self._step_began = self._mark
        self._steps: list[float] = []
        self._current, self._started = "between steps", 0

    def start(self) -> None:
        """Starts a step here; the time since the last lap belongs to none."""
        self._mark = self._step_began = perf_counter()
        self._current, self._started = "data_wait", self._started + 1

    def position(self, step: int) -> Position:
        """Where the training is now; another thread may ask."""
        current, started = self._current, self._started
        order = _ORDER.index(current) if current in _ORDER else len(_ORDER) - 1
        return Position(step, started, order, _WORDS.get(current, current))

    def lap(self, part: str) -> None:
        """Ends a part, which began at the last lap or start."""
        now = perf_counter()
        self._seconds[part] += now - self._mark
        self._mark = now
        self._current = _AFTER[part]
        if part == "optimizer":
            self._steps.append(now - self._step_began)
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append((part if part in COMPUTED else None, event))

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the time of the block, which is outside of steps."""
        began, before = perf_counter(), self._current
        self._current = part
        yield
        self._current = before
        self._seconds[part] += perf_counter() - began

    def take(self) -> dict[str, float]:
        """The seconds of each part since the last call; on a GPU, this waits for its work."""
        if self._device.type == "cuda":
            self._use_device_times()
        taken, self._seconds = self._seconds, dict.fromkeys(PARTS, 0.0)
        self._taken = perf_counter()
        return taken

    def take_steps(self) -> list[float]:
        """The seconds of each step since the last call; on a GPU, to be called after `take`."""
        taken, self._steps = self._steps, []
        return taken

    def _use_device_times(self) -> None:
        torch.cuda.synchronize(self._device)
        seconds = self._seconds
        computed = dict.fromkeys(COMPUTED, 0.0)
        for (_, begin), (part, end) in zip(self._events, self._events[1:], strict=False):
            if part is not None:
                computed[part] += begin.elapsed_time(end) / 1000
        # From the end of a step to that of the next one, since the host is ahead of the device.
        ends = [event for part, event in self._events if part == "optimizer"]
        self._steps = [begin.elapsed_time(end) / 1000 for begin, end in pairwise(ends)]
        self._events.clear()
        outside = sum(seconds[part] for part in ("first_batch", "evaluation", "checkpoint"))
        idle = perf_counter() - self._taken - outside - sum(computed.values())
        seconds.update(computed)
        seconds["data_wait"] = min(seconds["data_wait"], max(idle, 0.0))


def exposed_reduction_s(model: nn.Module) -> float:
    """Seconds in which a step's backward pass only waits for the exchange of gradients between ranks; 0 without DDP.

    DDP measures the exchange and its overlap with the backward pass in the first ten steps and every hundredth; this is
    the mean of the measurements.
    """
    if not isinstance(model, DistributedDataParallel):
        return 0.0
    measured = model._get_ddp_logging_data()
    exchange, hidden = (
        measured.get(name, 0) for name in ("avg_backward_comm_time", "avg_backward_compute_comm_overlap_time")
    )
    return max(float(exchange) - float(hidden), 0.0) / 1e9
