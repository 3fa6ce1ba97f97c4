"""LeNet-5.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", section II.B.
61,706 parameters for 1 x 32 x 32 images and 10 classes (the paper's net has 60,000).

The common modern form: ReLU for the scaled tanh, max-pooling for trained subsampling, every map of the
second convolution sees every map of the first, and a linear head for the RBF units. Images of 28 pixels
go in as they are (their first dense layer is then smaller) or padded to 32 as in the paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from model_defs.errors import ModelError

_SMALLEST = 16


class LeNet5(nn.Module):
    """Two convolutions with pooling, then 120-84-K; [B, C, H, W] to [B, K]."""

    def __init__(self, *, num_classes: int = 1000, in_chans: int = 3, img_size: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.img_size = img_size or 32
        self.num_features = 84
        if self.img_size < _SMALLEST:
            raise ModelError(f"lenet5: images of {self.img_size} pixels leave no map; use {_SMALLEST} or more")
        side = ((self.img_size - 4) // 2 - 4) // 2
        self.convolutions = nn.Sequential(
            nn.Conv2d(in_chans, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.dense = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * side * side, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()
        )
        self.head = nn.Linear(84, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.img_size, self.img_size):
            raise ModelError(
                f"lenet5: built for {self.img_size} x {self.img_size} images, got {x.shape[-2]} x {x.shape[-1]};"
                " pass img_size to create_model"
            )
        features: Tensor = self.dense(self.convolutions(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x))
        return logits


def lenet5(*, num_classes: int = 1000, in_chans: int = 3, img_size: int | None = None) -> LeNet5:
    """LeNet-5 for images of `img_size` pixels (32)."""
    return LeNet5(num_classes=num_classes, in_chans=in_chans, img_size=img_size)
