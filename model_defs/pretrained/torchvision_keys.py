"""Renames torchvision's parameters that differ from ours: its ViT, and DenseNet's weights of 2017."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_VIT = {
    "class_token": "cls_token",
    "conv_proj": "patch_embed.proj",
    "encoder.pos_embedding": "pos_embed",
    "encoder.ln": "norm",
    "heads.head": "head",
}
_VIT_BLOCK = {
    "ln_1": "norm1",
    "self_attention.in_proj_": "attn.qkv.",
    "self_attention.out_proj": "attn.proj",
    "ln_2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
    "mlp.linear_1": "mlp.fc1",  # names before torchvision 0.13
    "mlp.linear_2": "mlp.fc2",
}
_LAYER = re.compile(r"encoder\.layers\.encoder_layer_(\d+)\.(.+)")
_OLD_DENSE_LAYER = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)")


def is_torchvision_vit(state: Mapping[str, Tensor]) -> bool:
    return "conv_proj.weight" in state and "encoder.pos_embedding" in state


def from_torchvision_vit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torchvision's VisionTransformer with our names."""
    return {_vit_name(name): tensor for name, tensor in state.items()}


def is_old_densenet(state: Mapping[str, Tensor]) -> bool:
    return any(_OLD_DENSE_LAYER.fullmatch(name) for name in state)


def from_old_densenet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames norm.1 of the released files to norm1 of the model, since module names may no longer contain dots."""
    return {_OLD_DENSE_LAYER.sub(r"\1\2", name): tensor for name, tensor in state.items()}


def _vit_name(name: str) -> str:
    match = _LAYER.fullmatch(name)
    return f"blocks.{match[1]}.{replace_prefix(match[2], _VIT_BLOCK)}" if match else replace_prefix(name, _VIT)


def replace_prefix(name: str, table: Mapping[str, str]) -> str:
    """`name` with the first matching prefix of `table` replaced; else unchanged, so that loading reports it."""
    for theirs, ours in table.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
