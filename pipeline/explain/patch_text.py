"""Patch-text similarity: how near each place of an image is to a text, in the common space of a CLIP.

CLIP is trained on whole images; a place gets its own vector as in Zhou, Loy & Dai 2022, "Extract Free Dense Labels
from CLIP" (MaskCLIP): the attention that gathers the image is left out, its values and all that comes after
them stay. By tower:

- ViT: in the last block each token attends to itself alone (`positions="values"`). `positions="tokens"` runs the block
  as it is; but training reads the class token alone, so what the patch tokens say after that block was never asked for.
  Measured: images with two objects of 24 kinds, a ViT of 3 blocks trained for 500 steps on captions of one of them,
  two seeds; the best place lies in the named object's quarter in 64% and 51% of images, by tokens in 29% and 30%.
- CLIP's ResNet: the values of the attention pooling, projected. MaskCLIP leaves the position embedding out of them;
  here it stays, so that these are the very vectors whose mean, head by head, is the image's.
- Another convolutional net: the features of a map that has this one place everywhere; for a net that ends in the mean
  over its map these are the map's own columns, and their mean is the image's.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.clip import CLIP
from model_defs.clip_resnet import CLIPResNet
from model_defs.layers.transformer import Block
from model_defs.vit import VisionTransformer
from pipeline.errors import InputError

Positions = Literal["values", "tokens"]


@runtime_checkable
class KeepsMap(Protocol):
    """A convolutional net in two halves: to its last map, and from it to its features."""

    def forward_map(self, x: Tensor) -> Tensor: ...

    def forward_head(self, feature_map: Tensor) -> Tensor: ...


@torch.no_grad()
def patch_text_similarity(
    model: nn.Module, images: Tensor, tokens: Tensor, *, positions: Positions = "values"
) -> Tensor:
    """Cosines of each place of each image with each text, [B, T, h, w].

    Args:
        model: a CLIP of this package, in evaluation.
        images: normalised, [B, C, H, W].
        tokens: of the texts, int64 [T, L].
        positions: which vectors of a ViT tower stand for its patches; other towers have but one kind.
    Raises:
        InputError: the model is no CLIP, or its image tower has no places.
    """
    if not isinstance(model, CLIP):
        raise InputError(f"patch-text similarity: needs a dual encoder, and {type(model).__name__} is none")
    if model.training:
        raise InputError("patch-text similarity: the model is in training, where it answers differently; call eval()")
    if positions not in get_args(Positions):
        raise InputError(f"patch-text similarity: positions must be values or tokens, not {positions!r}")
    places = F.normalize(model.image_projection(_features(model.image, images, positions)), dim=-1)
    return torch.einsum("bhwe,te->bthw", places, model.encode_text(tokens))


def _features(tower: nn.Module, images: Tensor, positions: Positions) -> Tensor:
    """What the image projection takes, for each place, [B, h, w, D]."""
    if isinstance(tower, VisionTransformer):
        all_tokens = tower.tokens(images) if positions == "tokens" else _last_values(tower, images)
        return all_tokens[:, tower.prefix_tokens :].unflatten(1, (tower.grid_size, tower.grid_size))
    if isinstance(tower, CLIPResNet):
        feature_map = tower.forward_map(images)
        return tower.attn_pool.values(feature_map).unflatten(1, feature_map.shape[-2:])
    if isinstance(tower, KeepsMap):
        feature_map = tower.forward_map(images)
        height, width = feature_map.shape[-2:]
        columns = [
            tower.forward_head(feature_map[:, :, y : y + 1, x : x + 1].expand(-1, -1, height, width))
            for y in range(height)
            for x in range(width)
        ]
        return torch.stack(columns, dim=1).unflatten(1, (height, width))
    raise InputError(f"patch-text similarity: the image tower {type(tower).__name__} keeps no map of its places")


def _last_values(tower: VisionTransformer, images: Tensor) -> Tensor:
    """All tokens after the last norm if each attended to itself alone in the last block, [B, N, D]."""
    x: Tensor = tower.blocks[:-1](tower.embed(images))
    last = tower.blocks[-1]
    assert isinstance(last, Block)
    x = x + last.attn.values(last.norm1(x))
    x = x + last.mlp(last.norm2(x))
    normed: Tensor = tower.norm(x)
    return normed
