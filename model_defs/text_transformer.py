"""CLIP's text backbone.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 2.4.
63,428,096 parameters for width 512, depth 12, 77 positions, a vocabulary of 49,408 and an output of 512 (the backbone
of ViT-B/32).

A causal Transformer; the features of a text are the output at its end-of-text token, normed and projected. GELU by
default; the released models were trained with QuickGELU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_defs.arguments import Depth, Heads, TokenId, Tokens, Vocabulary, Width
from model_defs.errors import ModelError
from model_defs.layers.transformer import Activation, Block, block_stack


class TextTransformer(nn.Module):
    """Tokens int64 [B, L], L <= context_length, to features [B, output_dim].

    Args:
        output_dim: width of the projection.
        end_of_text: the token at which the output is read; None is the last token of the vocabulary.
            The first occurrence is used; later tokens (padding) have no influence, since attention is causal.
        activation: activation of the MLPs.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        context_length: int,
        vocabulary_size: int,
        output_dim: int,
        end_of_text: int | None = None,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        if end_of_text is not None and end_of_text >= vocabulary_size:
            raise ModelError(
                f"text transformer: end_of_text={end_of_text} is no token of a vocabulary of {vocabulary_size:,}"
            )
        self.context_length = context_length
        self.num_features = output_dim
        self.end_of_text = vocabulary_size - 1 if end_of_text is None else end_of_text
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.blocks = block_stack(
            width, depth, heads, mlp_ratio=4.0, drop_path=0.0, causal=True, norm_eps=1e-5, activation=activation
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Linear(width, output_dim, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Scales as in the paper's code: embeddings 0.02 and 0.01, weights by width and depth, biases zero."""
        width, depth = self.positional_embedding.shape[1], len(self.blocks)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        residual_std = width**-0.5 * (2 * depth) ** -0.5
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.attn.qkv.weight, std=width**-0.5)
            nn.init.normal_(block.attn.proj.weight, std=residual_std)
            nn.init.normal_(block.mlp.fc1.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.fc2.weight, std=residual_std)
            for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
                nn.init.zeros_(linear.bias)
        nn.init.normal_(self.text_projection.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] > self.context_length:
            raise ModelError(f"text transformer: {tokens.shape[1]} tokens, but context_length is {self.context_length}")
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.blocks(x))
        ends = (tokens == self.end_of_text).int().argmax(dim=1)
        at_end = x.gather(1, ends[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)
        features: Tensor = self.text_projection(at_end)
        return features


def text_transformer(
    *,
    width: Width = 512,
    depth: Depth = 12,
    heads: Heads = 8,
    context_length: Tokens = 77,
    vocabulary_size: Vocabulary = 49408,
    output_dim: Width = 512,
    end_of_text: TokenId | None = None,
    activation: Activation = "gelu",
) -> TextTransformer:
    """The text backbone alone; by default the one of CLIP's ViT-B/32."""
    return TextTransformer(
        width=width,
        depth=depth,
        heads=heads,
        context_length=context_length,
        vocabulary_size=vocabulary_size,
        output_dim=output_dim,
        end_of_text=end_of_text,
        activation=activation,
    )
