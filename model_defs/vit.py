"""Vision Transformer.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
section 3.1 and table 1. Parameters for 1000 classes at 224 pixels: Ti/16 5,717,416, S/16 22,050,664,
S/32 22,878,952, B/16 86,567,656, B/32 88,224,232, L/16 304,326,632, L/32 306,535,400, H/14 632,045,800.

Ti and S are DeiT's sizes. The head is one linear layer on the class token, as in the paper's
fine-tuning (its pre-training head has a hidden layer); no dropout, but stochastic depth. Parameter names
are timm's, so weights released in that form load as they are. `vit_micro` is ours, for images of 28 to 64 pixels.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from model_defs.errors import ModelError
from model_defs.layers.transformer import block_stack

Stem = Literal["patch", "conv"]


class VisionTransformer(nn.Module):
    """Patches to tokens, class token, positions, blocks, norm; [B, C, H, W] to [B, K].

    Args:
        img_size: side of the square images; a multiple of `patch_size`.
        width: D. `depth`: number of blocks. `heads`: of attention; D is a multiple of it.
        drop_path: stochastic depth of the last block, in [0, 1).
        prefix_tokens: tokens before the patches; 1 is the class token alone.
        stem: how a patch becomes a token; "patch" is the paper's linear map, "conv" a few convolutions.
    """

    def __init__(
        self,
        *,
        img_size: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        num_classes: int = 1000,
        in_chans: int = 3,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        prefix_tokens: int = 1,
        stem: Stem = "patch",
    ) -> None:
        super().__init__()
        if stem not in get_args(Stem):
            raise ModelError(f"vision transformer: stem must be patch or conv, not {stem!r}")
        if img_size < patch_size or img_size % patch_size:
            raise ModelError(
                f"vision transformer: images of {img_size} pixels cannot be cut into patches of {patch_size};"
                f" use a multiple of {patch_size}"
            )
        self.img_size = img_size
        self.num_classes = num_classes
        self.num_features = width
        self.prefix_tokens = prefix_tokens
        self.patch_embed = (PatchEmbed if stem == "patch" else ConvStem)(in_chans, width, patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, prefix_tokens + (img_size // patch_size) ** 2, width))
        self.blocks = block_stack(
            width, depth, heads, mlp_ratio=mlp_ratio, drop_path=drop_path, causal=False, norm_eps=1e-6
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal of 0.02 for weights and positions, zero for biases (DeiT's and timm's choice)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:  # of a ConvStem, before a ReLU
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("_token", "pos_embed")):
                nn.init.trunc_normal_(parameter, std=0.02)

    def prefix(self) -> list[Tensor]:
        """The learned tokens before the patches, each [1, 1, D]."""
        return [self.cls_token]

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens after the last norm, [B, prefix + N, D]."""
        if x.shape[-2:] != (self.img_size, self.img_size):
            raise ModelError(
                f"vision transformer: built for {self.img_size} x {self.img_size} images,"
                f" got {x.shape[-2]} x {x.shape[-1]}; pass img_size to create_model"
            )
        patches = self.patch_embed(x)
        prefix = [token.expand(x.shape[0], -1, -1) for token in self.prefix()]
        tokens: Tensor = self.norm(self.blocks(torch.cat([*prefix, patches], dim=1) + self.pos_embed))
        return tokens

    def forward_features(self, x: Tensor) -> Tensor:
        """The class token after the last norm, [B, D]."""
        return self.tokens(x)[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x))
        return logits


class PatchEmbed(nn.Module):
    """A linear map of each patch, written as a strided convolution: [B, C, H, W] to [B, N, D]."""

    def __init__(self, in_chans: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, width, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(x)
        return patches.flatten(2).transpose(1, 2)


class ConvStem(nn.Module):
    """Convolutions of stride 2 in the place of the linear patch map: [B, C, H, W] to [B, N, D].

    Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4: 3x3 convolutions with batch
    norm and ReLU that double their width, then a 1x1 to D. Without it a transformer learns little from a few
    thousand images: it has to learn first that neighbours belong together.
    """

    def __init__(self, in_chans: int, width: int, patch_size: int) -> None:
        super().__init__()
        halvings = patch_size.bit_length() - 1
        if patch_size != 2**halvings or halvings < 1:
            raise ModelError(f"vision transformer: stem=conv needs a patch_size that is a power of 2, not {patch_size}")
        layers: list[nn.Module] = []
        before = in_chans
        for left in reversed(range(halvings)):
            after = max(width >> left, 8)
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.layers = nn.Sequential(*layers)
        self.proj = nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(self.layers(x))
        return patches.flatten(2).transpose(1, 2)


SIZES = {
    # width, depth, heads; Ti and S from DeiT, the rest from ViT's table 1
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


def vit(
    *,
    size: str,
    patch_size: int,
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | None = None,
    drop_path: float = 0.0,
) -> VisionTransformer:
    """A ViT of one of the named sizes, for images of `img_size` pixels (224)."""
    width, depth, heads = SIZES[size]
    return VisionTransformer(
        img_size=img_size or 224,
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=heads,
        num_classes=num_classes,
        in_chans=in_chans,
        drop_path=drop_path,
    )


def vit_micro(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | None = None,
    patch_size: int = 8,
    width: int = 128,
    depth: int = 4,
    heads: int = 2,
    mlp_ratio: float = 4.0,
    drop_path: float = 0.0,
    stem: Stem = "patch",
) -> VisionTransformer:
    """A ViT for images of `img_size` pixels (64) that a CPU can train."""
    return VisionTransformer(
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
    )
