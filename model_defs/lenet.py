"""LeNet-5.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", section II.B. The
paper's net has 60,000 trained parameters and an error of 0.95% on MNIST, without distorted training images.

`LeNet5` is the common modern form, 61,706 parameters for 1 x 32 x 32 images and 10 classes: ReLU instead of the scaled
tanh, max-pooling instead of trained subsampling, full connections from the maps of the first convolution to the
second, and a linear head instead of the RBF units.

`LeNet5Of1998` is the paper's net up to its layer F6, 60,000 parameters for 1 x 32 x 32 images. Deviations: a linear
head (850 more for 10 classes) instead of the RBF units, which have drawings of the ASCII characters as fixed codes, and
thus cross-entropy instead of a distance loss; C5, a convolution of its map's size, is implemented as a dense layer.

Images of 28 pixels are used unchanged (the first dense layer is then smaller) or padded to 32 as in the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.arguments import Channels, Classes, Side
from model_defs.errors import ModelError

_SMALLEST = 16

# Table I: the input maps from S2 of each map of C3.
C3_INPUTS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip


class LeNet5(nn.Module):
    """Two convolutions with pooling, then 120-84-K; [B, C, H, W] to [B, K]."""

    name = "lenet5"
    activation: type[nn.Module] = nn.ReLU
    classifier_names: tuple[str, ...] = ("head",)
    first_conv_name = "convolutions.0"

    def __init__(self, *, num_classes: int = 1000, in_chans: int = 3, img_size: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.img_size = img_size or 32
        self.num_features = 84
        if self.img_size < _SMALLEST:
            raise ModelError(f"{self.name}: images of {self.img_size} pixels leave no map; use {_SMALLEST} or more")
        side = ((self.img_size - 4) // 2 - 4) // 2
        self.convolutions = nn.Sequential(*self.layers(in_chans))
        self.dense = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * side * side, 120), self.activation(), nn.Linear(120, 84), self.activation()
        )
        self.head = nn.Linear(84, num_classes) if num_classes else nn.Identity()

    def layers(self, in_chans: int) -> list[nn.Module]:
        """The layers from the image to a map of 16 channels."""
        return [
            nn.Conv2d(in_chans, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        ]  # fmt: skip

    @property
    def features(self) -> nn.Sequential:
        """The convolutional layers, with the name that they have in AlexNet and VGG."""
        return self.convolutions

    def forward_map(self, x: Tensor) -> Tensor:
        """The last map, [B, 16, h, w]."""
        if x.shape[-2:] != (self.img_size, self.img_size):
            raise ModelError(
                f"{self.name}: built for {self.img_size} x {self.img_size} images, got {x.shape[-2]} x {x.shape[-1]};"
                " pass img_size to create_model"
            )
        last: Tensor = self.convolutions(x)
        return last

    def forward_features(self, x: Tensor) -> Tensor:
        """The input of the head, [B, 84]."""
        features: Tensor = self.dense(self.forward_map(x))
        return features

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Logits of a last map, [B, 16, h, w] to [B, K]."""
        logits: Tensor = self.head(self.dense(feature_map))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_map(x))


class ScaledTanh(nn.Tanh):
    """1.7159 tanh(2/3 x), which maps 1 to 1 and -1 to -1 (appendix A of the paper)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class LeNet5Of1998(LeNet5):
    """The layers C1, S2, C3, S4, C5, F6 of the paper, then a linear head; [B, C, H, W] to [B, K]."""

    name = "lenet5_1998"
    activation = ScaledTanh

    def __init__(self, *, num_classes: int = 1000, in_chans: int = 3, img_size: int | None = None) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans, img_size=img_size)
        self.init_weights()

    def layers(self, in_chans: int) -> list[nn.Module]:
        return [
            nn.Conv2d(in_chans, 6, 5), ScaledTanh(), *subsampling(6),
            TableConvolution(C3_INPUTS, 5), ScaledTanh(), *subsampling(16),
        ]  # fmt: skip

    def init_weights(self) -> None:
        """Initialises weights uniformly up to 2.4 / the number of inputs of a unit (appendix A), biases with 0."""
        for module in self.modules():
            if isinstance(module, TableConvolution):
                module.init_weights(2.4)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                bound = 2.4 / module.weight[0].numel()
                nn.init.uniform_(module.weight, -bound, bound)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def subsampling(channels: int) -> list[nn.Module]:
    """A trained coefficient and bias per map for sums of 2 x 2 pixels; the sum is four times the mean used here."""
    return [nn.AvgPool2d(2), nn.Conv2d(channels, channels, 1, groups=channels), ScaledTanh()]


class TableConvolution(nn.Module):
    """A convolution that connects each output map with only some input maps; stride 1, no padding.

    Args:
        table: the input maps of each output map.
        kernel_size: side of the filters.

    Attributes:
        kernels: one for each connected pair of output map and input map, [pairs, k, k].
    """

    outputs: Tensor
    inputs: Tensor

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel_size: int) -> None:
        super().__init__()
        self.table = table
        self.in_channels = 1 + max(number for row in table for number in row)
        self.kernel_size = (kernel_size, kernel_size)
        outputs = [output for output, row in enumerate(table) for _ in row]
        self.register_buffer("outputs", torch.tensor(outputs), persistent=False)
        self.register_buffer("inputs", torch.tensor([number for row in table for number in row]), persistent=False)
        self.kernels = nn.Parameter(torch.empty(len(outputs), *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(len(table)))
        self.init_weights(1.0)

    @torch.no_grad()
    def init_weights(self, gain: float) -> None:
        """Initialises weights uniformly up to gain / the number of inputs of a unit, biases with 0."""
        for filters in self.kernels.split([len(row) for row in self.table]):
            bound = gain / filters.numel()
            filters.uniform_(-bound, bound)
        self.bias.zero_()

    @property
    def weight(self) -> Tensor:
        """The filters with zeros for unconnected maps, [output maps, input maps, k, k]."""
        filters = self.kernels.new_zeros(len(self.bias), self.in_channels, *self.kernel_size)
        return filters.index_put((self.outputs, self.inputs), self.kernels)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


def lenet5(*, num_classes: Classes = 1000, in_chans: Channels = 3, img_size: Side | None = None) -> LeNet5:
    """LeNet-5 for images of `img_size` pixels (32)."""
    return LeNet5(num_classes=num_classes, in_chans=in_chans, img_size=img_size)


def lenet5_1998(*, num_classes: Classes = 1000, in_chans: Channels = 3, img_size: Side | None = None) -> LeNet5Of1998:
    """The LeNet-5 of the paper for images of `img_size` pixels (32)."""
    return LeNet5Of1998(num_classes=num_classes, in_chans=in_chans, img_size=img_size)
