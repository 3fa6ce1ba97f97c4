"""Occlusion: the fall of a class's log-probability when a region of the image is covered.

Zeiler & Fergus 2013, "Visualizing and Understanding Convolutional Networks", section 4.2 and figure 7. It needs only
the outputs of a classifier and works at any resolution, at one forward pass per position; so it fits nets without a
feature map, and nets for small images, with a last map of only 2 x 2.

The paper covers with grey; here the cover is the mean colour of the normalisation. The value at a pixel is the mean
over all covers on it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.errors import InputError

_PIXELS_AT_ONCE = 2**20  # of covered images in one forward pass: 256 images of 64 x 64, 20 of 224 x 224


@torch.no_grad()
def occlusion(
    model: nn.Module, images: Tensor, classes: Tensor, *, cover: int | None = None, stride: int | None = None
) -> Tensor:
    """The mean fall of the class's log-probability over all covers that hide a position; negative for a rise.

    Args:
        model: a classifier in evaluation mode.
        images: normalised, [B, C, H, W].
        classes: int64 [B]: the class to explain in each image.
        cover: side of the covering square in pixels; None is a quarter of the image's side.
        stride: pixels from one cover to the next, and from one position of the result to the next; None is half of the
            cover.
    Returns:
        float32 [B, H / stride, W / stride], sizes rounded up.
    Raises:
        InputError: the model has no such class or is in training mode, or the cover is larger than the image.
    """
    if model.training:
        raise InputError("occlusion: the model is in training mode, which changes its outputs; call eval()")
    height, width = images.shape[-2:]
    cover = cover or max(1, min(height, width) // 4)
    stride = stride or max(1, cover // 2)
    if cover > min(height, width):
        raise InputError(f"occlusion: a cover of {cover} pixels is larger than the image of {height} x {width}")
    uncovered = _log_probability(model, images, classes)
    covers = _covers(height, width, cover, stride).to(images.device)
    # The sum of the falls at each pixel.
    drops = torch.zeros(len(images), height, width, device=images.device)
    at_once = max(1, _PIXELS_AT_ONCE // (len(images) * height * width))
    for masks in covers.split(at_once):
        covered = images[None] * ~masks[:, None, None]  # [P, B, C, H, W]; 0 is the mean colour
        score = _log_probability(model, covered.flatten(0, 1), classes.repeat(len(masks))).view(len(masks), -1)
        drops += torch.einsum("pb,phw->bhw", uncovered - score, masks.float())
    return adaptive_avg_pool2d(drops / covers.sum(dim=0), (-(-height // stride), -(-width // stride)))


def _covers(height: int, width: int, cover: int, stride: int) -> Tensor:
    """Masks of all covers, bool [P, H, W]; covers extend beyond the edges, so that corners are covered as often."""
    tops = range(stride - cover, height, stride)
    lefts = range(stride - cover, width, stride)
    masks = torch.zeros(len(tops) * len(lefts), height, width, dtype=torch.bool)
    for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        masks[number, max(0, top) : top + cover, max(0, left) : left + cover] = True
    return masks


def _log_probability(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    logits = model(images)
    if logits.ndim != 2 or not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
        requested = sorted(set(classes.tolist()))
        raise InputError(f"occlusion: the model gives {tuple(logits.shape[1:])} logits; asked for classes {requested}")
    scores: Tensor = logits.float().log_softmax(dim=1)
    return scores.gather(1, classes[:, None]).squeeze(1)
