"""Runs one function as Ray tasks, with the interface of an executor of `concurrent.futures`.

Ray runs a task again if its worker was killed or its machine was lost, so tasks must be idempotent. A TutelageError
that the function raises is the error of the future, any other one becomes a WorkError; neither is retried.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pipeline.errors import InputError, TutelageError, WorkError
from pipeline.ray_cluster.address import check_cluster, cluster_address
from pipeline.ray_cluster.folder import parent_folder
from pipeline.ray_cluster.session import last_line, start

_RETRIES = 3


def check_tasks() -> None:
    """Checks that tasks can run; starts nothing.

    Raises:
        InputError: no usable cluster answers at RAY_ADDRESS, or it has no CPU; without RAY_ADDRESS, Ray cannot start
            on this machine.
    """
    if cluster_address() is None:
        parent_folder()  # Raises InputError if there is no folder for Ray's sockets.
    elif not any(node.get("CPU", 0) >= 1 for node in check_cluster()):
        raise InputError(
            f"RAY_ADDRESS={cluster_address()}: no machine of the cluster has a CPU for tasks; "
            "add one, or set data.runner=threads"
        )


class TaskPool:
    """Calls of one function on the cluster, each on one core.

    Args:
        work: the function of each task; it must be picklable, and is sent once.
        while_waiting: called a few times a second until Ray has started; an exception it raises ends the waiting.
    """

    def __init__(self, work: Callable[[Any], Any], while_waiting: Callable[[], None] = lambda: None) -> None:
        check_tasks()
        start(while_waiting)
        import ray

        self._work = ray.put(work)
        self._call = ray.remote(num_cpus=1, max_retries=_RETRIES, retry_exceptions=False)(_run_task)
        self._open: dict[Future[Any], Any] = {}

    def submit(self, task: Any) -> Future[Any]:
        """Submits `work(task)`; the future has its result or error, or a WorkError if workers were lost too often."""
        reference = self._call.remote(self._work, task)
        outcome: Future[Any] = Future()
        self._open[outcome] = reference
        reference.future().add_done_callback(lambda done: self._complete(outcome, done))
        return outcome

    def close(self) -> None:
        """Cancels the running tasks and ends their workers."""
        import ray

        for reference in list(self._open.values()):
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)
        self._open.clear()

    def _complete(self, outcome: Future[Any], done: Future[Any]) -> None:
        self._open.pop(outcome, None)
        error = done.exception()
        if error is None:
            outcome.set_result(done.result())
            return
        cause = getattr(error, "cause", None)
        own_error = next((candidate for candidate in (error, cause) if isinstance(candidate, TutelageError)), None)
        outcome.set_exception(own_error or WorkError(f"a task on Ray failed: {last_line(error)}"))


def _run_task(work: Callable[[Any], Any], task: Any) -> Any:
    return work(task)
