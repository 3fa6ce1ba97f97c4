"""Multi-head self-attention.

Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2. Parameter names are those of timm and
of DeiT's released weights (qkv, proj).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.errors import ModelError


class SelfAttention(nn.Module):
    """Self-attention over N tokens of width D, by PyTorch's fused kernel.

    Args:
        width: D; a multiple of `heads`.
        causal: a token attends to itself and to those before it only.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(f"attention: width {width} cannot be split over {heads} heads evenly")
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, D / heads]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out
