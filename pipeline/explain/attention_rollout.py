"""Attention rollout: the share of each patch in a transformer's class token.

Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3: a layer mixes tokens by its attention and
passes them on by its residual connection, so it is modelled as A = 0.5 attention + 0.5 identity, each row divided by
its sum; the matrices of successive layers are multiplied. Values, MLPs and the sign of an effect are ignored, so the
map does not depend on the class.

The attention weights are computed a second time, since the model's fused kernel does not return them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from model_defs.layers.transformer import Block
from model_defs.vit import VisionTransformer
from pipeline.errors import InputError

HeadFusion = Literal["mean", "max", "min"]
OutputToken = Literal["mean", "class", "distillation"]

_FUSIONS: dict[HeadFusion, Callable[[Tensor], Tensor]] = {
    "mean": lambda weights: weights.mean(dim=1),
    "max": lambda weights: weights.amax(dim=1),
    "min": lambda weights: weights.amin(dim=1),
}


def attention_rollout(
    model: nn.Module,
    images: Tensor,
    *,
    head_fusion: HeadFusion = "mean",
    discard: float = 0.0,
    token: OutputToken = "mean",
) -> Tensor:
    """The share of each patch in the output token that the head reads, float32 [B, h, w].

    Shares are at least 0; the remainder to 1 is the share of the class and distillation tokens themselves.

    Args:
        model: a ViT or DeiT of this package, in evaluation mode.
        images: normalised, [B, C, H, W].
        head_fusion: how the heads of a layer are combined; the paper takes the mean. This and `discard` are as in
            Gildenblat's vit-explain (2020).
        discard: fraction of a token's attention weights, the smallest in a layer, that is set to zero; in [0, 1).
        token: the output token that the head reads; "mean" is the mean of the class and distillation tokens.
    Raises:
        InputError: the model is not such a transformer, has no distillation token, or an argument is out of range.
    """
    transformer = _transformer(model)
    if token not in get_args(OutputToken):
        raise InputError(f"attention rollout: token must be mean, class or distillation, not {token!r}")
    if token == "distillation" and transformer.prefix_tokens < 2:
        raise InputError("attention rollout: this model has no distillation token; use the class token")
    prefix = transformer.prefix_tokens
    shares = token_shares(transformer, images, head_fusion=head_fusion, discard=discard)[:, :prefix, prefix:]
    row = shares.mean(dim=1) if token == "mean" else shares[:, 0 if token == "class" else 1]
    return row.unflatten(1, (transformer.grid_size, transformer.grid_size))


@torch.no_grad()
def token_shares(
    model: VisionTransformer, images: Tensor, *, head_fusion: HeadFusion = "mean", discard: float = 0.0
) -> Tensor:
    """The share of each input token (columns) in each output token (rows), [B, N, N]; rows sum to 1."""
    x = model.embed(images)
    shares = torch.eye(x.shape[1], device=x.device).expand(x.shape[0], -1, -1)
    for block in model.blocks:
        assert isinstance(block, Block)
        weights = block.attn.attention_weights(block.norm1(x)).float()
        shares = layer_shares(weights, head_fusion=head_fusion, discard=discard) @ shares
        x = block(x)
    return shares


def layer_shares(weights: Tensor, *, head_fusion: HeadFusion = "mean", discard: float = 0.0) -> Tensor:
    """The mixing of tokens by one layer with its residual connection, [B, N, N]; rows sum to 1.

    Args:
        weights: attention weights, [B, heads, N, N].
    """
    if head_fusion not in get_args(HeadFusion):
        raise InputError(f"attention rollout: head_fusion must be mean, max or min, not {head_fusion!r}")
    if not 0 <= discard < 1:
        raise InputError(f"attention rollout: discard must be in [0, 1), not {discard}")
    fused = _FUSIONS[head_fusion](weights)
    dropped = int(discard * fused.shape[-1])
    if dropped:
        smallest = fused.topk(dropped, dim=-1, largest=False).indices
        fused = fused.scatter(-1, smallest, 0.0)
    mixed = 0.5 * fused + 0.5 * torch.eye(fused.shape[-1], device=fused.device)
    return mixed / mixed.sum(dim=-1, keepdim=True)


# The model itself, checked to be a ViT in evaluation mode.
def _transformer(model: nn.Module) -> VisionTransformer:
    if not isinstance(model, VisionTransformer):
        raise InputError(
            f"attention rollout: needs a ViT or DeiT, and {type(model).__name__} is neither;"
            " use Grad-CAM for a convolutional net"
        )
    if model.training:
        raise InputError("attention rollout: the model is in training mode, which changes its outputs; call eval()")
    return model
