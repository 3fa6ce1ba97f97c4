"""Vision Transformer.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
section 3.1 and table 1. Parameters for 1000 classes at 224 pixels: Ti/16 5,717,416, S/16 22,050,664,
S/32 22,878,952, B/16 86,567,656, B/32 88,224,232, L/16 304,326,632, L/32 306,535,400, H/14 632,045,800.
Top-1 errors on ImageNet of nets that were pre-trained on ImageNet alone and fine-tuned at 384 pixels (table 5):
B/16 22.09, B/32 26.62, L/16 23.47, L/32 28.84.

Ti and S are DeiT's sizes. The head is one linear layer on the class token, as in the paper's
fine-tuning (its pre-training head has a hidden layer); no dropout, but stochastic depth. Parameter names
are timm's, so weights in that format load unchanged. `vit_micro` is our own, for images of 28 to 64 pixels.
CLIP's image backbones also use this class: a norm before the blocks, no bias on the patches, epsilon 1e-5.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from model_defs.arguments import Channels, Classes, Depth, Epsilon, Heads, MlpRatio, Rate, Side, Width
from model_defs.errors import ModelError
from model_defs.layers.transformer import Activation, block_stack

Stem = Literal["patch", "conv"]


class VisionTransformer(nn.Module):
    """Patches to tokens, class token, positions, blocks, norm; [B, C, H, W] to [B, K].

    Args:
        img_size: side of the square images; a multiple of `patch_size`.
        width: D. `depth`: number of blocks. `heads`: number of attention heads; D is a multiple of it.
        drop_path: stochastic depth of the last block, in [0, 1).
        prefix_tokens: number of tokens before the patches; 1 is the class token alone.
        stem: how a patch becomes a token; "patch" is the paper's linear map, "conv" a few convolutions.
        patch_bias: whether the map from patch to token has a bias.
        pre_norm: adds a norm of the tokens before the first block.
        norm_eps: epsilon of every norm.
        activation: activation of the MLPs.
    Attributes:
        grid_size: patches per side; the tokens after the prefix are in row-major order.
    """

    classifier_names: tuple[str, ...] = ("head",)

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
        patch_bias: bool = True,
        pre_norm: bool = False,
        norm_eps: float = 1e-6,
        activation: Activation = "gelu",
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
        self.grid_size = img_size // patch_size
        self.patch_embed = (PatchEmbed if stem == "patch" else ConvStem)(in_chans, width, patch_size, bias=patch_bias)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, prefix_tokens + self.grid_size**2, width))
        self.norm_pre = nn.LayerNorm(width, eps=norm_eps) if pre_norm else nn.Identity()
        self.blocks = block_stack(
            width,
            depth,
            heads,
            mlp_ratio=mlp_ratio,
            drop_path=drop_path,
            causal=False,
            norm_eps=norm_eps,
            activation=activation,
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Initialises weights and positions with a truncated normal of 0.02, biases with 0 (as DeiT and timm)."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                if isinstance(module, nn.Conv2d) and module is not self.patch_embed.proj:  # before a ReLU
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                else:
                    nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("_token", "pos_embed")):
                nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def first_conv_name(self) -> str:
        """The name of the convolution on the pixels."""
        return f"patch_embed.{self.patch_embed.first_conv_name}"

    def prefix(self) -> list[Tensor]:
        """The learned tokens before the patches, each [1, 1, D]."""
        return [self.cls_token]

    def embed(self, x: Tensor) -> Tensor:
        """All tokens at the input of the first block, [B, prefix + N, D]."""
        if x.shape[-2:] != (self.img_size, self.img_size):
            raise ModelError(
                f"vision transformer: built for {self.img_size} x {self.img_size} images,"
                f" got {x.shape[-2]} x {x.shape[-1]}; pass img_size to create_model"
            )
        patches = self.patch_embed(x)
        prefix = [token.expand(x.shape[0], -1, -1) for token in self.prefix()]
        embedded: Tensor = self.norm_pre(torch.cat([*prefix, patches], dim=1) + self.pos_embed)
        return embedded

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens after the last norm, [B, prefix + N, D]."""
        tokens: Tensor = self.norm(self.blocks(self.embed(x)))
        return tokens

    def forward_features(self, x: Tensor) -> Tensor:
        """The class token after the last norm, [B, D]."""
        return self.tokens(x)[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x))
        return logits


class PatchEmbed(nn.Module):
    """A linear map of each patch, implemented as a strided convolution: [B, C, H, W] to [B, N, D]."""

    first_conv_name = "proj"

    def __init__(self, in_chans: int, width: int, patch_size: int, *, bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, width, patch_size, stride=patch_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(x)
        return patches.flatten(2).transpose(1, 2)


class ConvStem(nn.Module):
    """Convolutions of stride 2 instead of the linear patch map: [B, C, H, W] to [B, N, D].

    Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4: 3x3 convolutions with batch
    norm and ReLU that double their width, then a 1x1 to D. Without it a transformer learns little from a few
    thousand images: it has to learn first that neighbouring pixels are related.
    """

    first_conv_name = "layers.0"

    def __init__(self, in_chans: int, width: int, patch_size: int, *, bias: bool = True) -> None:
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
        self.proj = nn.Conv2d(before, width, 1, bias=bias)

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


def sizes_of(size: str) -> tuple[int, int, int]:
    """Width, depth and heads of a named size.

    Raises:
        ModelError: there is no such size.
    """
    if size not in SIZES:
        raise ModelError(f"vision transformer: size must be one of {', '.join(SIZES)}, not {size!r}")
    return SIZES[size]


def vit(
    *,
    size: str = "base",
    patch_size: Side = 16,
    num_classes: Classes = 1000,
    in_chans: Channels = 3,
    img_size: Side | None = None,
    native_size: Side = 224,
    drop_path: Rate = 0.0,
    stem: Stem = "patch",
    patch_bias: bool = True,
    pre_norm: bool = False,
    norm_eps: Epsilon = 1e-6,
    activation: Activation = "gelu",
) -> VisionTransformer:
    """A ViT of one of the named sizes; `native_size` is the side of its images if `img_size` is None."""
    width, depth, heads = sizes_of(size)
    return VisionTransformer(
        img_size=img_size or native_size,
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=heads,
        num_classes=num_classes,
        in_chans=in_chans,
        drop_path=drop_path,
        stem=stem,
        patch_bias=patch_bias,
        pre_norm=pre_norm,
        norm_eps=norm_eps,
        activation=activation,
    )


def vit_micro(
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
