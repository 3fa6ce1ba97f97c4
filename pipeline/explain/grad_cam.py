"""Grad-CAM: the evidence for a class at each position of a convolutional net's last feature map.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", section 3,
equations 1 and 2: the weight of a channel is the gradient of the class's logit, averaged over the map; the result is
the weighted sum of the channels, rectified so that evidence against the class is left out.

The net is split at its feature map into `forward_map` and `forward_head`; only the head is differentiated, without
hooks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.explain.patch_text import HasFeatureMap


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """The evidence for a class at each position of the last feature map, float32 [B, h, w], at least 0.

    Its unit is that of the logits, so maps of one model are comparable; a map of zeros has no evidence for the class.

    Args:
        model: a convolutional net with a head, in evaluation mode.
        images: normalised, [B, C, H, W].
        classes: int64 [B]: the class to explain in each image.
    Raises:
        InputError: the model has no feature map, or its output is not logits of these classes.
    """
    if not isinstance(model, HasFeatureMap):
        raise InputError(f"grad-cam: needs a convolutional net, and {type(model).__name__} has no feature map")
    if model.training:
        raise InputError("grad-cam: the model is in training mode, which changes its outputs; call eval()")
    with torch.no_grad():
        feature_map = model.forward_map(images)
    feature_map = feature_map.detach().requires_grad_()
    with torch.enable_grad():
        logits = model.forward_head(feature_map)
        if logits.ndim != 2 or not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
            requested = sorted(set(classes.tolist()))
            raise InputError(
                f"grad-cam: the model gives {tuple(logits.shape[1:])} logits; asked for classes {requested}"
            )
        # Each logit depends on its own image alone, so one backward pass serves the batch.
        score = logits.gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, feature_map)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * feature_map.detach()).sum(dim=1).relu().float()
