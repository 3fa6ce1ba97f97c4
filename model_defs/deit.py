"""DeiT: a vision transformer with a distillation token.

Touvron et al. 2020, "Training data-efficient image transformers & distillation through attention",
sections 3 to 5 and table 1. Parameters for 1000 classes at 224 pixels, without and with the token:
Ti 5,717,416 and 5,910,800; S 22,050,664 and 22,436,432; B 86,567,656 and 87,338,192; B at 384 pixels
86,859,496 and 87,630,032. Top-1 errors of the paper (table 3), without and with the token (both heads, 300
epochs): Ti 27.8 and 25.5; S 20.2 and 18.8; B 18.2 and 16.6; B at 384 16.9 and 15.5.

Without the token the network is identical to ViT and is built by vit.py. With it, a second token and a second
head learn from the teacher. `deit_micro_distilled` is our own, for images of 28 to 64 pixels.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from model_defs.arguments import Channels, Classes, Depth, Heads, MlpRatio, Rate, Side, Width
from model_defs.errors import ModelError
from model_defs.vit import Stem, VisionTransformer, sizes_of

HeadCombination = Literal["logits", "softmax"]


class DistilledVisionTransformer(VisionTransformer):
    """A ViT with a distillation token and a head on it.

    In training `forward` returns (class logits, distillation logits), each [B, K]; the first learns the
    label, the second the teacher. In evaluation it returns one tensor: both heads combined.

    Args:
        head_combination: "logits" averages the logits, as the paper's code does; "softmax" averages the
            softmaxes, as the paper's text does, and returns their logarithm, so that a softmax over
            the output gives that average.
        vit: the other arguments of VisionTransformer.
    """

    classifier_names = ("head", "head_dist")

    def __init__(
        self,
        *,
        width: int,
        num_classes: int = 1000,
        head_combination: HeadCombination = "logits",
        **vit: Any,
    ) -> None:
        super().__init__(width=width, num_classes=num_classes, prefix_tokens=2, **vit)
        if head_combination not in get_args(HeadCombination):
            raise ModelError(f"deit: head_combination must be logits or softmax, not {head_combination!r}")
        self.head_combination = head_combination
        self.dist_token = nn.Parameter(torch.empty(1, 1, width))
        self.head_dist = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.init_weights()

    def prefix(self) -> list[Tensor]:
        return [self.cls_token, self.dist_token]

    def forward_features(self, x: Tensor) -> Tensor:
        """The mean of the class token and the distillation token, [B, D]."""
        return self.tokens(x)[:, :2].mean(dim=1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        if not self.num_classes:
            return self.forward_features(x)
        tokens = self.tokens(x)
        from_class: Tensor = self.head(tokens[:, 0])
        from_distillation: Tensor = self.head_dist(tokens[:, 1])
        if self.training:
            return from_class, from_distillation
        return combine_heads(from_class, from_distillation, self.head_combination)


def combine_heads(from_class: Tensor, from_distillation: Tensor, combination: HeadCombination) -> Tensor:
    """Combines the logits of both heads into one [B, K] tensor."""
    if combination == "logits":
        return (from_class + from_distillation) / 2
    probabilities = from_class.float().softmax(dim=-1) + from_distillation.float().softmax(dim=-1)
    return (probabilities / 2).log()


def deit_distilled(
    *,
    size: str,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    native_size: Side = 224,
    drop_path: Rate = 0.0,
    head_combination: HeadCombination = "logits",
) -> DistilledVisionTransformer:
    """DeiT with the distillation token; `native_size` is used if `img_size` is None."""
    width, depth, heads = sizes_of(size)
    return DistilledVisionTransformer(
        img_size=img_size or native_size,
        patch_size=16,
        width=width,
        depth=depth,
        heads=heads,
        num_classes=num_classes,
        in_chans=in_chans,
        drop_path=drop_path,
        head_combination=head_combination,
    )


def deit_micro_distilled(
    *,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    patch_size: Side = 8,
    width: Width = 128,
    depth: Depth = 4,
    heads: Heads = 2,
    mlp_ratio: MlpRatio = 4.0,
    drop_path: Rate = 0.0,
    stem: Stem = "patch",
    head_combination: HeadCombination = "logits",
) -> DistilledVisionTransformer:
    """A distilled ViT for images of `img_size` pixels (64) that a CPU can train."""
    return DistilledVisionTransformer(
        img_size=img_size or 64,
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=heads,
        num_classes=num_classes,
        in_chans=in_chans,
        mlp_ratio=mlp_ratio,
        drop_path=drop_path,
        stem=stem,
        head_combination=head_combination,
    )
