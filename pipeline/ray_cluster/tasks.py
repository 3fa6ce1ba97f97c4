"""Runs one function as Ray tasks, behind the face of an executor of `concurrent.futures`.

A task whose worker was killed, or whose machine was lost, is run again by Ray; so a task must leave the same when it
runs twice. An error that the function itself raises comes back as it is, and is not tried again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pipeline.errors import InputError, TutelageError, WorkError
from pipeline.ray_cluster.address import check_cluster, cluster_address
from pipeline.ray_cluster.folder import base
from pipeline.ray_cluster.session import last_line, start

_RETRIES = 3


def check_tasks() -> None:
    """Refuses to run tasks where none could ever start; starts nothing.

    Raises:
        InputError: no cluster that will do answers at RAY_ADDRESS, or it has no CPU.
    """
    if cluster_address() is None:
        base()
    elif not any(node.get("CPU", 0) >= 1 for node in check_cluster()):
        raise InputError(
            f"RAY_ADDRESS={cluster_address()}: no machine of the cluster has a CPU for tasks; "
            "add one, or set data.runner=threads"
        )


class TaskPool:
    """Calls of one function on the cluster, a core each.

    Args:
        work: what each task calls; it must be picklable, and is sent once.
        while_waiting: called a few times a second until Ray has started; what it raises ends the waiting.
    """

    def __init__(self, work: Callable[[Any], Any], while_waiting: Callable[[], None] = lambda: None) -> None:
        check_tasks()
        start(while_waiting)
        import ray

        self._work = ray.put(work)
        self._call = ray.remote(num_cpus=1, max_retries=_RETRIES, retry_exceptions=False)(_called)
        self._open: dict[Future[Any], Any] = {}

    def submit(self, task: Any) -> Future[Any]:
        """Asks for `work(task)`; its errors are those of the work, or a WorkError if the worker was lost too often."""
        reference = self._call.remote(self._work, task)
        outcome: Future[Any] = Future()
        self._open[outcome] = reference
        reference.future().add_done_callback(lambda done: self._settle(outcome, done))
        return outcome

    def close(self) -> None:
        """Ends the tasks that still run, with their workers."""
        import ray

        for reference in list(self._open.values()):
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)
        self._open.clear()

    def _settle(self, outcome: Future[Any], done: Future[Any]) -> None:
        self._open.pop(outcome, None)
        error = done.exception()
        if error is None:
            outcome.set_result(done.result())
            return
        cause = getattr(error, "cause", None)
        known = next((one for one in (error, cause) if isinstance(one, TutelageError)), None)
        outcome.set_exception(known or WorkError(f"a task on Ray failed: {last_line(error)}"))


def _called(work: Callable[[Any], Any], task: Any) -> Any:
    return work(task)
