"""Forward passes without gradients, on a CPU in micro-batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# On a CPU the activations of a layer are mapped from the system, and unmapped, if they are larger than 32 MB. An image
# of 224 pixels cost EfficientNet-Lite0, on one busy core, 198 ms of CPU time in batches of 256 (with 4.2 GB of memory),
# 164 ms of 64 (1.0 GB), 140 ms of 32 (0.8 GB), 94 ms of 16 (0.4 GB) and 93 ms of 8 (0.15 GB). Its logits are the same
# in every bit for 16 to 256 images; for fewer, other matrix kernels are chosen.
_MIN_IMAGES = 16
_PIXELS = 16 * 224 * 224


def in_micro_batches(compute: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What `compute` returns for the images, [B, ...]; on a CPU it gets 16 images of 224 x 224 pixels at once.

    Args:
        compute: treats each image by itself, as a model in evaluation mode does; its result is a tensor [b, ...].
        images: [B, C, H, W]; on a GPU all are passed on at once. Of smaller images, more make a micro-batch.
    """
    at_once = max(_MIN_IMAGES, _PIXELS // (images.shape[-2] * images.shape[-1]))
    count = len(images) // at_once
    if images.device.type != "cpu" or count < 2:
        return compute(images)
    # The last micro-batch has the rest too: alone, it might have too few images.
    sizes = [at_once] * (count - 1) + [len(images) - at_once * (count - 1)]
    return torch.cat([compute(micro_batch) for micro_batch in images.split(sizes)])
