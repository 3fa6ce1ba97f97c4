"""Adapts a source's head, position embedding and first convolution to a model's shapes, each with a reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from model_defs.errors import ModelError

_PREFIXES = range(6)  # tokens before a grid of patches: class token, distillation token, registers


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """Resamples a position embedding [1, P + n n, D] to `grid` patches per side; the P prefix tokens do not change.

    Bicubic without aligned corners and without antialiasing, as in DeiT's code.
    """
    prefix = prefix_of(positions.shape[1])
    prefix_tokens, patches = positions[:, :prefix].float(), positions[:, prefix:].float()
    side = math.isqrt(patches.shape[1])
    patches = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([prefix_tokens, patches.flatten(2).transpose(1, 2)], dim=1)


def prefix_of(tokens: int) -> int:
    """The number of prefix tokens before a square grid in `tokens` tokens; 1 and 2 are unambiguous.

    Raises:
        ModelError: they are not a square grid after a few prefix tokens.
    """
    for prefix in _PREFIXES:
        patches = tokens - prefix
        if patches > 0 and math.isqrt(patches) ** 2 == patches:
            return prefix
    raise ModelError(f"{tokens} positions are not those of a square grid of patches")


def fit_channels(weight: Tensor, in_chans: int) -> Tensor:
    """Adapts a first convolution [O, I, h, w] to another number of channels and preserves the scale of its output.

    For one channel the filters are summed, as if the grey value were in all channels. Otherwise they are repeated
    and scaled by the old number of channels over the new one (timm's rule).
    """
    weight = weight.float()
    before = weight.shape[1]
    if in_chans == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-in_chans // before), 1, 1)[:, :in_chans]
    return repeated * (before / in_chans)


@dataclass
class FittedState:
    """The tensors that a model loads, and the ones that were adapted or left out.

    Attributes:
        state: tensors with the model's names and shapes.
        adapted, replaced, missing, dropped: name -> reason; see `LoadingReport` for the four cases.
        unexplained: mismatches without a valid reason, one line each.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)


def fit(
    wanted: dict[str, Tensor], source: dict[str, Tensor], classifiers: tuple[str, ...], first_convolution: str
) -> FittedState:
    """Adapts the tensors of a source to a model.

    Args:
        wanted: the model's tensors, of which only names and shapes are used.
        source: the source's tensors, with the model's names.
        classifiers: names of the model's heads, even if it has none (num_classes=0).
        first_convolution: name of the convolution on the pixels.
    """
    out = FittedState()
    source = with_distillation_token(wanted, source, out)
    for name, target in wanted.items():
        if name in source:
            _add_tensor(name, source[name], target, classifiers, first_convolution, out)
        else:
            reason = _why_missing(name, classifiers, source)
            if reason is None:
                out.unexplained.append(f"{name} {_shape(target)} of the model is not in the weights")
            else:
                out.missing[name] = reason
    for name, tensor in source.items():
        if name not in wanted:
            reason = _why_dropped(name, classifiers, wanted)
            if reason is None:
                out.unexplained.append(f"{name} {_shape(tensor)} of the weights is not in the model")
            else:
                out.dropped[name] = reason
    return out


def with_distillation_token(
    wanted: dict[str, Tensor], source: dict[str, Tensor], out: FittedState
) -> dict[str, Tensor]:
    """The source with as many prefix tokens as the model: ViT into distilled DeiT, and vice versa.

    A missing distillation token is initialised from the class token, and its head from the class head; `out.adapted`
    gets the reasons.
    """
    model_has, source_has = "dist_token" in wanted, "dist_token" in source
    if model_has == source_has or "cls_token" not in source or "pos_embed" not in source:
        return source
    source = dict(source)
    positions = source["pos_embed"]
    if model_has:
        source["dist_token"] = source["cls_token"].clone()
        out.adapted["dist_token"] = "the weights have no distillation token; it starts as the class token"
        if prefix_of(positions.shape[1]) == 1:
            source["pos_embed"] = torch.cat([positions[:, :1], positions], dim=1)
            out.adapted["pos_embed"] = "the distillation token starts with the class token's position"
        for leaf in ("weight", "bias"):
            if f"head.{leaf}" in source and f"head_dist.{leaf}" in wanted:
                source[f"head_dist.{leaf}"] = source[f"head.{leaf}"].clone()
                out.adapted[f"head_dist.{leaf}"] = "the weights have one head; the distillation head starts as it"
    elif prefix_of(positions.shape[1]) == 2:
        source["pos_embed"] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
        out.adapted["pos_embed"] = "without the distillation token's position, which this model has not"
    return source


def _add_tensor(
    name: str, tensor: Tensor, target: Tensor, classifiers: tuple[str, ...], first_convolution: str, out: FittedState
) -> None:
    """Adds one tensor to `out`, in the model's shape if a rule exists for that."""
    owner, _, leaf = name.rpartition(".")
    same = tensor.shape == target.shape
    if same:
        out.state[name] = tensor
    elif owner in classifiers:
        classes = f"{tensor.shape[0]} classes in the weights, {target.shape[0]} in the model"
        out.adapted.pop(name, None)
        out.replaced[name] = f"{classes}; the head is fresh"
    elif owner in ("text_projection", "image_projection") and tensor.dim() == target.dim():
        out.replaced[name] = (
            f"into {tensor.shape[0]} dimensions in the weights, {target.shape[0]} in the model; it is fresh"
        )
    elif owner == first_convolution and leaf == "weight" and _differs_in_channels_only(tensor, target):
        out.state[name] = fit_channels(tensor, target.shape[1])
        how = "summed to 1" if target.shape[1] == 1 else f"repeated to {target.shape[1]} and scaled"
        out.adapted[name] = f"{tensor.shape[1]} channels {how}"
    elif leaf == "pos_embed" and (resampled := _resampled(tensor, target)) is not None:
        out.state[name] = resampled
        earlier = f"{out.adapted[name]}; " if name in out.adapted else ""
        before, after = (
            math.isqrt(embedding.shape[1] - prefix_of(embedding.shape[1])) for embedding in (tensor, target)
        )
        out.adapted[name] = f"{earlier}positions resampled from {before} x {before} to {after} x {after} patches"
    elif leaf == "positional_embedding" and tensor.shape[0] > target.shape[0] and tensor.shape[1:] == target.shape[1:]:
        out.state[name] = tensor[: target.shape[0]]
        out.adapted[name] = f"the first {target.shape[0]} of {tensor.shape[0]} positions"
    else:
        out.unexplained.append(f"{name} is {_shape(tensor)} in the weights, {_shape(target)} in the model")


def _why_missing(name: str, classifiers: tuple[str, ...], source: dict[str, Tensor]) -> str | None:
    owner, _, leaf = name.rpartition(".")
    if _is_auxiliary(name) and not any(map(_is_auxiliary, source)):
        return "the weights have no auxiliary heads; they are fresh"
    if leaf == "num_batches_tracked":
        return "a counter that old files do not have"
    if owner in classifiers and not _is_auxiliary(name):
        return "the weights have no such head; it is fresh"
    if owner in ("text_projection", "image_projection"):
        return "the weights have no projection to a common space; it is fresh"
    return None


def _why_dropped(name: str, classifiers: tuple[str, ...], wanted: dict[str, Tensor]) -> str | None:
    owner, _, leaf = name.rpartition(".")
    if leaf == "num_batches_tracked" and f"{owner}.running_mean" in wanted:
        return "a counter that the model does not keep"
    if name == "dist_token" or owner == "head_dist":
        return "the model has no distillation token"
    if _is_auxiliary(name) and not any(map(_is_auxiliary, wanted)):
        return "the model has no auxiliary heads"
    if owner in classifiers:
        return "the model has no head"
    if owner == "text_projection" and f"{owner}.weight" not in wanted:
        return "the model has no projection"
    return None


def _is_auxiliary(name: str) -> bool:
    """Whether a name is in an auxiliary head of any GoogLeNet (aux1, aux2) or of Inception v3 (AuxLogits)."""
    return name.removeprefix("net.").lower().startswith("aux")


def _differs_in_channels_only(tensor: Tensor, target: Tensor) -> bool:
    return tensor.dim() == target.dim() == 4 and (*tensor.shape[:1], *tensor.shape[2:]) == (
        *target.shape[:1],
        *target.shape[2:],
    )


def _resampled(tensor: Tensor, target: Tensor) -> Tensor | None:
    """The positions resampled to the model's grid, or None if their width or prefix differs."""
    if not tensor.dim() == target.dim() == 3 or tensor.shape[2] != target.shape[2]:
        return None
    try:
        before, after = prefix_of(tensor.shape[1]), prefix_of(target.shape[1])
    except ModelError:
        return None
    if before != after:
        return None
    return resample_positions(tensor, math.isqrt(target.shape[1] - after))


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
