"""Binary cross-entropy for classifiers: each class is a question of its own, and a mixed image shows both its classes.

Wightman 2021, "ResNet strikes back", section 3. The loss of a row is the mean over the classes, as in timm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mixed_binary_cross_entropy(
    logits: Tensor,
    labels: list[Tensor],
    mixing_weights: list[float],
    smoothing: float,
    class_weights: Tensor | None = None,
    threshold: float | None = None,
) -> Tensor:
    """Binary cross-entropy in nats a class, averaged over ALL rows of the batch; rows without a label contribute 0.

    Args:
        logits: [B, K]; computed in float32.
        labels: int64 tensors [B]: those of the images and, if mixed, those of their partners; -1 means no label. A
            part without a label counts neither in the target nor in the weight of the row.
        mixing_weights: one per label tensor; they sum to 1.
        smoothing: after the threshold, fraction of the target that is spread over all classes.
        class_weights: float32 [K]; a row has the mean weight of its labels, by their part of the image.
        threshold: the target of a class is 1 if its part of the image is above, else 0; None: the part itself.
    """
    logits = logits.float()
    parts = torch.zeros_like(logits)
    row_weights = torch.zeros_like(logits[:, 0])
    for label, weight in zip(labels, mixing_weights, strict=True):
        known, column = label >= 0, label.clamp(min=0)
        part = known * weight
        parts.scatter_add_(1, column[:, None], part[:, None].to(parts.dtype))
        row_weights += part if class_weights is None else part * class_weights[column]
    # Of a half-labelled row, the labelled part is the whole.
    targets = parts / parts.sum(1, keepdim=True).clamp(min=torch.finfo(parts.dtype).tiny)
    if threshold is not None:
        targets = (targets > threshold).to(parts.dtype)
    targets = targets * (1.0 - smoothing) + smoothing / logits.shape[1]
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
    return (losses * row_weights).sum() / len(logits)
