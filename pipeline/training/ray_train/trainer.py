"""Ray's TorchTrainer without the actors that a node of our own has no use for."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer

# By name, so that a Ray that renames them gets all of its callbacks, and is only slower.
# The cleaner frees a cluster's placement group when the controller was killed; here the node ends with it. It asks
# Ray's dashboard, waits 12 s for one that was not started, and the end of every training waited for it.
# Data sets come from the store, not from Ray Data, whose manager is one more process that imports Ray Data.
ONLY_FOR_CLUSTERS = {"PlacementGroupCleanerCallback", "DatasetsCallback"}


class EmbeddedTrainer(TorchTrainer):
    """A TorchTrainer for a node that was started for this process, and ends with it."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        return [one for one in callbacks if type(one).__name__ not in ONLY_FOR_CLUSTERS]
