"""The end of a convolutional net: the mean over its last map, then one linear layer.

Lin, Chen, Yan 2013, "Network in Network", section 3.2: the mean has no weights, so the images may have any size
with a non-empty last map. Used in ResNet, SENet, DenseNet, EfficientNet and RegNet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from model_defs.errors import ModelError


class PooledMap(nn.Module, ABC):
    """The base class of such nets; subclasses implement `last_map` and `classify`.

    Attributes:
        family: the net's name in messages.
        smallest: the minimum side of an image in pixels.
        num_features: channels of the last map.
        classifier_names, first_conv_name: names of the linear layer and of the first convolution.
    """

    family: str
    smallest: int
    img_size: int
    num_classes: int
    num_features: int
    classifier_names: tuple[str, ...]
    first_conv_name: str

    @abstractmethod
    def last_map(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, num_features, h, w]."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """[B, num_features] to [B, K]."""

    def forward_map(self, x: Tensor) -> Tensor:
        """The last map before pooling, [B, num_features, h, w]."""
        refuse_smaller(self.family, min(x.shape[-2:]), self.smallest)
        return self.last_map(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """The mean over the last map, [B, num_features]."""
        return self.forward_map(x).mean(dim=(2, 3))

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Logits of a last map, [B, num_features, h, w] to [B, K]."""
        return self.classify(feature_map.mean(dim=(2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_map(x))


def refuse_smaller(name: str, side: int, smallest: int) -> None:
    """Raises ModelError, which states the minimum side, if `side` is smaller."""
    if side < smallest:
        raise ModelError(f"{name}: an image of {side} pixels is too small; use {smallest} or more")
