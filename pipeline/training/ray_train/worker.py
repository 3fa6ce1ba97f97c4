"""The worker's side of a training on Ray Train: the loop, which reports to the driver through the session's Channel.

The Channel is an actor (pipeline.ray_cluster.session) that stores a worker's messages until the driver takes them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pipeline.errors import TutelageError, WorkError
from pipeline.training.heartbeat import Heartbeat, Position, heartbeats

HEARTBEAT_EVERY_S = 5.0
_PREEMPTION_EVERY_STEPS = 20  # a check costs 2.9 ms, and every rank must check equally often


def train_on_worker(config: dict[str, Any]) -> None:
    """The train function of Ray Train: runs the loop, and posts a failure or the result to the Channel.

    Args:
        config: "recipe": the pickled recipe and its CheckpointLocation, as bytes so that Ray Train's controller, which
            forwards it, need not import their classes; "channel": the actor; "training": the id of its messages;
            "cpus": number of torch's threads; "preemptible": whether Ray may announce that a machine will be preempted.
    """
    import ray.train
    import ray.train.torch
    import torch
    from ray import cloudpickle

    from pipeline.training.worker import train_recipe

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(config["cpus"])
    reporter = ChannelReporter(config["channel"], config["training"], rank, world, preemptible=config["preemptible"])
    try:
        recipe, location = cloudpickle.loads(config["recipe"])
        reporter.heartbeat_every_s = min(HEARTBEAT_EVERY_S, recipe.training.hang_timeout_s / 4)
        run_info = train_recipe(recipe, ray.train.torch.get_device(), rank, world, location, reporter)
    except BaseException as error:
        # A lost peer causes a RuntimeError in a collective: Ray handles that, it is not a failure of the training.
        if not (world > 1 and isinstance(error, RuntimeError)):
            cause = error if isinstance(error, TutelageError) else WorkError(f"{type(error).__name__}: {error}")
            reporter.send("failure", (cause, traceback.format_exc()))
        raise
    if rank == 0:
        reporter.send("run_info", run_info)


class ChannelReporter:
    """The Reporter of a worker: sends messages without waiting; the replies to earlier ones say whether to stop.

    Args:
        training_id: the id of its messages.
        world: number of workers; a single one sends no heartbeats, because none waits for it.
    """

    def __init__(self, channel: Any, training_id: str, rank: int, world: int, *, preemptible: bool) -> None:
        self._rank, self._world = rank, world
        self.heartbeat_every_s = HEARTBEAT_EVERY_S
        self._channel = channel
        self._training_id = training_id
        self._preemptible = preemptible
        self._steps = 0
        self._preempted = False
        self._stop = False
        self._pending_reply: Any = None

    def send(self, kind: str, value: Any) -> None:
        """Sends a message and, unlike the other methods, waits for its delivery."""
        import ray

        ray.get(self._channel.post.remote(self._training_id, kind, value))

    def progress(self, step: int, total: int, numbers: dict[str, float]) -> None:
        import ray

        if self._pending_reply is not None:
            ready, _ = ray.wait([self._pending_reply], timeout=0)
            if not ready:
                return
            self._stop = self._stop or ray.get(self._pending_reply)
        message = {"step": step, "total": total, "numbers": numbers}
        self._pending_reply = self._channel.post.remote(self._training_id, "progress", message)

    def row(self, row: dict[str, Any]) -> None:
        self._channel.post.remote(self._training_id, "row", row)

    def heartbeats(self, position: Callable[[], Position]) -> AbstractContextManager[None]:
        def send(beat: Heartbeat) -> None:
            self._channel.post.remote(self._training_id, "heartbeat", beat)

        return heartbeats(self._rank, position, send, self.heartbeat_every_s) if self._world > 1 else nullcontext()

    def stop_requested(self) -> bool:
        return self._stop

    def checkpoint_requested(self) -> bool:
        """True once, when Ray announces that a machine of the group will be preempted."""
        self._steps += 1
        if not self._preemptible or self._steps % _PREEMPTION_EVERY_STEPS:
            return False
        import ray.train

        previously, self._preempted = self._preempted, ray.train.get_preemption_info() is not None
        return self._preempted and not previously
