"""The classification task: cross-entropy with label smoothing, on mixed images if mixing is on."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_defs.auxiliary import AuxiliaryLogits
from pipeline.loading.batch import Batch
from pipeline.loading.pairs import partner_rows
from pipeline.preprocessing import Preprocessing
from pipeline.training.mixing import draw_mix
from pipeline.training.mixing_config import MixingConfig
from pipeline.training.rows import UNLABELLED
from pipeline.training.task import StepOutput


class Classification:
    """Predicts the label of an image; auxiliary heads are trained on it too, with their loss weight.

    Args:
        preprocessing: converts uint8 images to the model's input.
        smoothing: fraction of the target that is spread over all classes.
        mixing: mixup and CutMix.
        class_weights: weight of a sample by its label, float32 [K] on the device; None: 1 for all.
        seed: seed of the run, from which the mixing is drawn.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        smoothing: float = 0.0,
        mixing: MixingConfig | None = None,
        class_weights: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        self.preprocessing = preprocessing
        self.smoothing = smoothing
        self.mixing = mixing or MixingConfig()
        self.class_weights = class_weights
        self.seed = seed

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        pixels, labels, mixing_weights = mix_batch(batch, self.mixing, self.seed)
        outputs = model(self.preprocessing.normalise(pixels))
        extra_loss = auxiliary_loss(outputs, labels, mixing_weights, self.smoothing, self.class_weights)
        outputs = without_auxiliary(outputs)
        # A distilled DeiT without a teacher: both heads are trained on the label.
        heads = outputs if isinstance(outputs, tuple) else (outputs,)
        losses = [
            mixed_cross_entropy(head, labels, mixing_weights, self.smoothing, self.class_weights) for head in heads
        ]
        return StepOutput(
            torch.stack(losses).mean() + extra_loss, {"accuracy": mixed_accuracy(heads[0], labels, mixing_weights)}
        )


def mix_batch(batch: Batch, mixing: MixingConfig, seed: int) -> tuple[Tensor, list[Tensor], list[float]]:
    """The batch's pixels (float if mixed, else uint8), its label tensors, and the mixing weight of each of them."""
    mix = draw_mix(mixing, seed, batch.step)
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
    losses = [
        weight * _cross_entropy_sum(logits, label, smoothing, class_weights)
        for label, weight in zip(labels, mixing_weights, strict=True)
    ]
    return torch.stack(losses).sum() / len(logits)


def _cross_entropy_sum(logits: Tensor, labels: Tensor, smoothing: float, class_weights: Tensor | None) -> Tensor:
    if class_weights is None:
        return F.cross_entropy(logits, labels, ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="sum")
    losses = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="none")
    return (losses * class_weights[labels.clamp(min=0)]).sum()


def auxiliary_loss(
    outputs: Any,
    labels: list[Tensor],
    mixing_weights: list[float],
    smoothing: float,
    class_weights: Tensor | None = None,
) -> Tensor | float:
    """The weighted sum of the auxiliary heads' cross-entropies in nats; 0 for a model without such heads.

    Args:
        outputs: the model's output in training mode.
        labels, mixing_weights, smoothing, class_weights: as in `mixed_cross_entropy`.
    """
    if not isinstance(outputs, AuxiliaryLogits):
        return 0.0
    losses = [
        mixed_cross_entropy(logits, labels, mixing_weights, smoothing, class_weights) for logits in outputs.auxiliary
    ]
    return outputs.weight * torch.stack(losses).sum()


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
    fractions = [weight * accuracy(logits, label) for label, weight in zip(labels, mixing_weights, strict=True)]
    return torch.stack(fractions).sum()
