"""The pre-norm Transformer block, and stochastic depth.

Block: Dosovitskiy et al. 2020, equations 2 and 3, and Radford et al. 2021 for text; parameter names as
in timm. Stochastic depth: Huang et al. 2016, per sample, the rate rising linearly with the depth.
The weights released with CLIP were trained with QuickGELU, x sigmoid(1.702 x).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.errors import ModelError
from model_defs.layers.attention import SelfAttention

Activation = Literal["gelu", "quick_gelu"]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); [B, N, D] to [B, N, D].

    Args:
        mlp_ratio: hidden width of the MLP over D.
        drop_path: fraction of samples that skip each of the two branches in training, in [0, 1).
        activation: activation between the two layers of the MLP.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        causal: bool = False,
        norm_eps: float = 1e-6,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = SelfAttention(width, heads, causal=causal)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, int(width * mlp_ratio), activation)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, applied to each token."""

    def __init__(self, width: int, hidden: int, activation: Activation = "gelu") -> None:
        super().__init__()
        if hidden < 1:
            raise ModelError(f"transformer: an MLP of width {width} has no hidden units; use a larger mlp_ratio")
        if activation not in get_args(Activation):
            raise ModelError(f"transformer: activation must be gelu or quick_gelu, not {activation!r}")
        self.activation = F.gelu if activation == "gelu" else quick_gelu
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


def quick_gelu(x: Tensor) -> Tensor:
    """An approximation of GELU by one sigmoid; the maximum error is 0.021."""
    return x * torch.sigmoid(1.702 * x)


class DropPath(nn.Module):
    """In training, zeroes whole samples with probability `rate` and scales the others by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = torch.rand(x.shape[0], *(1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * mask.to(x.dtype) / (1 - self.rate)


def block_stack(
    width: int,
    depth: int,
    heads: int,
    *,
    mlp_ratio: float,
    drop_path: float,
    causal: bool,
    norm_eps: float,
    activation: Activation = "gelu",
) -> nn.Sequential:
    """`depth` blocks; the rate of stochastic depth rises linearly from 0 to `drop_path`."""
    rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
    return nn.Sequential(
        *(
            Block(
                width,
                heads,
                mlp_ratio=mlp_ratio,
                drop_path=rate,
                causal=causal,
                norm_eps=norm_eps,
                activation=activation,
            )
            for rate in rates
        )
    )
