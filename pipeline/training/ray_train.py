"""Runs a training on Ray Train workers; the only door to Ray.

With RAY_ADDRESS set, the workers run on that cluster, whose machines need Tutelage installed (in their
image, or by the cluster's own runtime environment) and a store that they all see. Without it, one
node is started on this machine, once a process, and kept for the next training until `shutdown`.

    driver                                    worker (one a rank)
    start() the node, once                    train_recipe(): the same loop as in a bare process
    TorchTrainer.fit() in a thread            rank 0 posts progress, rows, failures to the Channel
    polls the Channel every 0.5 s     <---    rank 0 writes checkpoints to the store
    asks for a stop through it        --->    rank 0 writes a checkpoint and raises StoppedError

Ray's report() is not used for checkpoints: it returns before they are committed, and is limited to
one in two seconds. A worker that was lost is replaced up to `max_failures` times, and the training goes on
from the newest checkpoint; an error that the training itself raised would come again, and is not retried.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, TutelageError, WorkError
from pipeline.training.interruption import StoppedError
from pipeline.training.placement import worker_resources

if TYPE_CHECKING:
    from pipeline.training.runner import Listener, RunnerConfig
    from pipeline.training.task import TrainingRecipe
    from pipeline.training.worker import CheckpointPlace

# Read by Ray when it is imported or started; set only where the user has not.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A call after shutdown must fail; Ray would join any cluster that it finds on the machine, and hang there.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # Without it ray.init writes ~/.ray/auth_token.
    "RAY_AUTH_MODE": "disabled",
    # How soon the end, or the loss, of a worker is noticed; Ray's 2 s are a third of a short training.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ray gives its workers niceness 15. The training is what the machine is for: beside one busy process it fell
    # from 600 to 20 images/s, its two threads waiting for each other at every layer.
    "RAY_worker_niceness": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_OBJECT_STORE_BYTES = 128 << 20  # no data passes through it: samples come from the store
_POLL_EVERY_S = 0.5
_STOP_WITHIN_S = 30.0
_PREEMPTION_EVERY_STEPS = 20  # a look costs 2.9 ms, and every rank must look equally often
_GROUP_START_ATTEMPTS = 60  # of 30 s each: how long a busy cluster is waited for

_log = logging.getLogger("tutelage.training")
_lock = threading.RLock()
_turn = threading.Lock()
_session: _Session | None = None


class Channel:
    """A tiny actor (no CPU) between the workers and the driver, for all trainings of a session."""

    def __init__(self) -> None:
        self._posts: dict[str, list[tuple[str, Any]]] = {}
        self._stops: set[str] = set()

    def post(self, training: str, kind: str, value: Any) -> bool:
        """Leaves a message for the driver; says whether the training is to stop."""
        self._posts.setdefault(training, []).append((kind, value))
        return training in self._stops

    def take(self, training: str) -> list[tuple[str, Any]]:
        """The messages since the last call."""
        return self._posts.pop(training, [])

    def stop(self, training: str) -> None:
        self._stops.add(training)


class _Session:
    """A connection to Ray that lives in a thread of its own.

    The kernel kills the node's processes when the THREAD that started them ends, which is
    what cleans up after a kill -9, and what would end the node under a caller that is a pool's thread.
    """

    def __init__(self) -> None:
        self.embedded = not os.environ.get("RAY_ADDRESS")
        self.channel: Any = None
        self._folder = Path(tempfile.mkdtemp(prefix="tutelage-ray-")) if self.embedded else None
        self._failed: BaseException | None = None
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="ray-session", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            self._thread.join()
            address = os.environ.get("RAY_ADDRESS", "this machine")
            raise WorkError(f"Ray did not start on {address}: {_one_line(self._failed)}") from self._failed

    def close(self) -> None:
        self._over.set()
        self._thread.join(timeout=30)

    def _live(self) -> None:
        try:
            import ray

            with _sigterm_kept():
                self._connect(ray)
            self.channel = ray.remote(num_cpus=0)(Channel).remote()
            self._ready.set()
            self._over.wait()
        except BaseException as error:
            self._failed = error
        finally:
            with contextlib.suppress(Exception):
                import ray

                ray.shutdown()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._ready.set()

    def _connect(self, ray: Any) -> None:
        if self.embedded:
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=os.cpu_count(),
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="tutelage",
                _temp_dir=str(self._folder),
            )
        else:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, namespace="tutelage")


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Undoes what Ray's C++ does to SIGTERM: its handler calls ours, and aborts the process 3 s later.

    Python sets handlers from the main thread only; the C library does from any.
    """
    libc = ctypes.CDLL(None)
    kept = ctypes.create_string_buffer(256)  # a struct sigaction, 152 bytes on Linux x86-64
    saved = libc.sigaction(signal.SIGTERM, None, kept) == 0
    try:
        yield
    finally:
        if saved:
            libc.sigaction(signal.SIGTERM, kept, None)


def start() -> None:
    """Starts Ray on this machine, or connects to RAY_ADDRESS; does nothing if that was done."""
    global _session
    with _lock:
        if _session is None:
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            atexit.register(shutdown)
            _session = _Session()


def shutdown() -> None:
    """Ends what `start` started; does nothing if nothing runs. Call it in a finally block."""
    global _session
    with _lock:
        session, _session = _session, None
        if session is not None:
            session.close()
            atexit.unregister(shutdown)


def run(
    recipe: TrainingRecipe, runner: RunnerConfig, place: CheckpointPlace, listener: Listener, scratch: Path
) -> dict[str, Any]:
    """Trains on Ray Train workers; returns the facts of the training.

    Args:
        scratch: local folder for Ray Train's own notes and for the traceback of a worker that failed.
    Raises:
        InputError: the cluster does not have what the runner asks for.
        WorkError: a worker failed; one line, the traceback is in scratch.
        StoppedError: the listener asked to stop; a checkpoint was written.
    """
    with _our_turn(listener):
        lost: _WorkersLost | None = None
        try:
            for attempt in range(runner.max_failures + 1):
                listener.note("starting Ray" if attempt == 0 else "replacing lost workers")
                start()
                try:
                    return _fit(recipe, runner, place, listener, scratch)
                except _WorkersLost as error:
                    _log.warning("%s (attempt %d of %d)", error, attempt + 1, runner.max_failures + 1)
                    lost = error
        except BaseException as error:
            # Workers may still be at work then, and whoever interrupts wants to be gone soon.
            if isinstance(error, StoppedError) or not isinstance(error, Exception):
                shutdown()
            raise
        raise WorkError(f"{lost}; tried {runner.max_failures + 1} times. See {scratch / 'worker.log'}")


def check(recipe: TrainingRecipe, runner: RunnerConfig) -> None:
    """Refuses what cannot be, before anything is started; a cluster's size is looked at once it is connected.

    Raises:
        InputError: this machine does not have what the runner asks for.
    """
    if recipe.training.global_batch < runner.workers:
        raise InputError(
            f"{runner.workers} workers share global_batch={recipe.training.global_batch}: one row each at least"
        )
    if not os.environ.get("RAY_ADDRESS"):
        worker_resources(runner, [{"CPU": float(os.cpu_count() or 1), "GPU": float(_local_gpus())}])


class _WorkersLost(Exception):
    """A worker's process ended by itself: killed, out of memory, or its machine is gone."""


@contextlib.contextmanager
def _our_turn(listener: Listener) -> Iterator[None]:
    """One training of this process at a time: two would wait for each other's cores for ever."""
    waited = False
    while not _turn.acquire(timeout=_POLL_EVERY_S):
        if not waited:
            listener.note("waiting for another training of this run")
            waited = True
        if listener.stop_requested():
            raise StoppedError("stopped before its first step")
    try:
        yield
    finally:
        _turn.release()


def _fit(
    recipe: TrainingRecipe, runner: RunnerConfig, place: CheckpointPlace, listener: Listener, scratch: Path
) -> dict[str, Any]:
    """One group of workers, from its start to its end."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    assert _session is not None
    channel = _session.channel
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    resources = worker_resources(runner, nodes)
    training = f"{place.prefix}#{time.monotonic_ns()}"
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={
            "recipe": recipe,
            "place": place,
            "channel": channel,
            "training": training,
            "cpus": int(resources["CPU"]),
            "preemptible": not _session.embedded,
        },
        scaling_config=ScalingConfig(
            num_workers=runner.workers, use_gpu="GPU" in resources, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(scratch.resolve()),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=_GROUP_START_ATTEMPTS),  # type: ignore[call-arg]
        ),
    )
    ended: list[BaseException | None] = []

    def fit() -> None:
        try:
            trainer.fit()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=fit, name="ray-train-fit", daemon=True)
    listener.note(f"starting {runner.workers} worker{'s' if runner.workers > 1 else ''}")
    thread.start()
    outcome = _Outcome(listener)
    asked_at: float | None = None
    while thread.is_alive():
        thread.join(_POLL_EVERY_S)
        outcome.hear(_taken(channel, training))
        if asked_at is None and listener.stop_requested():
            listener.note("writing a checkpoint")
            channel.stop.remote(training)
            asked_at = time.monotonic()
        # The group is left to end by itself: ending Ray under a thread that waits for it can abort the process.
        if asked_at is not None and time.monotonic() - asked_at > _STOP_WITHIN_S:
            raise outcome.failure or StoppedError("stopped; its workers did not answer, so the last checkpoint counts")
    outcome.hear(_taken(channel, training))
    return _concluded(outcome, ended[0] if ended else None, scratch)


def _taken(channel: Any, training: str) -> list[tuple[str, Any]]:
    """What was posted since the last call; a Ray that does not answer is ended, to be started anew."""
    import ray

    try:
        posts: list[tuple[str, Any]] = ray.get(channel.take.remote(training), timeout=60)
    except ray.exceptions.RayError as error:
        shutdown()
        raise _WorkersLost(f"Ray does not answer: {_one_line(error)}") from error
    return posts


class _Outcome:
    """What the workers said so far."""

    def __init__(self, listener: Listener) -> None:
        self.facts: dict[str, Any] | None = None
        self.failure: TutelageError | None = None
        self.trace = ""
        self._listener = listener

    def hear(self, posts: list[tuple[str, Any]]) -> None:
        for kind, value in posts:
            if kind == "progress":
                self._listener.progress(value["step"], value["total"], value["numbers"])
            elif kind == "row":
                self._listener.row(value)
            elif kind == "facts":
                self.facts = value
            elif kind == "failure" and self.failure is None:
                self.failure, self.trace = value


def _concluded(outcome: _Outcome, error: BaseException | None, scratch: Path) -> dict[str, Any]:
    if outcome.failure is not None:
        (scratch / "worker.log").write_text(outcome.trace)
        raise outcome.failure
    if error is not None:
        (scratch / "worker.log").write_text("".join(traceback.format_exception(error)))
        raise _WorkersLost(f"Ray Train: {_one_line(error)}") from error
    if outcome.facts is None:
        raise _WorkersLost("Ray Train: the workers ended without a result")
    return outcome.facts


def check_local(runner: RunnerConfig) -> None:
    """Refuses a runner that asks for more than this machine has; starts nothing.

    Raises:
        InputError: the workers do not fit.
    """
    worker_resources(runner, [{"CPU": float(os.cpu_count() or 1), "GPU": float(_local_gpus())}])


def _local_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Ray's messages are tracebacks: the cause stands last.
    return (lines[-1] if lines else type(error).__name__)[:300]


# What follows runs in the workers.


def _train_on_worker(config: dict[str, Any]) -> None:
    """The train function: the loop, with the Channel as its reporter."""
    import ray.train
    import ray.train.torch
    import torch

    from pipeline.training.worker import train_recipe

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(config["cpus"])
    reporter = _ChannelReporter(config["channel"], config["training"], preemptible=config["preemptible"])
    try:
        facts = train_recipe(config["recipe"], ray.train.torch.get_device(), rank, world, config["place"], reporter)
    except BaseException as error:
        # A lost peer shows as a RuntimeError of a collective: that is for Ray to judge, not a failure of ours.
        if not (world > 1 and isinstance(error, RuntimeError)):
            cause = error if isinstance(error, TutelageError) else WorkError(f"{type(error).__name__}: {error}")
            reporter.send("failure", (cause, traceback.format_exc()))
        raise
    if rank == 0:
        reporter.send("facts", facts)


class _ChannelReporter:
    """The Reporter of a worker: posts without waiting, and reads the answers of earlier posts."""

    def __init__(self, channel: Any, training: str, *, preemptible: bool) -> None:
        self._channel = channel
        self._training = training
        self._preemptible = preemptible
        self._steps = 0
        self._preempted = False
        self._stop = False
        self._answer: Any = None

    def send(self, kind: str, value: Any) -> None:
        """Posts and waits until it has arrived."""
        import ray

        ray.get(self._channel.post.remote(self._training, kind, value))

    def progress(self, step: int, total: int, numbers: dict[str, float]) -> None:
        import ray

        if self._answer is not None:
            ready, _ = ray.wait([self._answer], timeout=0)
            if not ready:
                return
            self._stop = self._stop or ray.get(self._answer)
        message = {"step": step, "total": total, "numbers": numbers}
        self._answer = self._channel.post.remote(self._training, "progress", message)

    def row(self, row: dict[str, Any]) -> None:
        self._channel.post.remote(self._training, "row", row)

    def stop_requested(self) -> bool:
        return self._stop

    def checkpoint_requested(self) -> bool:
        """True once, when Ray says that a machine of the group will be taken away."""
        self._steps += 1
        if not self._preemptible or self._steps % _PREEMPTION_EVERY_STEPS:
            return False
        import ray.train

        was, self._preempted = self._preempted, ray.train.get_preemption_info() is not None
        return self._preempted and not was
