"""Occlusion: how much of the answer is lost when a place of the image is covered.

Zeiler & Fergus 2013, "Visualizing and Understanding Convolutional Networks", section 4.2 and figure 7. It asks any
classifier by its answers alone, at any resolution, for one forward pass a place; so it serves nets that keep
no map, and nets for small images, whose last map of 2 x 2 places tells nothing.

The paper covers with grey; here the cover is the mean colour that images are normalised by, which is the same idea.
A place is worth the mean over the covers that lie on it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.errors import InputError

_PIXELS_AT_ONCE = 2**20  # of covered images in one forward pass: 256 of 64 pixels, 20 of 224


@torch.no_grad()
def occlusion(
    model: nn.Module, images: Tensor, classes: Tensor, *, cover: int | None = None, stride: int | None = None
) -> Tensor:
    """What each place is worth to the class: the mean fall of its log-probability, negative for a rise.

    Args:
        model: a classifier in evaluation.
        images: normalised, [B, C, H, W].
        classes: int64 [B]: the class that each image is asked about.
        cover: side of the covering square in pixels; None is a quarter of the image's.
        stride: pixels from one cover to the next, and of a place of the result; None is half of the cover.
    Returns:
        float32 [B, H / stride, W / stride], rounded up.
    Raises:
        InputError: the model has no such class or is in training, or the cover is larger than the image.
    """
    if model.training:
        raise InputError("occlusion: the model is in training, where it answers differently; call eval()")
    height, width = images.shape[-2:]
    cover = cover or max(1, min(height, width) // 4)
    stride = stride or max(1, cover // 2)
    if cover > min(height, width):
        raise InputError(f"occlusion: a cover of {cover} pixels is larger than the image of {height} x {width}")
    whole = _log_probability(model, images, classes)
    covers = _covers(height, width, cover, stride).to(images.device)
    loss = torch.zeros(len(images), height, width, device=images.device)
    at_once = max(1, _PIXELS_AT_ONCE // (len(images) * height * width))
    for some in covers.split(at_once):
        covered = images[None] * ~some[:, None, None]  # [places, B, C, H, W]; 0 is the mean colour
        score = _log_probability(model, covered.flatten(0, 1), classes.repeat(len(some))).view(len(some), -1)
        loss += torch.einsum("pb,phw->bhw", whole - score, some.float())
    return adaptive_avg_pool2d(loss / covers.sum(dim=0), (-(-height // stride), -(-width // stride)))


def _covers(height: int, width: int, cover: int, stride: int) -> Tensor:
    """Masks of all places, bool [P, H, W]; those at the edges hang over it, so that a corner is covered as often."""
    tops = range(stride - cover, height, stride)
    lefts = range(stride - cover, width, stride)
    masks = torch.zeros(len(tops) * len(lefts), height, width, dtype=torch.bool)
    for place, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        masks[place, max(0, top) : top + cover, max(0, left) : left + cover] = True
    return masks


def _log_probability(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    logits = model(images)
    if logits.ndim != 2 or not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
        asked = sorted(set(classes.tolist()))
        raise InputError(f"occlusion: the model gives {tuple(logits.shape[1:])} logits; asked for classes {asked}")
    scores: Tensor = logits.float().log_softmax(dim=1)
    return scores.gather(1, classes[:, None]).squeeze(1)
