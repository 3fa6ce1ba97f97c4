"""A source's head, position embedding and first convolution brought to the shapes of a model, each with a reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from model_defs.errors import ModelError

_PREFIXES = range(6)  # tokens before a grid of patches: class token, distillation token, registers


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """A position embedding [1, P + n n, D] for `grid` patches along a side; the P tokens before them stay.

    Bicubic without aligned corners and without antialiasing, as in DeiT's code.
    """
    prefix = prefix_of(positions.shape[1])
    kept, patches = positions[:, :prefix].float(), positions[:, prefix:].float()
    side = math.isqrt(patches.shape[1])
    patches = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([kept, patches.flatten(2).transpose(1, 2)], dim=1)


def prefix_of(tokens: int) -> int:
    """How many of so many tokens stand before a square grid; with one or two there is never a second answer.

    Raises:
        ModelError: they are no square grid and a few before it.
    """
    for prefix in _PREFIXES:
        patches = tokens - prefix
        if patches > 0 and math.isqrt(patches) ** 2 == patches:
            return prefix
    raise ModelError(f"{tokens} positions are not those of a square grid of patches")


def fit_channels(weight: Tensor, in_chans: int) -> Tensor:
    """A first convolution [O, I, h, w] for another number of channels, so that its answers keep their size.

    For one channel the filters are summed: grey is then what it was as equal channels. Otherwise they are repeated
    and scaled by the channels that were over those that are (timm's rule).
    """
    weight = weight.float()
    before = weight.shape[1]
    if in_chans == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-in_chans // before), 1, 1)[:, :in_chans]
    return repeated * (before / in_chans)


@dataclass
class Fitted:
    """What a model loads, and what was done to it or left out, name -> reason.

    Attributes:
        state: by the model's names, in its shapes.
        unexplained: what cannot be right, one line each.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)


def fit(
    wanted: dict[str, Tensor], found: dict[str, Tensor], classifiers: tuple[str, ...], first_convolution: str
) -> Fitted:
    """Brings the tensors of a source to a model.

    Args:
        wanted: the model's, of which only names and shapes matter.
        found: the source's, by the model's names.
        classifiers: the model's heads, whether it has them or (for num_classes=0) not.
        first_convolution: the one that sees the pixels.
    """
    out = Fitted()
    found = with_distillation_token(wanted, found, out)
    for name, target in wanted.items():
        if name in found:
            _place(name, found[name], target, classifiers, first_convolution, out)
        else:
            reason = _why_missing(name, classifiers, found)
            if reason is None:
                out.unexplained.append(f"{name} {_shape(target)} of the model is not in the weights")
            else:
                out.missing[name] = reason
    for name, tensor in found.items():
        if name not in wanted:
            reason = _why_dropped(name, classifiers, wanted)
            if reason is None:
                out.unexplained.append(f"{name} {_shape(tensor)} of the weights is not in the model")
            else:
                out.dropped[name] = reason
    return out


def with_distillation_token(wanted: dict[str, Tensor], found: dict[str, Tensor], out: Fitted) -> dict[str, Tensor]:
    """The source with as many prefix tokens as the model: ViT into distilled DeiT, and the other way.

    A distillation token that is missing starts where the class token is; its head likewise.
    """
    here, there = "dist_token" in wanted, "dist_token" in found
    if here == there or "cls_token" not in found or "pos_embed" not in found:
        return found
    found = dict(found)
    positions = found["pos_embed"]
    if here:
        found["dist_token"] = found["cls_token"].clone()
        out.adapted["dist_token"] = "the weights have no distillation token; it starts as the class token"
        if prefix_of(positions.shape[1]) == 1:
            found["pos_embed"] = torch.cat([positions[:, :1], positions], dim=1)
            out.adapted["pos_embed"] = "the distillation token starts with the class token's position"
        for leaf in ("weight", "bias"):
            if f"head.{leaf}" in found and f"head_dist.{leaf}" in wanted:
                found[f"head_dist.{leaf}"] = found[f"head.{leaf}"].clone()
                out.adapted[f"head_dist.{leaf}"] = "the weights have one head; the distillation head starts as it"
    elif prefix_of(positions.shape[1]) == 2:
        found["pos_embed"] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
        out.adapted["pos_embed"] = "without the distillation token's position, which this model has not"
    return found


def _place(
    name: str, tensor: Tensor, target: Tensor, classifiers: tuple[str, ...], first_convolution: str, out: Fitted
) -> None:
    """Puts one tensor into `out`, in the model's shape if there is a rule for that."""
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
    elif owner == first_convolution and leaf == "weight" and _but_channels(tensor, target):
        out.state[name] = fit_channels(tensor, target.shape[1])
        how = "summed to 1" if target.shape[1] == 1 else f"repeated to {target.shape[1]} and scaled"
        out.adapted[name] = f"{tensor.shape[1]} channels {how}"
    elif leaf == "pos_embed" and (resampled := _resampled(tensor, target)) is not None:
        out.state[name] = resampled
        earlier = f"{out.adapted[name]}; " if name in out.adapted else ""
        before, after = (math.isqrt(one.shape[1] - prefix_of(one.shape[1])) for one in (tensor, target))
        out.adapted[name] = f"{earlier}positions resampled from {before} x {before} to {after} x {after} patches"
    elif leaf == "positional_embedding" and tensor.shape[0] > target.shape[0] and tensor.shape[1:] == target.shape[1:]:
        out.state[name] = tensor[: target.shape[0]]
        out.adapted[name] = f"the first {target.shape[0]} of {tensor.shape[0]} positions"
    else:
        out.unexplained.append(f"{name} is {_shape(tensor)} in the weights, {_shape(target)} in the model")


def _why_missing(name: str, classifiers: tuple[str, ...], found: dict[str, Tensor]) -> str | None:
    owner, _, leaf = name.rpartition(".")
    if _is_auxiliary(name) and not any(map(_is_auxiliary, found)):
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
    """Of torchvision's and our GoogLeNet (aux1, aux2) and Inception v3 (AuxLogits)."""
    return name.removeprefix("net.").lower().startswith("aux")


def _but_channels(tensor: Tensor, target: Tensor) -> bool:
    return tensor.dim() == target.dim() == 4 and (*tensor.shape[:1], *tensor.shape[2:]) == (
        *target.shape[:1],
        *target.shape[2:],
    )


def _resampled(tensor: Tensor, target: Tensor) -> Tensor | None:
    """The positions for the model's grid, if they have its width and its prefix."""
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
