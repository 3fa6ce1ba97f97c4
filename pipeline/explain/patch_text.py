"""Patch-text similarity: the cosine of each patch of an image with a text, in the embedding space of a CLIP.

CLIP is trained on whole images; a patch gets a vector of its own as in Zhou, Loy & Dai 2022, "Extract Free Dense Labels
from CLIP" (MaskCLIP): the last attention, which pools the image, is left out; its value projection and all later
layers are applied. By image backbone:

- ViT: in the last block each token attends to itself only (`positions="values"`). `positions="tokens"` runs the block
  unchanged; but training reads the class token only, so the patch tokens after that block were never trained.
  Measured with a ViT of 3 blocks, trained for 500 steps on images of two objects (of 24 kinds) whose captions name
  one, two seeds: the patch most similar to the caption is in the quarter of the image with the named object in 64%
  and 51% of images; with "tokens" in 29% and 30%.
- CLIP's ResNet: the values of the attention pooling, projected. MaskCLIP leaves out their position embedding; here it
  is added, so that the mean of these vectors, head by head, is exactly the image's vector.
- Another convolutional net: for each position of the feature map, the net's output for a map that repeats this position
  everywhere. For a net that ends in global average pooling this output is the position's own features, and the mean
  over the positions is the image's vector.
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
class HasFeatureMap(Protocol):
    """A convolutional net in two halves: images to its last feature map, and the map to its output."""

    def forward_map(self, x: Tensor) -> Tensor: ...

    def forward_head(self, feature_map: Tensor) -> Tensor: ...


@torch.no_grad()
def patch_text_similarity(
    model: nn.Module, images: Tensor, tokens: Tensor, *, positions: Positions = "values"
) -> Tensor:
    """Cosines of each patch of each image with each text, [B, T, h, w].

    Args:
        model: a CLIP of this package, in evaluation mode.
        images: normalised, [B, C, H, W].
        tokens: the token ids of the texts, int64 [T, L].
        positions: which vectors of a ViT represent its patches; other backbones have only one kind.
    Raises:
        InputError: the model is not a CLIP, or its image backbone has no feature map.
    """
    if not isinstance(model, CLIP):
        raise InputError(f"patch-text similarity: needs a dual encoder, and {type(model).__name__} is not one")
    if model.training:
        raise InputError("patch-text similarity: the model is in training mode, which changes its outputs; call eval()")
    if positions not in get_args(Positions):
        raise InputError(f"patch-text similarity: positions must be values or tokens, not {positions!r}")
    patches = F.normalize(model.image_projection(_features(model.image, images, positions)), dim=-1)
    return torch.einsum("bhwe,te->bthw", patches, model.encode_text(tokens))


def _features(backbone: nn.Module, images: Tensor, positions: Positions) -> Tensor:
    """The inputs of the image projection for each patch, [B, h, w, D]."""
    if isinstance(backbone, VisionTransformer):
        all_tokens = backbone.tokens(images) if positions == "tokens" else _last_values(backbone, images)
        return all_tokens[:, backbone.prefix_tokens :].unflatten(1, (backbone.grid_size, backbone.grid_size))
    if isinstance(backbone, CLIPResNet):
        feature_map = backbone.forward_map(images)
        return backbone.attn_pool.values(feature_map).unflatten(1, feature_map.shape[-2:])
    if isinstance(backbone, HasFeatureMap):
        feature_map = backbone.forward_map(images)
        height, width = feature_map.shape[-2:]
        columns = [
            backbone.forward_head(feature_map[:, :, y : y + 1, x : x + 1].expand(-1, -1, height, width))
            for y in range(height)
            for x in range(width)
        ]
        return torch.stack(columns, dim=1).unflatten(1, (height, width))
    raise InputError(f"patch-text similarity: the image backbone {type(backbone).__name__} has no feature map")


def _last_values(backbone: VisionTransformer, images: Tensor) -> Tensor:
    """All tokens after the last norm if each attended to itself alone in the last block, [B, N, D]."""
    x: Tensor = backbone.blocks[:-1](backbone.embed(images))
    last = backbone.blocks[-1]
    assert isinstance(last, Block)
    x = x + last.attn.values(last.norm1(x))
    x = x + last.mlp(last.norm2(x))
    normed: Tensor = backbone.norm(x)
    return normed
