"""Renames the parameters of a released CLIP to our names.

open_clip uses OpenAI's names; its custom models have the text backbone under `text.`.
An unknown name is not changed, so that loading reports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Properties of the model in OpenAI's files that are not weights, and a mask that is computed when needed.
_NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "attn_mask"}

_TEXT_MODULES = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")

_BLOCK = {
    "ln_1": "norm1",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj": "attn.proj",
    "ln_2": "norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_VIT = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1": "patch_embed.proj",
    "ln_pre": "norm_pre",
    "ln_post": "norm",
}
_RESNET = {
    "attnpool.positional_embedding": "attn_pool.pos_embed",
    "attnpool": "attn_pool",
}
_DOWNSAMPLE = {"0": "conv", "1": "norm"}


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an OpenAI or open_clip CLIP over a ViT or a ResNet, with the names and shapes of our CLIP.

    Args:
        state: its state dict; the tensors are not copied.
    """
    is_resnet = any(key.startswith("visual.attnpool.") for key in state)
    ours: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.rpartition(".")[2] in _NOT_WEIGHTS:
            continue
        prefix, _, name = key.partition(".")
        if prefix == "visual":
            name, tensor = (_resnet if is_resnet else _vit)(name, tensor)
        elif prefix == "text":
            name, tensor = _text(name, tensor)
        elif prefix in _TEXT_MODULES:
            name, tensor = _text(key, tensor)
        else:  # logit_scale
            name = key
        ours[name] = tensor
    return ours


def _vit(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if name == "proj":  # their code multiplies from the right
        return "image_projection.weight", tensor.T
    if name == "class_embedding":
        tensor = tensor[None, None]
    elif name == "positional_embedding":
        tensor = tensor[None]
    return f"image.{_block(name) or _replace_prefix(name, _VIT)}", tensor


def _resnet(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if name.startswith("attnpool.c_proj."):
        return name.replace("attnpool.c_proj", "image_projection"), tensor
    if name == "attnpool.positional_embedding":
        tensor = tensor[None]
    name = re.sub(r"\.downsample\.([01])\.", lambda match: f".downsample.{_DOWNSAMPLE[match[1]]}.", name)
    return f"image.{_replace_prefix(name, _RESNET)}", tensor


def _text(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if name == "text_projection":  # their code multiplies from the right
        return "text.text_projection.weight", tensor.T
    return f"text.{_block(name) or name}", tensor


def _block(name: str) -> str | None:
    """The name of a parameter of a Transformer block; None if it is in no block."""
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
    return f"blocks.{match[1]}.{_replace_prefix(match[2], _BLOCK)}" if match else None


def _replace_prefix(name: str, table: Mapping[str, str]) -> str:
    """`name` with the first matching prefix of `table` replaced; else unchanged."""
    for theirs, ours in table.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
