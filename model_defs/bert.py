"""BERT as a text backbone: the mean of its tokens, projected.

Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", section 3 and
appendix A.2; pooled as in Reimers, Gurevych 2019, "Sentence-BERT", section 3. MiniLM (Wang et al. 2020) is the same
net, but narrow: 6 layers of width 384 have 22,564,608 parameters with 512 positions and 30,522 word pieces, and no
projection. No ImageNet error is given, since it reads no images.

Two components of BERT are omitted: the layer for next-sentence prediction, and the segment embedding, of which a text
of one segment uses one row (added to the positions when weights are loaded). There is no dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_defs.arguments import Depth, Heads, Tokens, Vocabulary, Width
from model_defs.errors import ModelError
from model_defs.layers.attention import SelfAttention
from model_defs.layers.transformer import Mlp

PADDING = 0
_EPS = 1e-12


class Bert(nn.Module):
    """Tokens int64 [B, L], L <= context_length, to features [B, output_dim]; token 0 is padding and has no influence.

    Args:
        output_dim: width of the projection; None: no projection, features have the width of the tokens.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        context_length: int,
        vocabulary_size: int,
        output_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.context_length = context_length
        self.num_features = output_dim or width
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.embedding_norm = nn.LayerNorm(width, eps=_EPS)
        self.blocks = nn.ModuleList(PostNormBlock(width, heads) for _ in range(depth))
        self.text_projection = nn.Linear(width, output_dim, bias=False) if output_dim else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Draws weights from a normal distribution of std 0.02, biases are 0 (authors' code); projection as CLIP's."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positional_embedding, std=0.02)
        if isinstance(self.text_projection, nn.Linear):
            nn.init.normal_(self.text_projection.weight, std=self.text_projection.in_features**-0.5)

    def tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of the tokens after the last block, [B, L, D], and which tokens are valid, bool [B, L]."""
        if tokens.shape[1] > self.context_length:
            raise ModelError(f"bert: {tokens.shape[1]} tokens, but context_length is {self.context_length}")
        valid = tokens != PADDING
        # The first token is always valid, so that a text of only padding has a mean.
        valid = torch.cat([torch.ones_like(valid[:, :1]), valid[:, 1:]], dim=1)
        x = self.embedding_norm(self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]])
        for block in self.blocks:
            x = block(x, valid[:, None, None, :])
        return x, valid

    def forward_features(self, tokens: Tensor) -> Tensor:
        """The mean over the valid tokens, [B, D]."""
        x, valid = self.tokens(tokens)
        weights = valid[:, :, None].to(x.dtype)
        return (x * weights).sum(dim=1) / weights.sum(dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.text_projection(self.forward_features(tokens))
        return features


class PostNormBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)); [B, L, D] to [B, L, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width, 4 * width)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: Tensor, attn_mask: Tensor) -> Tensor:
        x = self.norm1(x + self.attn(x, attn_mask))
        out: Tensor = self.norm2(x + self.mlp(x))
        return out


def bert(
    *,
    width: Width = 768,
    depth: Depth = 12,
    heads: Heads = 12,
    context_length: Tokens = 512,
    vocabulary_size: Vocabulary = 30_522,
    output_dim: Width | None = None,
) -> Bert:
    """A BERT; by default the base model, uncased."""
    return Bert(
        width=width,
        depth=depth,
        heads=heads,
        context_length=context_length,
        vocabulary_size=vocabulary_size,
        output_dim=output_dim,
    )
