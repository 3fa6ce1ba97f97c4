"""The distillation task: a student is trained on labels and on a frozen teacher's outputs."""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.distillation.loss_config import DistillationLossConfig
from pipeline.distillation.losses import distillation_loss
from pipeline.distillation.teacher import Teacher
from pipeline.loading.batch import Batch
from pipeline.preprocessing import Preprocessing
from pipeline.training.classification import (
    accuracy,
    add_auxiliary_loss,
    mix_batch,
    mixed_accuracy,
    mixed_cross_entropy,
    without_auxiliary,
)
from pipeline.training.classifier_evaluation import ClassifierEvaluation
from pipeline.training.mixing_config import MixingConfig
from pipeline.training.task import Measurement, StepOutput


class Distillation:
    """Trains a student on the labels and on the teacher's outputs.

    The student's one or two main heads get the distillation loss; auxiliary heads get the label loss only, weighted.

    Args:
        teacher: a model that runs on the student's augmented images, or stored outputs for the original images.
        preprocessing: the student's.
        loss: the distillation loss.
        smoothing: label smoothing, of the true labels only.
        mixing: mixup and CutMix; the teacher sees the mixed image too.
        mixed_steps: number of the first steps in which batches are mixed; None: all.
        class_weights: weight of the label loss of a sample by its label, float32 [K] on the device; None: 1 for all.
            The loss against the teacher is not weighted.
        seed: of the run; determines the mixing.
    """

    def __init__(
        self,
        teacher: Teacher,
        preprocessing: Preprocessing,
        loss: DistillationLossConfig,
        *,
        smoothing: float = 0.0,
        mixing: MixingConfig | None = None,
        mixed_steps: int | None = None,
        class_weights: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        self.teacher = teacher
        self.preprocessing = preprocessing
        self.loss = loss
        self.mixing = mixing or MixingConfig()
        self.mixed_steps = mixed_steps
        self.label_loss = partial(mixed_cross_entropy, smoothing=smoothing, class_weights=class_weights)
        self.seed = seed

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        pixels, labels, mixing_weights = mix_batch(batch, self.mixing, self.seed, self.mixed_steps)
        teacher_logits = self.teacher.batch_logits(batch, pixels, mixing_weights)
        outputs = model(self.preprocessing.normalise(pixels))
        main = without_auxiliary(outputs)
        class_logits, distillation_logits = main if self.loss.method == "token" else (main, main)
        label_loss = self.label_loss(class_logits, labels, mixing_weights)
        loss = distillation_loss(label_loss, distillation_logits, teacher_logits, self.loss)
        loss = add_auxiliary_loss(loss, outputs, labels, mixing_weights, self.label_loss)
        metrics = {
            "accuracy": mixed_accuracy(class_logits, labels, mixing_weights),
            "agreement": accuracy(distillation_logits, teacher_logits.argmax(dim=-1)),
            "label_loss": label_loss.detach(),
        }
        return StepOutput(loss, metrics)


class StudentEvaluation:
    """The classifier's evaluation, with the fraction of images on which student and teacher agree.

    Args:
        evaluation: the evaluation of the student as a classifier.
        teacher: runs on each image once; later evaluations reuse its predictions, since the images do not change.
    """

    def __init__(self, evaluation: ClassifierEvaluation, teacher: Teacher) -> None:
        self._evaluation = evaluation
        self._teacher = teacher
        self._predictions: list[Tensor] = []

    def __call__(self, model: nn.Module) -> Measurement:
        device = self._evaluation.device
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        previous_predictions, predictions_by_batch = iter(self._predictions), []

        def compare(batch: Batch, logits: Tensor) -> None:
            predictions = next(previous_predictions, None)
            if predictions is None:
                predictions = self._teacher.predictions(batch, device)
            predictions_by_batch.append(predictions)
            totals[0] += (logits.argmax(dim=-1) == predictions).sum()
            totals[1] += len(predictions)

        metrics = self._evaluation(model, compare)
        self._predictions = predictions_by_batch
        if self._evaluation.world > 1:
            dist.all_reduce(totals)
        agreed, rows = totals.tolist()
        metrics["val/agreement"] = agreed / rows
        return metrics
