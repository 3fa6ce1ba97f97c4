"""The classification task: cross-entropy with label smoothing, on mixed images if mixing is on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.auxiliary import AuxiliaryLogits
from pipeline.loading.batch import Batch
from pipeline.loading.pairs import partner_rows
from pipeline.preprocessing import Preprocessing
from pipeline.training.binary_cross_entropy import mixed_binary_cross_entropy
from pipeline.training.mixing import draw_mix
from pipeline.training.mixing_config import MixingConfig
from pipeline.training.rows import UNLABELLED
from pipeline.training.task import StepOutput

LabelLossKind = Literal["cross_entropy", "binary_cross_entropy"]
LabelLoss = Callable[[Tensor, list[Tensor], list[float]], Tensor]
"""Logits, label tensors and their mixing weights -> the loss."""


class Classification:
    """Predicts the label of an image; auxiliary heads are trained on it too, with their loss weight.

    Args:
        preprocessing: converts uint8 images to the model's input.
        smoothing: fraction of the target that is spread over all classes.
        mixing: mixup and CutMix.
        mixed_steps: number of the first steps in which batches are mixed; None: all.
        class_weights: weight of a sample by its label, float32 [K] on the device; None: 1 for all.
        loss: cross_entropy over all classes, or binary_cross_entropy of each class.
        target_threshold: of binary_cross_entropy, see `mixed_binary_cross_entropy`.
        seed: seed of the run, from which the mixing is drawn.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        smoothing: float = 0.0,
        mixing: MixingConfig | None = None,
        mixed_steps: int | None = None,
        class_weights: Tensor | None = None,
        loss: LabelLossKind = "cross_entropy",
        target_threshold: float | None = None,
        seed: int = 0,
    ) -> None:
        self.preprocessing = preprocessing
        self.mixing = mixing or MixingConfig()
        self.mixed_steps = mixed_steps
        self.label_loss: LabelLoss = partial(mixed_cross_entropy, smoothing=smoothing, class_weights=class_weights)
        if loss == "binary_cross_entropy":
            self.label_loss = partial(
                mixed_binary_cross_entropy, smoothing=smoothing, class_weights=class_weights, threshold=target_threshold
            )
        self.seed = seed

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        pixels, labels, mixing_weights = mix_batch(batch, self.mixing, self.seed, self.mixed_steps)
        outputs = model(self.preprocessing.normalise(pixels))
        main = without_auxiliary(outputs)
        # A distilled DeiT without a teacher: both heads are trained on the label.
        heads = main if isinstance(main, tuple) else (main,)
        losses = [self.label_loss(head, labels, mixing_weights) for head in heads]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).mean()
        loss = add_auxiliary_loss(loss, outputs, labels, mixing_weights, self.label_loss)
        return StepOutput(loss, {"accuracy": mixed_accuracy(heads[0], labels, mixing_weights)})


def mix_batch(
    batch: Batch, mixing: MixingConfig, seed: int, mixed_steps: int | None = None
) -> tuple[Tensor, list[Tensor], list[float]]:
    """The batch's pixels (float if mixed, else uint8), its label tensors, and the mixing weight of each of them.

    Args:
        mixed_steps: batches from this step on are not mixed; None: all may be.
    """
    mix = draw_mix(mixing, seed, batch.step) if mixed_steps is None or batch.step < mixed_steps else None
    if mix is None:
        return batch.images, [batch.labels], [1.0]
    partners = partner_rows(batch)
    pixels, weight = mix.apply(batch.images.float(), batch.source.images[partners])
    return pixels, [batch.labels, batch.source.labels[partners]], [weight, 1.0 - weight]


def mixed_cross_entropy(
    logits: Tensor,
    labels: list[Tensor],
    mixing_weights: list[float],
    smoothing: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy in nats, averaged over ALL rows of the batch; rows without a label contribute 0.

    The mean is over all rows, so that the losses of micro-batches and ranks add up exactly.

    Args:
        logits: [B, K]; computed in float32.
        labels: int64 tensors [B]: those of the images and, if mixed, those of their partners; -1 means no label.
        mixing_weights: one per label tensor; they sum to 1.
        smoothing, class_weights: see Classification. The weight is that of the true label, also for the part of the
            target that smoothing spreads over the other classes (torch's `weight` would weigh each class's part).
    """
    logits = logits.float()
    if len(labels) == 1:
        return _cross_entropy_sum(logits, labels[0], smoothing, class_weights) / len(logits)
    with torch.no_grad():
        targets = _soft_targets(logits, labels, mixing_weights, smoothing, class_weights)
    # One log-softmax for all targets, where a cross-entropy each would need as many.
    return F.cross_entropy(logits, targets, reduction="sum") / len(logits)


def _soft_targets(
    logits: Tensor, labels: list[Tensor], mixing_weights: list[float], smoothing: float, class_weights: Tensor | None
) -> Tensor:
    """float32 [B, K], the targets of mixed labels; a row without a label has zeros, and others sum to their weight."""
    targets = torch.zeros_like(logits)
    row_weights = torch.zeros_like(logits[:, 0])
    for label, mixing_weight in zip(labels, mixing_weights, strict=True):
        known = label.clamp(min=0)
        weights = (label != UNLABELLED) * mixing_weight
        weights = weights if class_weights is None else weights * class_weights[known]
        targets.scatter_add_(1, known[:, None], weights[:, None])
        row_weights += weights
    if smoothing:
        targets.mul_(1 - smoothing).add_(row_weights[:, None], alpha=smoothing / logits.shape[1])
    return targets


def _cross_entropy_sum(logits: Tensor, labels: Tensor, smoothing: float, class_weights: Tensor | None) -> Tensor:
    if class_weights is None:
        return F.cross_entropy(logits, labels, ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="sum")
    losses = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="none")
    return (losses * class_weights[labels.clamp(min=0)]).sum()


def add_auxiliary_loss(
    loss: Tensor, outputs: Any, labels: list[Tensor], mixing_weights: list[float], label_loss: LabelLoss
) -> Tensor:
    """The loss plus the weighted sum of the auxiliary heads' losses in nats; the loss for a model without such heads.

    Args:
        outputs: the model's output in training mode.
        labels, mixing_weights: as in `mixed_cross_entropy`.
        label_loss: the loss of one head's logits.
    """
    if not isinstance(outputs, AuxiliaryLogits):
        return loss
    losses = [label_loss(logits, labels, mixing_weights) for logits in outputs.auxiliary]
    return loss + outputs.weight * torch.stack(losses).sum()


def without_auxiliary(outputs: Any) -> Any:
    """The main output: the logits, or the logits of both heads of a model with a distillation token."""
    return outputs.logits if isinstance(outputs, AuxiliaryLogits) else outputs


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The fraction of rows in which the label has the largest logit."""
    return (logits.detach().argmax(dim=-1) == labels).float().mean()


def mixed_accuracy(logits: Tensor, labels: list[Tensor], mixing_weights: list[float]) -> Tensor:
    """The mean over the rows of the fraction of the image that has the predicted label; unmixed, the accuracy.

    Its maximum on mixed images is the mean of the larger fraction, less than 1, unless both images have one label.

    Args:
        labels, mixing_weights: as in `mixed_cross_entropy`.
    Source: the training accuracy of the code for Zhang 2018 (mixup-cifar10).
    """
    if len(labels) == 1:
        return accuracy(logits, labels[0])
    fractions = [weight * accuracy(logits, label) for label, weight in zip(labels, mixing_weights, strict=True)]
    return torch.stack(fractions).sum()
