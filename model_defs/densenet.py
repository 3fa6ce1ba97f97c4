"""DenseNet: the input of each layer is the maps of all earlier layers.

Huang, Liu, van der Maaten, Weinberger 2016, "Densely Connected Convolutional Networks", section 3 and table 1 (the BC
form: 1x1 bottlenecks, transitions that halve the channels). Errors of the paper are top-1/top-5 with one crop (table 3;
DenseNet-161, of growth 48, is not in it):

                  parameters (1000 classes)  error
    DenseNet-121                  7,978,856  25.02/7.71
    DenseNet-161                 28,681,000
    DenseNet-169                 14,149,480  23.80/6.85
    DenseNet-201                 20,013,928  22.58/6.34
    DenseNet-264                 33,337,704  22.15/6.12

Parameter names are torchvision's. Memory use is high: the concatenated input of each layer and its batch norm output
grow with the square of the depth. `memory_efficient=True` discards them and recomputes them in the backward pass
(Pleiss et al. 2017, "Memory-Efficient Implementation of DenseNets"); torchvision's option of that name updates
batch norm's running statistics twice per step, ours once.

`densenet_small` is our own, for images of 28 to 64 pixels: the paper's net for CIFAR (end of section 3), three blocks
after one 3x3 convolution. With blocks (16, 16, 16) it is the paper's DenseNet-BC of 100 layers, 769,162 parameters
for 10 classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model_defs.arguments import Channels, Classes, Depth, Rate, Side, Stride, Width
from model_defs.errors import ModelError
from model_defs.layers.pooled_map import PooledMap, refuse_smaller

BLOCKS = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}


class DenseNet(PooledMap):
    """Stem, dense blocks with transitions between them, norm, ReLU, mean, one linear layer; [B, C, H, W] to [B, K].

    Args:
        stem: layers from `in_chans` to `stem_width` channels, by name; "conv0" is the first.
        smallest: side of an image for which the last map is one pixel.
        blocks: number of layers of each dense block.
        growth: number of channels that a layer adds.
        bottleneck: width of a layer's 1x1 convolution, in multiples of `growth`.
        dropout: rate after each layer, as in the paper for small data sets.
        memory_efficient: recompute concatenated inputs instead of storing them. Forward and backward of DenseNet-121,
            32 images of 224 pixels, float32, one core of an AMD EPYC: peak of 2.1 GB instead of 4.0, n=1; the 1x1
            convolutions of its layers are computed twice.
    """

    family = "densenet"
    classifier_names = ("classifier",)
    first_conv_name = "features.conv0"

    def __init__(
        self,
        stem: OrderedDict[str, nn.Module],
        *,
        stem_width: int,
        smallest: int,
        blocks: Sequence[int],
        growth: int,
        num_classes: int,
        img_size: int,
        bottleneck: int = 4,
        dropout: float = 0.0,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        if not blocks or min(*blocks, growth, bottleneck) < 1:
            raise ModelError(
                f"densenet: blocks {tuple(blocks)}, growth {growth}, bottleneck {bottleneck}: 1 or more each"
            )
        refuse_smaller(self.family, img_size, smallest)
        self.smallest = smallest
        self.num_classes = num_classes
        self.img_size = img_size
        self.features = nn.Sequential(stem)
        channels = stem_width
        for index, depth in enumerate(blocks, start=1):
            if index > 1:
                self.features.add_module(f"transition{index - 1}", Transition(channels, channels // 2))
                channels //= 2
            block = DenseBlock(OrderedDict(
                (f"denselayer{i + 1}", DenseLayer(channels + i * growth, growth, bottleneck, dropout, memory_efficient))
                for i in range(depth)
            ))  # fmt: skip
            self.features.add_module(f"denseblock{index}", block)
            channels += depth * growth
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.num_features = channels
        self.classifier = nn.Linear(channels, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def last_map(self, x: Tensor) -> Tensor:
        return F.relu(self.features(x), inplace=True)

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(features)
        return logits


class DenseBlock(nn.Sequential):
    """Layers that each take the input and all earlier maps; [B, C, h, w] to [B, C + layers * growth, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self:
            maps.append(layer(*maps))
        return torch.cat(maps, dim=1)


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1; norm, ReLU, 3x3: from all maps so far to `growth` new channels."""

    def __init__(self, channels: int, growth: int, bottleneck: int, dropout: float, memory_efficient: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, bottleneck * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth)
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.memory_efficient = memory_efficient

    def forward(self, *maps: Tensor) -> Tensor:
        if not (self.memory_efficient and torch.is_grad_enabled()):
            reduced = self._bottleneck(*maps)
        elif torch.compiler.is_compiling():  # a compiled graph updates the statistics once and rejects such a context
            reduced = checkpoint(self._bottleneck, *maps, use_reentrant=False, preserve_rng_state=False)
        else:
            reduced = checkpoint(
                self._bottleneck, *maps, use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts
            )
        new: Tensor = self.dropout(self.conv2(F.relu(self.norm2(reduced), inplace=True)))
        return new

    def _bottleneck(self, *maps: Tensor) -> Tensor:
        """Concatenates all maps and reduces them to the bottleneck's width; this step dominates memory use."""
        joined = torch.cat(maps, dim=1)
        reduced: Tensor = self.conv1(F.relu(self.norm1(joined), inplace=True))
        return reduced

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _copied_statistics(self.norm1)


class Transition(nn.Sequential):
    """Norm, ReLU, 1x1, and a mean over 2x2 pixels: reduces the channels and halves the height and width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, width, 1, bias=False)
        self.pool = nn.AvgPool2d(2)


@contextmanager
def _copied_statistics(norm: nn.BatchNorm2d) -> Iterator[None]:
    """Makes batch norm update copies of its running statistics: the forward pass already updated the originals."""
    statistics = dict(norm.named_buffers())
    for name, statistic in statistics.items():
        setattr(norm, name, statistic.clone())
    try:
        yield
    finally:
        for name, statistic in statistics.items():
            setattr(norm, name, statistic)


def densenet(
    *,
    layers: int,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    dropout: Rate = 0.0,
    memory_efficient: bool = False,
) -> DenseNet:
    """DenseNet-`layers` for images of about `img_size` pixels (224); accepts any size from 29."""
    growth, width = (48, 96) if layers == 161 else (32, 64)
    stem: list[tuple[str, nn.Module]] = [
        ("conv0", nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False)),
        ("norm0", nn.BatchNorm2d(width)),
        ("relu0", nn.ReLU(inplace=True)),
        ("pool0", nn.MaxPool2d(3, stride=2, padding=1)),
    ]
    return DenseNet(
        OrderedDict(stem),
        stem_width=width,
        smallest=29,
        blocks=BLOCKS[layers],
        growth=growth,
        num_classes=num_classes,
        img_size=img_size or 224,
        dropout=dropout,
        memory_efficient=memory_efficient,
    )


def densenet_small(
    *,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    blocks: Sequence[Depth] = (6, 6, 6),
    growth: Width = 12,
    stem_stride: Stride | None = None,
    dropout: Rate = 0.0,
    memory_efficient: bool = False,
) -> DenseNet:
    """A DenseNet for images of `img_size` pixels (64); the stem's stride is 2, or 1 below 48 pixels."""
    side = img_size or 64
    stride = stem_stride or (2 if side >= 48 else 1)
    stem: list[tuple[str, nn.Module]] = [
        ("conv0", nn.Conv2d(in_chans, 2 * growth, 3, stride=stride, padding=1, bias=False))
    ]
    return DenseNet(
        OrderedDict(stem),
        stem_width=2 * growth,
        smallest=stride * 2 ** (len(blocks) - 1),
        blocks=blocks,
        growth=growth,
        num_classes=num_classes,
        img_size=side,
        dropout=dropout,
        memory_efficient=memory_efficient,
    )
