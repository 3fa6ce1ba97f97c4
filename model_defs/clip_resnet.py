"""CLIP's ResNet: a stem of three convolutions, blurred strides, and attention pooling instead of the mean.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.4 (after
He et al. 2019, "Bag of Tricks", and Zhang 2019, "Making Convolutional Networks Shift-Invariant Again").
ResNet-50 as a classifier of 1000 classes: 38,267,720 parameters; the released image backbone of CLIP's RN50 is the
same net with its linear layer from 2048 to 1024, 38,316,896. The paper has no error for it as a classifier.

The released net projects inside its pooling (`c_proj`). Here that layer is the head `fc` of a classifier, or the
image projection of a CLIP; the features are its input, [B, 2048].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.arguments import Channels, Classes, Side
from model_defs.errors import ModelError

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_STRIDE = 32  # pixels per position of the last map
_HEAD_WIDTH = 64


class CLIPResNet(nn.Module):
    """[B, C, H, W] to [B, K], for square images of one size: the pooling has a position embedding.

    Args:
        depths: bottleneck blocks of the four stages.
        width: channels of the stem; the last map has 32 times as many.
        img_size: a multiple of 32.
    """

    classifier_names: tuple[str, ...] = ("fc",)
    first_conv_name = "conv1"
    prefix_tokens = 1  # the position embedding of the mean precedes the ones of the map

    def __init__(
        self,
        *,
        depths: Sequence[int],
        width: int = 64,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
    ) -> None:
        super().__init__()
        if img_size < _STRIDE or img_size % _STRIDE:
            raise ModelError(f"clip resnet: images of {img_size} pixels do not fit; use a multiple of {_STRIDE}")
        self.num_classes = num_classes
        self.num_features = 32 * width
        self.img_size = img_size
        self.grid_size = img_size // _STRIDE
        self.conv1 = nn.Conv2d(in_chans, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, depths[0], stride=1)
        self.layer2 = _stage(4 * width, 2 * width, depths[1], stride=2)
        self.layer3 = _stage(8 * width, 4 * width, depths[2], stride=2)
        self.layer4 = _stage(16 * width, 8 * width, depths[3], stride=2)
        self.attn_pool = AttentionPool(self.num_features, self.grid_size, heads=self.num_features // _HEAD_WIDTH)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_map(self, x: Tensor) -> Tensor:
        """The last map, [B, num_features, H / 32, W / 32]."""
        if x.shape[-2:] != (self.img_size, self.img_size):
            raise ModelError(
                f"clip resnet: built for {self.img_size} x {self.img_size} images,"
                f" got {x.shape[-2]} x {x.shape[-1]}; pass img_size to create_model"
            )
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x)), inplace=True), 2)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Logits [B, K] of a last map."""
        logits: Tensor = self.fc(self.attn_pool(feature_map))
        return logits

    def forward_features(self, x: Tensor) -> Tensor:
        """The output of attention pooling over the last map, [B, num_features]."""
        features: Tensor = self.attn_pool(self.forward_map(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_map(x))


class AttentionPool(nn.Module):
    """Attention with one query, the mean of the map: [B, D, h, w] to [B, D], by PyTorch's fused kernel.

    Args:
        grid_size: h and w.
    """

    def __init__(self, width: int, grid_size: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ModelError(f"clip resnet: width {width} cannot be split over {heads} heads evenly")
        self.heads = heads
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + grid_size**2, width) * width**-0.5)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.normal_(projection.weight, std=width**-0.5)

    def forward(self, feature_map: Tensor) -> Tensor:
        tokens = self._tokens(feature_map)
        query, keys, values = self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens)
        pooled = F.scaled_dot_product_attention(self._split(query), self._split(keys), self._split(values))
        return pooled.flatten(1)

    def values(self, feature_map: Tensor) -> Tensor:
        """The value vector of each position, [B, h w, D].

        `forward` returns, for each head, a weighted mean of these and of the value vector of the map's mean.
        """
        values: Tensor = self.v_proj(self._tokens(feature_map)[:, 1:])
        return values

    def _tokens(self, feature_map: Tensor) -> Tensor:
        """The map's mean, then its positions row by row, [B, 1 + h w, D]."""
        positions = feature_map.flatten(2).transpose(1, 2)
        return torch.cat([positions.mean(dim=1, keepdim=True), positions], dim=1) + self.pos_embed

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; average pooling replaces the strides of the convolutions."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        nn.init.zeros_(self.bn3.weight)  # a new block equals its shortcut, as in the paper's code
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                OrderedDict(
                    pool=nn.AvgPool2d(stride),
                    conv=nn.Conv2d(channels, 4 * width, 1, bias=False),
                    norm=nn.BatchNorm2d(4 * width),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        if self.stride > 1:
            out = F.avg_pool2d(out, self.stride)
        return F.relu(self.bn3(self.conv3(out)) + self.downsample(x), inplace=True)


def _stage(channels: int, width: int, depth: int, *, stride: int) -> nn.Sequential:
    blocks = [Bottleneck(channels, width, stride=stride)]
    blocks += [Bottleneck(4 * width, width, stride=1) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def clip_resnet(
    *, layers: int, num_classes: Classes = 1000, in_chans: Channels = 3, img_size: Side | None = None
) -> CLIPResNet:
    """CLIP's ResNet-`layers` for images of `img_size` pixels (224)."""
    return CLIPResNet(depths=DEPTHS[layers], num_classes=num_classes, in_chans=in_chans, img_size=img_size or 224)
