"""Runs the tasks of sharding in threads of this process or as Ray tasks; the output is the same.

A task writes its files to temporary names and renames them, so it may run twice or be killed at any point. Results are
yielded in task order; only a bounded number of tasks is in flight, so memory does not grow with the data set.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from pipeline.progress import Progress

RunnerName = Literal["threads", "ray"]
Stop = Callable[[], bool]
T = TypeVar("T")
R = TypeVar("R")
T_in = TypeVar("T_in", contravariant=True)
R_out = TypeVar("R_out", covariant=True)

_POLL_EVERY_S = 0.5
_TASKS_PER_WRITER = 4  # submitted ones, including finished tasks that wait for an earlier task


class Work(Protocol[T_in, R_out]):
    """The function of a task. It polls `stop` regularly, and raises StoppedEarlyError when that returns True."""

    def __call__(self, task: T_in, /, *, stop: Stop) -> R_out: ...


class StoppedEarlyError(Exception):
    """A task ended because `stop` returned True; its unfinished output is discarded."""


def run_in_order(
    work: Work[T, R],
    tasks: Iterable[T],
    *,
    runner: RunnerName,
    writers: int,
    while_waiting: Callable[[], None] = lambda: None,
) -> Generator[R]:
    """Runs `work` for each of `tasks`; yields the results in task order.

    Args:
        work: picklable if Ray runs it.
        writers: maximum number of tasks that run at the same time.
        while_waiting: called at least twice a second; an exception from it stops all tasks.
    Raises:
        Exception: an exception of a task, when its result is due.
    """
    pool: _Pool = _Threads(work, writers) if runner == "threads" else _on_ray(work, while_waiting)
    remaining = iter(tasks)
    has_more = True
    window: deque[Future[R]] = deque()
    running: set[Future[R]] = set()
    try:
        while True:
            while has_more and len(running) < writers and len(window) < writers * _TASKS_PER_WRITER:
                try:
                    future = pool.submit(next(remaining))
                except StopIteration:
                    has_more = False
                    break
                window.append(future)
                running.add(future)
            if not window:
                return
            running -= wait(running, timeout=_POLL_EVERY_S, return_when=FIRST_COMPLETED).done
            while_waiting()
            while window and window[0] not in running:
                yield window.popleft().result()
    finally:
        pool.close()


def run_with_progress(
    work: Work[T, int],
    tasks: Iterable[T],
    *,
    runner: RunnerName,
    writers: int,
    progress: Progress,
    total: int,
    note: str,
) -> None:
    """Runs tasks, each of which returns its number of samples; reports how many of `total` samples are done."""
    done = 0

    def report() -> None:
        progress(step=done, total=total, note=note)

    results = run_in_order(work, tasks, runner=runner, writers=writers, while_waiting=report)
    try:
        for samples in results:
            done += samples
            report()
    finally:
        results.close()


class _Pool(Protocol):
    def submit(self, task: Any) -> Future[Any]: ...
    def close(self) -> None: ...


class _Threads:
    """Threads of this process: reading, hashing and pixel operations release the GIL."""

    def __init__(self, work: Work[Any, Any], writers: int) -> None:
        self._stop = threading.Event()
        self._work = work
        self._pool = ThreadPoolExecutor(max_workers=writers, thread_name_prefix="sharding")

    def submit(self, task: Any) -> Future[Any]:
        return self._pool.submit(lambda: self._work(task, stop=self._stop.is_set))

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _on_ray(work: Work[Any, Any], while_waiting: Callable[[], None]) -> _Pool:
    from pipeline.ray_cluster.tasks import TaskPool

    return TaskPool(partial(work, stop=not_stopping), while_waiting)


def not_stopping() -> bool:
    """Always False: the `stop` of Ray tasks, since Ray stops a task by killing its worker."""
    return False
