"""Renames timm's parameters that differ from ours: EfficientNet, RegNet, VGG, CLIP's ResNet.

The parameters of its ViT, DeiT, ResNet, ResNeXt, DenseNet and SENet have the same names as ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

# The role of each module of an EfficientNet block, by its name in timm; it depends on the block's modules.
_INVERTED = {"conv_pw": "expand", "bn1": "expand", "conv_dw": "depthwise", "bn2": "depthwise", "se": "gate",
             "conv_pwl": "project", "bn3": "project"}  # fmt: skip
_SEPARABLE = {"conv_dw": "depthwise", "bn1": "depthwise", "se": "gate", "conv_pw": "project", "bn2": "project"}
_FUSED = {"conv_exp": "expand", "bn1": "expand", "se": "gate", "conv_pwl": "project", "bn2": "project"}
_PLAIN = {"conv": "expand", "bn1": "expand"}

_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.([a-z_0-9]+)\.(.+)")

_LITE_STEM = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
_LITE_CONV = {"expand": "_expand_conv", "depthwise": "_depthwise_conv", "project": "_project_conv"}
_LITE_NORM = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}

_REGNET_BLOCK = re.compile(r"s(\d)\.b(\d+)\.(conv[123]|se|downsample)\.(.+)")
_REGNET_MODULE = {"conv1": "f.a", "conv2": "f.b", "conv3": "f.c", "se": "f.se", "downsample": "proj"}
_CONV_OR_NORM = {"conv": "0", "bn": "1"}

_CLIP_BLOCK = re.compile(r"stages\.(\d)\.(\d+)\.(conv\d_\w+|shortcut)\.(.+)")
_CLIP_HEAD = {"q": "attn_pool.q_proj", "k": "attn_pool.k_proj", "v": "attn_pool.v_proj", "proj": "fc",
              "pos_embed": "attn_pool.pos_embed"}  # fmt: skip


def is_timm_efficientnet(state: Mapping[str, Tensor]) -> bool:
    return "conv_stem.weight" in state and "conv_head.weight" in state


def from_timm_efficientnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's EfficientNet, B0 to B7 and V2, with torchvision's names."""
    last = 2 + max(stage for _, stage, *_ in _blocks(state))
    names = {
        "conv_stem": "features.0.0",
        "bn1": "features.0.1",
        "conv_head": f"features.{last}.0",
        "bn2": f"features.{last}.1",
        "classifier": "classifier.1",
    }
    ours = _rename_outside_blocks(state, names)
    for name, stage, block, module, leaf, roles in _blocks(state):
        # torchvision numbers the steps of a block: a convolution and its norm are one, and the gate is one.
        step = list(dict.fromkeys(roles.values())).index(roles[module])
        module_name = f"features.{stage + 1}.{block}.block.{step}"
        if module == "se":
            leaf = leaf.replace("conv_reduce", "fc1").replace("conv_expand", "fc2")
            ours[f"{module_name}.{leaf}"] = state[name]
        else:
            ours[f"{module_name}.{'1' if module.startswith('bn') else '0'}.{leaf}"] = state[name]
    return ours


def from_timm_efficientnet_lite(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's EfficientNet-Lite with our names, in which blocks are numbered consecutively across stages."""
    ours = _rename_outside_blocks(state, _LITE_STEM)
    numbers = {block: number for number, block in enumerate(sorted({(s, b) for _, s, b, *_ in _blocks(state)}))}
    for name, stage, block, module, leaf, roles in _blocks(state):
        part = (_LITE_NORM if module.startswith("bn") else _LITE_CONV)[roles[module]]
        ours[f"_blocks.{numbers[stage, block]}.{part}.{leaf}"] = state[name]
    return ours


def is_timm_regnet(state: Mapping[str, Tensor]) -> bool:
    return any(_REGNET_BLOCK.fullmatch(name) for name in state)


def from_timm_regnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's RegNet with torchvision's names."""
    ours = {}
    for name, tensor in state.items():
        match = _REGNET_BLOCK.fullmatch(name)
        if match:
            stage, block, part, leaf = match.groups()
            name = f"trunk_output.block{stage}.block{stage}-{int(block) - 1}.{_REGNET_MODULE[part]}.{_numbered(leaf)}"
        elif name.startswith("stem."):
            name = f"stem.{_numbered(name.removeprefix('stem.'))}"
        else:
            name = name.replace("head.fc.", "fc.")
        ours[name] = tensor
    return ours


def is_timm_vgg(state: Mapping[str, Tensor]) -> bool:
    return "pre_logits.fc1.weight" in state


def from_timm_vgg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's VGG with torchvision's names: timm's dense layers are convolutions over the whole map."""
    names = {"pre_logits.fc1.": "classifier.0.", "pre_logits.fc2.": "classifier.3.", "head.fc.": "classifier.6."}
    ours = {}
    for name, tensor in state.items():
        for theirs, new_name in names.items():
            if name.startswith(theirs):
                name, tensor = name.replace(theirs, new_name), tensor.flatten(1) if tensor.dim() == 4 else tensor
        ours[name] = tensor
    return ours


def is_timm_clip_resnet(state: Mapping[str, Tensor]) -> bool:
    return "stem.conv3.conv.weight" in state and "head.q.weight" in state


def from_timm_clip_resnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's version of CLIP's ResNet with our names."""
    ours = {}
    for name, tensor in state.items():
        match = _CLIP_BLOCK.fullmatch(name)
        if match:
            stage, block, part, leaf = match.groups()
            if part == "shortcut":
                kind, _, leaf = leaf.removeprefix("conv.").partition(".")
                module_name = {"conv": "downsample.conv", "bn": "downsample.norm"}.get(kind, kind)
            else:
                kind, _, leaf = leaf.partition(".")
                module_name = f"{kind}{part[len('conv')]}"  # conv1_1x1.bn is our bn1
            name = f"layer{int(stage) + 1}.{block}.{module_name}.{leaf}"
        elif name.startswith("stem."):
            _, number, kind, leaf = name.split(".", 3)
            name = f"{kind}{number.removeprefix('conv')}.{leaf}"
        elif name.startswith("head."):
            part, _, leaf = name.removeprefix("head.").partition(".")
            name = ".".join(filter(None, (_CLIP_HEAD.get(part, f"head.{part}"), leaf)))
            tensor = tensor[None] if part == "pos_embed" and tensor.dim() == 2 else tensor
        ours[name] = tensor
    return ours


def _rename_outside_blocks(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors that are in no block, renamed."""
    ours = {}
    for name, tensor in state.items():
        if not _BLOCK.fullmatch(name):
            module, _, leaf = name.partition(".")
            ours[f"{names.get(module, module)}.{leaf}"] = tensor
    return ours


def _blocks(state: Mapping[str, Tensor]) -> Iterator[tuple[str, int, int, str, str, dict[str, str]]]:
    """Name, stage, block, module, the rest of the name, and the roles of the block's modules, in order."""
    matches = [(name, match.groups()) for name in state if (match := _BLOCK.fullmatch(name))]
    modules: dict[tuple[str, str], set[str]] = {}
    for _, (stage, block, module, _) in matches:
        modules.setdefault((stage, block), set()).add(module)
    for name, (stage, block, module, leaf) in matches:
        present = modules[stage, block]
        roles = next(
            layout
            for layout, distinctive_module in (
                (_FUSED, "conv_exp"),
                (_INVERTED, "conv_pwl"),
                (_SEPARABLE, "conv_dw"),
                (_PLAIN, ""),
            )
            if not distinctive_module or distinctive_module in present
        )
        yield name, int(stage), int(block), module, leaf, {key: role for key, role in roles.items() if key in present}


def _numbered(leaf: str) -> str:
    """Renames conv.weight to 0.weight and bn.weight to 1.weight; other names do not change."""
    kind, dot, rest = leaf.partition(".")
    return f"{_CONV_OR_NORM.get(kind, kind)}{dot}{rest}"
