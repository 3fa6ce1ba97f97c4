"""A TorchTrainer that can be ended, and a variant for our own node, without callbacks that it does not need."""

from __future__ import annotations

import contextlib
from typing import Any

import ray
from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController

# Matched by name: if Ray renames them, all of its callbacks run, which is only slower.
# The cleaner frees a cluster's placement group if the controller was killed; here the node ends with it. It queries
# Ray's dashboard and waits 12 s if that was not started, which would delay the end of every training.
# Data sets come from the store, not from Ray Data, whose manager is another process that imports Ray Data.
ONLY_FOR_CLUSTERS = {"PlacementGroupCleanerCallback", "DatasetsCallback"}
_ABORT_TIMEOUT_S = 3.0


class StoppableTrainer(TorchTrainer):
    """A TorchTrainer that another thread can end; Ray supports only Ctrl-C in the main thread."""

    _controller: Any = None

    def _initialize_and_run_controller(self, **controller: Any) -> Any:
        variables = {RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR: "0", **get_env_vars_to_propagate()}
        # On the node of this process, as Ray does.
        this_node = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}  # type: ignore[attr-defined]
        actor = ray.remote(num_cpus=0, label_selector=this_node, runtime_env={"env_vars": variables})(TrainController)
        self._controller = actor.remote(**controller)
        ray.get(self._controller.run.remote())
        return ray.get(self._controller.get_result.remote())

    def end(self) -> None:
        """Ends the workers, or the wait for them; `fit` then raises."""
        if self._controller is None:
            return
        # A start in progress cannot be aborted: its actor is killed instead, with everything that it owns.
        with contextlib.suppress(Exception):
            ray.get(self._controller.abort.remote(), timeout=_ABORT_TIMEOUT_S)
        with contextlib.suppress(Exception):
            ray.kill(self._controller)


class EmbeddedTrainer(StoppableTrainer):
    """A trainer for a node that was started for this process and ends with it."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if type(callback).__name__ not in ONLY_FOR_CLUSTERS]
