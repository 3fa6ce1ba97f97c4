"""The end of an early convolutional net: its last map, pooled to a fixed grid, flattened, then three dense layers.

Krizhevsky, Sutskever, Hinton 2012, section 3.5: used in AlexNet, ZF-Net and VGG. The papers use one image
size, at which the last map already is the grid. At other sizes the map is averaged over each cell of the grid,
as in torchvision: so all weights fit at any size, and the images need not be square.
"""

from __future__ import annotations

from torch import Tensor, nn

from model_defs.layers.pooled_map import refuse_smaller


class FlattenedMap(nn.Module):
    """The base class of such nets; `features`, `avgpool` and `classifier` are torchvision's names.

    Attributes:
        family: the net's name in messages.
        smallest: the minimum side of an image in pixels.
        features: a flat sequence of layers, from the image to the last map.
        avgpool: from any map to the grid.
        classifier: dense layers with dropout; the last one is the head.
    """

    family: str
    smallest: int
    img_size: int
    num_classes: int
    num_features = 4096
    features: nn.Sequential
    avgpool: nn.Module
    classifier: nn.Sequential
    classifier_names: tuple[str, ...] = ("classifier.6",)
    first_conv_name = "features.0"

    def forward_map(self, x: Tensor) -> Tensor:
        """The last map, [B, C, h, w]."""
        refuse_smaller(self.family, min(x.shape[-2:]), self.smallest)
        last: Tensor = self.features(x)
        return last

    def flatten(self, feature_map: Tensor) -> Tensor:
        """[B, C, h, w] of any size to the input of the first dense layer."""
        grid: Tensor = self.avgpool(feature_map)
        return grid.flatten(1)

    def forward_features(self, x: Tensor) -> Tensor:
        """The input of the head, [B, 4096]."""
        features: Tensor = self.classifier[:-1](self.flatten(self.forward_map(x)))
        return features

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Logits of a last map, [B, C, h, w] to [B, K]."""
        logits: Tensor = self.classifier(self.flatten(feature_map))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_map(x))


def head(num_classes: int) -> nn.Module:
    """The last dense layer, or an identity for features."""
    return nn.Linear(4096, num_classes) if num_classes else nn.Identity()
