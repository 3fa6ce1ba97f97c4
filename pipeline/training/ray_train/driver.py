"""The driver's side of a training on Ray Train: starts a worker group, reads its messages, replaces lost workers."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.counted import counted
from pipeline.errors import TutelageError, WorkError
from pipeline.machine import whole_cores
from pipeline.ray_cluster.address import check_cluster, cluster_address
from pipeline.ray_cluster.folder import parent_folder
from pipeline.ray_cluster.session import Session, last_line, shutdown, start
from pipeline.training.hang_watch import HangWatch
from pipeline.training.interruption import StoppedError
from pipeline.training.out_of_memory import AccumulationRaisedError
from pipeline.training.placement import worker_resources
from pipeline.training.ray_train.allocator import allocator_variables
from pipeline.training.ray_train.worker import train_on_worker

if TYPE_CHECKING:
    from pipeline.training.placement import RunnerConfig
    from pipeline.training.reporter import DriverReporter
    from pipeline.training.task import TrainingRecipe
    from pipeline.training.worker import CheckpointLocation

_POLL_EVERY_S = 0.5
_THREAD_END_WITHIN_S = 5.0
_GROUP_START_ATTEMPTS = 60  # of 30 s each: the limit on waiting for a busy cluster

_log = logging.getLogger("tutelage.training")
_training_lock = threading.Lock()


def run(
    recipe: TrainingRecipe, runner: RunnerConfig, location: CheckpointLocation, reporter: DriverReporter, scratch: Path
) -> dict[str, Any]:
    """Trains on Ray Train workers; returns the content of training.json.

    Args:
        scratch: local folder for Ray Train's own files and for the traceback of a failed worker.
    Raises:
        InputError: the cluster lacks the resources that the runner requests.
        WorkError: a worker failed; the message is one line, the traceback is in scratch.
        StoppedError: the reporter requested a stop; a checkpoint was written.
    """
    with _only_training(reporter):
        lost: WorkersLostError | None = None
        try:
            for attempt in range(runner.max_failures + 1):
                reporter.note("starting Ray" if attempt == 0 else "replacing lost workers")
                session = start(_stop_check(reporter))
                try:
                    with session.in_use():
                        return _fit_in_memory(session, recipe, runner, location, reporter, scratch)
                except WorkersLostError as error:
                    if isinstance(error, RayLostError | WorkerHungError):
                        shutdown()
                    _log.warning("%s (attempt %d of %d)", error, attempt + 1, runner.max_failures + 1)
                    lost = error
        except BaseException as error:
            # After an interruption workers may still be running, so Ray is ended.
            if isinstance(error, StoppedError) or not isinstance(error, Exception):
                shutdown()
            raise
        raise WorkError(f"{lost}; tried {runner.max_failures + 1} times. See {scratch / 'worker.log'}")


def check(recipe: TrainingRecipe, runner: RunnerConfig) -> None:
    """Validates recipe and runner before anything is started.

    Raises:
        InputError: this machine, or the cluster, lacks the resources that the runner requests, or the global
            batch has too few rows for its workers.
    """
    recipe.training.check_workers(runner.workers)
    check_machines(runner)


def check_machines(runner: RunnerConfig) -> None:
    """Compares the runner's request with this machine, or with the cluster of RAY_ADDRESS; starts nothing.

    Raises:
        InputError: the workers do not fit, or no usable cluster answers.
    """
    worker_resources(runner, machines())


def machines() -> list[dict[str, float]]:
    """The resources of each machine on which Ray would run.

    Raises:
        InputError: Ray can run on none.
    """
    if cluster_address() is not None:
        return check_cluster()
    parent_folder()  # Raises InputError if there is no folder for Ray's sockets.
    return [{"CPU": float(whole_cores()), "GPU": float(_local_gpus())}]


def _local_gpus() -> int:
    import torch

    return torch.cuda.device_count()


class WorkersLostError(Exception):
    """A worker process died: killed, out of memory, or its machine was lost."""


class RayLostError(WorkersLostError):
    """Ray itself does not answer; it must be ended, so that the next attempt starts it again."""


class WorkerHungError(WorkersLostError):
    """A worker does not move on, and the others wait for it; Ray is ended, since the worker may not end by itself."""


def _stop_check(reporter: DriverReporter) -> Callable[[], None]:
    def check_stop() -> None:
        if reporter.stop_requested():
            raise StoppedError("stopped before its first step")

    return check_stop


@contextlib.contextmanager
def _only_training(reporter: DriverReporter) -> Iterator[None]:
    """Allows one training at a time in this process: two would wait forever for each other's cores."""
    waited, check_stop = False, _stop_check(reporter)
    while not _training_lock.acquire(timeout=_POLL_EVERY_S):
        if not waited:
            reporter.note("waiting for another training of this run")
            waited = True
        check_stop()
    try:
        yield
    finally:
        _training_lock.release()


def _fit_in_memory(
    session: Session,
    recipe: TrainingRecipe,
    runner: RunnerConfig,
    location: CheckpointLocation,
    reporter: DriverReporter,
    scratch: Path,
) -> dict[str, Any]:
    """Runs groups of workers until one has micro-batches that fit in its memory."""
    while True:
        try:
            return _fit(session, recipe, runner, location, reporter, scratch)
        except AccumulationRaisedError as error:
            reporter.note(str(error))


def _fit(
    session: Session,
    recipe: TrainingRecipe,
    runner: RunnerConfig,
    location: CheckpointLocation,
    reporter: DriverReporter,
    scratch: Path,
) -> dict[str, Any]:
    """Runs one group of workers from start to end."""
    import ray
    from ray import cloudpickle
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from pipeline.training.ray_train.loopback import LoopbackConfig
    from pipeline.training.ray_train.trainer import EmbeddedTrainer, StoppableTrainer

    channel = session.channel
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    resources = worker_resources(runner, nodes)
    # The id of this training's messages: all trainings of a session use one channel.
    training_id = f"{location.prefix}#{time.monotonic_ns()}"
    # On one machine, the workers rendezvous through files in a local folder; otherwise at a TCPStore.
    single_machine = session.folder is not None or runner.workers == 1
    rendezvous = (
        LoopbackConfig(folder=str(session.folder.path) if session.folder is not None else "")
        if single_machine
        else None
    )
    trainer = (EmbeddedTrainer if session.embedded else StoppableTrainer)(
        train_on_worker,
        torch_config=rendezvous,
        train_loop_config={
            "recipe": cloudpickle.dumps((recipe, location)),
            "channel": channel,
            "training": training_id,
            "cpus": int(resources["CPU"]),
            "preemptible": not session.embedded,
        },
        scaling_config=ScalingConfig(
            num_workers=runner.workers, use_gpu="GPU" in resources, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(scratch.resolve()),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=_GROUP_START_ATTEMPTS),  # type: ignore[call-arg]
            # On GPUs, the activations are not in the host's memory.
            worker_runtime_env={} if "GPU" in resources else {"env_vars": allocator_variables()},
        ),
    )
    ended: list[BaseException | None] = []

    def fit() -> None:
        try:
            with session.in_use():
                trainer.fit()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=fit, name="ray-train-fit", daemon=True)
    reporter.note(f"starting {counted(runner.workers, 'worker')}")
    thread.start()
    outcome = _Outcome(reporter, HangWatch(runner.workers, recipe.training.hang_timeout_s))
    requested_at: float | None = None
    try:
        while thread.is_alive():
            thread.join(_POLL_EVERY_S)
            outcome.update(_read_messages(channel, training_id))
            outcome.check_hung(scratch)
            if requested_at is None and reporter.stop_requested():
                requested_at = time.monotonic()
                # If the group can write a checkpoint, it ends by itself.
                if outcome.has_stepped:
                    reporter.note("writing a checkpoint")
                    channel.stop.remote(training_id)
            if requested_at is None:
                continue
            if not outcome.has_stepped:
                raise StoppedError("stopped before its first step")
            if time.monotonic() - requested_at > reporter.stop.within_s:
                unanswered = StoppedError("stopped; its workers did not answer, so the last checkpoint counts")
                raise outcome.failure or unanswered
        outcome.update(_read_messages(channel, training_id))
    except BaseException:
        # Ending Ray while a thread waits for it would end the process.
        if thread.is_alive():
            trainer.end()
            thread.join(_THREAD_END_WITHIN_S)
        raise
    return _result(outcome, ended[0] if ended else None, scratch)


def _read_messages(channel: Any, training_id: str) -> list[tuple[str, Any]]:
    """The (kind, value) of each message since the last call.

    Raises:
        RayLostError: Ray does not answer.
    """
    import ray

    try:
        posts: list[tuple[str, Any]] = ray.get(channel.take.remote(training_id), timeout=60)
    except ray.exceptions.RayError as error:
        raise RayLostError(f"Ray does not answer: {last_line(error)}") from error
    return posts


class _Outcome:
    """The state of a training, from the messages of its workers so far."""

    def __init__(self, reporter: DriverReporter, watch: HangWatch) -> None:
        self._watch = watch
        self.run_info: dict[str, Any] | None = None
        self.has_stepped = False  # a step was done, so that there is something to save
        self.failure: TutelageError | None = None
        self.trace = ""
        self._reporter = reporter

    def update(self, posts: list[tuple[str, Any]]) -> None:
        for kind, value in posts:
            if kind == "progress":
                self.has_stepped = True
                self._reporter.progress(value["step"], value["total"], value["numbers"])
            elif kind == "heartbeat":
                self._watch.add(value, time.monotonic())
            elif kind == "row":
                self._reporter.row(value)
            elif kind == "run_info":
                self.run_info = value
            elif kind == "failure" and self.failure is None:
                self.failure, self.trace = value

    def check_hung(self, scratch: Path) -> None:
        """Raises WorkerHungError if the other workers wait for one; its stack is in worker.log."""
        hung = self._watch.hung(time.monotonic())
        if hung is not None:
            sentence, stack = hung
            (scratch / "worker.log").write_text(f"{sentence}\n{stack}")
            raise WorkerHungError(sentence)


def _result(outcome: _Outcome, error: BaseException | None, scratch: Path) -> dict[str, Any]:
    if outcome.failure is not None:
        (scratch / "worker.log").write_text(outcome.trace)
        raise outcome.failure
    if error is not None:
        (scratch / "worker.log").write_text("".join(traceback.format_exception(error)))
        raise WorkersLostError(f"Ray Train: {last_line(error)}") from error
    if outcome.run_info is None:
        raise WorkersLostError("Ray Train: the workers ended without a result")
    return outcome.run_info
