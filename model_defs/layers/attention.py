"""Multi-head self-attention.

Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2. Parameter names match timm and
DeiT's released weights (qkv, proj).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.errors import ModelError


class SelfAttention(nn.Module):
    """Self-attention over N tokens of width D, by PyTorch's fused kernel.

    Args:
        width: D; a multiple of `heads`.
        causal: a token attends only to itself and to earlier tokens.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ModelError(f"attention: width {width} cannot be split over {heads} heads evenly")
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """[B, N, D] to [B, N, D].

        Args:
            attn_mask: bool, broadcast to [B, heads, N, N]: the tokens (last axis) to which a token attends; None: all.
        """
        q, k, v = self._queries_keys_values(x)
        return self._merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, is_causal=self.causal))

    def attention_weights(self, x: Tensor) -> Tensor:
        """The weights that the fused kernel computes but does not return: [B, heads, N, N], each row sums to 1."""
        q, k, _ = self._queries_keys_values(x)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        return scores.softmax(dim=-1)

    def values(self, x: Tensor) -> Tensor:
        """The output if each token attended only to itself: its value vector, projected, [B, N, D]."""
        _, _, v = self._queries_keys_values(x)
        return self._merge_heads(v)

    def _queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, heads, N, D / heads]."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _merge_heads(self, x: Tensor) -> Tensor:
        """Concatenates the heads and applies the output projection: [B, heads, N, D / heads] to [B, N, D]."""
        out: Tensor = self.proj(x.transpose(1, 2).flatten(2))
        return out
