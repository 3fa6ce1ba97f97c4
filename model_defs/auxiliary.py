"""Auxiliary classifiers: heads on maps half way through a net, which learn the label in training.

Szegedy et al. 2014, "Going Deeper with Convolutions", section 5: their losses, times a weight, are added to the
loss of the net's own head, so that a gradient reaches the early layers; afterwards they are thrown away.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from model_defs.layers.pooled_map import PooledMap, refuse_smaller


class AuxiliaryLogits(NamedTuple):
    """What a net with auxiliary heads gives in training; in evaluation it gives `logits` alone.

    Attributes:
        logits: [B, K], of the net's own head.
        auxiliary: [B, K] of each auxiliary head.
        weight: of each auxiliary loss beside that of `logits`.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    weight: float


class PooledMapWithHeads(PooledMap):
    """A PooledMap with auxiliary heads, or without; one of them gives `all_maps` in place of `last_map`.

    Attributes:
        auxiliary_weight: see AuxiliaryLogits.
    """

    auxiliary_weight: float

    @abstractmethod
    def auxiliary_heads(self) -> tuple[nn.Module, ...]:
        """The heads in the order of their maps; none if the net was built without."""

    @abstractmethod
    def all_maps(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The map of each auxiliary head, whether it is there or not, and the last map."""

    def last_map(self, x: Tensor) -> Tensor:
        return self.all_maps(x)[1]

    def forward(self, x: Tensor) -> Tensor | AuxiliaryLogits:  # type: ignore[override]
        heads = self.auxiliary_heads()
        if not self.training or not heads:
            return super().forward(x)
        refuse_smaller(self.family, min(x.shape[-2:]), self.smallest)
        maps, last = self.all_maps(x)
        auxiliary = tuple(head(seen) for head, seen in zip(heads, maps, strict=True))
        return AuxiliaryLogits(self.forward_head(last), auxiliary, self.auxiliary_weight)
