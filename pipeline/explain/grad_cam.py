"""Grad-CAM: where in the last map of a convolutional net the evidence for a class lies.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", section 3,
equations 1 and 2: a channel of the map weighs as much as the class's logit grows with it, on average over the map;
the map is the weighted sum of the channels, and what speaks against the class is left out.

The net is cut in two at its map, `forward_map` and `forward_head`; only the head is differentiated, nothing is hooked.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.explain.patch_text import KeepsMap


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """The evidence for a class at each place of the last map, float32 [B, h, w]; never negative.

    Its unit is the logit's, so that maps of one model compare; a map of zeros has no evidence for the class.

    Args:
        model: a convolutional net with a head, in evaluation.
        images: normalised, [B, C, H, W].
        classes: int64 [B]: the class that each image is asked about.
    Raises:
        InputError: the model keeps no map, or gives something else than logits that have these classes.
    """
    if not isinstance(model, KeepsMap):
        raise InputError(f"grad-cam: needs the last map of a convolutional net, and {type(model).__name__} keeps none")
    if model.training:
        raise InputError("grad-cam: the model is in training, where it answers differently; call eval()")
    with torch.no_grad():
        feature_map = model.forward_map(images)
    feature_map = feature_map.detach().requires_grad_()
    with torch.enable_grad():
        logits = model.forward_head(feature_map)
        if logits.ndim != 2 or not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
            asked = sorted(set(classes.tolist()))
            raise InputError(f"grad-cam: the model gives {tuple(logits.shape[1:])} logits; asked for classes {asked}")
        # Each logit depends on its own image alone, so one backward pass serves the batch.
        score = logits.gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, feature_map)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * feature_map.detach()).sum(dim=1).relu().float()
