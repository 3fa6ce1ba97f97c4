"""The distillation task: a student learns from labels and from a frozen teacher."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.distillation.losses import DistillationLossConfig, distillation_loss
from pipeline.distillation.teacher import Teacher
from pipeline.exported_model import Preprocessing
from pipeline.loading.batch import Batch
from pipeline.training.classification import (
    ClassifierEvaluation,
    accuracy,
    auxiliary_loss,
    mixed,
    mixed_cross_entropy,
    without_auxiliary,
)
from pipeline.training.mixing import MixingConfig
from pipeline.training.task import StepOutput


class Distillation:
    """Learns the label of an image, and what the teacher says of it.

    The student's own head, or its two, learn from both; auxiliary heads learn the label alone, with their weight.

    Args:
        teacher: sees the view that the student sees, or answered before for the stored image.
        preprocessing: of the student.
        loss: which loss.
        smoothing: of the true labels only.
        mixing: mixup and CutMix; the teacher sees the mixed image too.
        seed: of the run; keys the mixing.
    """

    def __init__(
        self,
        teacher: Teacher,
        preprocessing: Preprocessing,
        loss: DistillationLossConfig,
        *,
        smoothing: float = 0.0,
        mixing: MixingConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.teacher = teacher
        self.preprocessing = preprocessing
        self.loss = loss
        self.smoothing = smoothing
        self.mixing = mixing or MixingConfig()
        self.seed = seed

    def training_step(self, model: nn.Module, batch: Batch) -> StepOutput:
        pixels, labels, shares = mixed(batch, self.mixing, self.seed)
        taught = self.teacher.answers(batch, pixels, shares)
        outputs = model(self.preprocessing.normalise(pixels))
        extra_loss = auxiliary_loss(outputs, labels, shares, self.smoothing)
        outputs = without_auxiliary(outputs)
        for_label, for_teacher = outputs if self.loss.method == "token" else (outputs, outputs)
        label_loss = mixed_cross_entropy(for_label, labels, shares, self.smoothing)
        loss = distillation_loss(label_loss, for_teacher, taught, self.loss) + extra_loss
        metrics = {
            "accuracy": accuracy(for_label, batch.labels),
            "agreement": accuracy(for_teacher, taught.argmax(dim=-1)),
            "label_loss": label_loss.detach(),
        }
        return StepOutput(loss, metrics)


class StudentEvaluation:
    """The classifier's evaluation, and how often the student decides as the teacher does.

    Args:
        evaluation: of the student as a classifier.
        teacher: asked once for each image, since evaluation images never vary.
    """

    def __init__(self, evaluation: ClassifierEvaluation, teacher: Teacher) -> None:
        self._evaluation = evaluation
        self._teacher = teacher
        self._decisions: list[Tensor] = []

    def __call__(self, model: nn.Module) -> dict[str, float]:
        device = self._evaluation.device
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        known, all_decisions = iter(self._decisions), []

        def compare(batch: Batch, logits: Tensor) -> None:
            decisions = next(known, None)
            if decisions is None:
                decisions = self._teacher.decisions(batch, device)
            all_decisions.append(decisions)
            totals[0] += (logits.argmax(dim=-1) == decisions).sum()
            totals[1] += len(decisions)

        metrics = self._evaluation(model, compare)
        self._decisions = all_decisions
        if self._evaluation.world > 1:
            dist.all_reduce(totals)
        agreed, rows = totals.tolist()
        return {**metrics, "val/agreement": agreed / rows}
