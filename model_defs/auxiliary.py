"""Auxiliary classifiers: heads on intermediate maps of a net, which are trained on the label.

Szegedy et al. 2014, "Going Deeper with Convolutions", section 5: their losses, times a weight, are added to the
loss of the main head, so that a gradient reaches the early layers; after the training they are discarded.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from model_defs.layers.pooled_map import PooledMap, refuse_smaller


class AuxiliaryLogits(NamedTuple):
    """The output of a net with auxiliary heads in training; in evaluation it returns only `logits`.

    Attributes:
        logits: [B, K], of the main head.
        auxiliary: [B, K] of each auxiliary head.
        weight: weight of each auxiliary loss relative to the loss of `logits`.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    weight: float


class PooledMapWithHeads(PooledMap):
    """A PooledMap with optional auxiliary heads; subclasses implement `all_maps` instead of `last_map`.

    Attributes:
        auxiliary_weight: see AuxiliaryLogits.
    """

    auxiliary_weight: float

    @abstractmethod
    def auxiliary_heads(self) -> tuple[nn.Module, ...]:
        """The heads in the order of their maps; empty if the net was built without them."""

    @abstractmethod
    def all_maps(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The map of each auxiliary head, whether the head exists or not, and the last map."""

    def last_map(self, x: Tensor) -> Tensor:
        return self.all_maps(x)[1]

    def forward(self, x: Tensor) -> Tensor | AuxiliaryLogits:  # type: ignore[override]
        heads = self.auxiliary_heads()
        if not self.training or not heads:
            return super().forward(x)
        refuse_smaller(self.family, min(x.shape[-2:]), self.smallest)
        maps, last = self.all_maps(x)
        auxiliary = tuple(head(feature_map) for head, feature_map in zip(heads, maps, strict=True))
        return AuxiliaryLogits(self.forward_head(last), auxiliary, self.auxiliary_weight)
