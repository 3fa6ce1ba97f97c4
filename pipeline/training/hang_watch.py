"""HangWatch: finds the worker for which all others wait, from the heartbeats of all.

Workers train in lockstep: each step, each waits for the gradients of the others. So one that hangs is

    silent      its process sends nothing, while others do: stopped, or blocked in C code that holds Python's lock
    behind      no worker moves on, and it is at an earlier part of the step than the others
    apart       all are in the same part, the others wait for each other there, and it does something else

A first step compiles, and evaluations and checkpoints take as long as they do: there a worker has ten times the limit.
Where steps are long, so is the limit: three times the longest part of a step so far.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.counted import counted
from pipeline.training.heartbeat import Heartbeat

_PATIENCE = 10
_OF_LONGEST_PART = 3
_OUTSIDE_OF_STEPS = ("evaluation", "checkpoint", "between steps")


@dataclass
class _Seen:
    beat: Heartbeat
    heard: float
    moved: float


class HangWatch:
    """Collects heartbeats.

    Args:
        world: number of workers.
        limit_s: how long the others may wait for one.
    """

    def __init__(self, world: int, limit_s: float) -> None:
        self._world = world
        self._limit_s = limit_s
        self._seen: dict[int, _Seen] = {}
        self._longest_s = 0.0  # that a worker stood in a part of a step and then moved on

    def add(self, beat: Heartbeat, now: float) -> None:
        """Adds a heartbeat received at `now`, in seconds of a monotonic clock."""
        before = self._seen.get(beat.rank)
        if before is not None and before.beat.position == beat.position:
            self._seen[beat.rank] = _Seen(beat, now, before.moved)
            return
        if before is not None and not _is_patient(before.beat):
            self._longest_s = max(self._longest_s, now - before.moved)
        self._seen[beat.rank] = _Seen(beat, now, now)

    def hung(self, now: float) -> tuple[str, str] | None:
        """The worker that hangs, in a sentence, and its stack or "" if it said none; None: none hangs."""
        seen = list(self._seen.values())
        if self._world < 2 or len(seen) < self._world or any(one.beat.ended for one in seen):
            return None
        silent = min(seen, key=lambda one: one.heard)
        if now - silent.heard > self._limit(silent) and any(now - one.heard < self._limit_s / 2 for one in seen):
            return self._described(silent, now - silent.heard, "its process does not answer"), ""
        stood = now - max(one.moved for one in seen)
        last = self._last(seen)
        if last is None or stood <= self._limit(last):
            return None
        return self._described(last, stood, "the other workers wait for it"), last.beat.stack

    def _last(self, seen: list[_Seen]) -> _Seen | None:
        """The worker that is behind or apart; None if all are at one place and none, or every one, waits."""
        places = [(one.beat.position.started, one.beat.position.order) for one in seen]
        behind = [one for one, place in zip(seen, places, strict=True) if place == min(places)]
        if len(behind) < len(seen):
            return next((one for one in behind if not one.beat.waits), behind[0])
        apart = [one for one in seen if not one.beat.waits]
        return apart[0] if 0 < len(apart) < len(seen) else None

    def _limit(self, one: _Seen) -> float:
        return max(self._limit_s * (_PATIENCE if _is_patient(one.beat) else 1), _OF_LONGEST_PART * self._longest_s)

    def _described(self, one: _Seen, seconds: float, why: str) -> str:
        beat = one.beat
        calls = [line.strip() for line in beat.stack.splitlines() if line.startswith("  File ")]
        where = f", at {calls[-1]}" if calls else ""
        return (
            f"rank {beat.rank} of {counted(self._world, 'worker')} hangs on {beat.host} in step "
            f"{beat.position.step:,}, {beat.position.part}, for {seconds:.0f} s: {why} (training.hang_timeout_s){where}"
        )


def _is_patient(beat: Heartbeat) -> bool:
    """Whether the worker may take ten times the limit where it is."""
    return beat.position.started <= 1 or beat.position.part in _OUTSIDE_OF_STEPS
