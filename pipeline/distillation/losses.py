"""Distillation losses, as pure functions of logits; all in nats, mean over the batch, in float32.

With y the label, z the teacher's logits, and l and t the `weight` and `temperature` of the config:

    soft    (1 - l) CE(student, y) + l t^2 KL(z / t, student / t)         Hinton 2015, section 2
    hard    1/2 CE(student, y) + 1/2 CE(student, argmax z)                Touvron 2020, equation 3
    token   the class head is trained on y, the distillation head on the teacher:
            hard    1/2 CE(class, y) + 1/2 CE(distillation, argmax z)     Touvron 2020, section 4
            soft    (1 - l) CE(class, y) + l t^2 KL(z / t, distillation / t)

Label smoothing applies to y only. DeiT's code divides the soft loss by B * K; here it is divided by B, as in
the equation.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.distillation.loss_config import DistillationLossConfig


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """t^2 KL(teacher / t, student / t), mean over the batch; no gradient flows to the teacher.

    The factor t^2 makes the gradient's magnitude independent of the temperature.

    Args:
        student, teacher: logits [B, K].
        temperature: > 0.
    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student logits {tuple(student.shape)} and teacher logits {tuple(teacher.shape)} differ")
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def hard_target_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy with the teacher's predicted class, mean over the batch.

    Args:
        student, teacher: logits [B, K].
    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student logits {tuple(student.shape)} and teacher logits {tuple(teacher.shape)} differ")
    return F.cross_entropy(student.float(), teacher.detach().argmax(dim=-1))


def distillation_loss(label_loss: Tensor, student: Tensor, teacher: Tensor, config: DistillationLossConfig) -> Tensor:
    """The weighted sum of label loss and teacher loss.

    Args:
        label_loss: scalar, of the head that is trained on the label.
        student: logits [B, K] of the head that is trained on the teacher; with the methods soft and hard the only head.
        teacher: logits [B, K].
    """
    soft = config.method == "soft" or (config.method == "token" and config.token_target == "soft")
    if soft:
        return (1 - config.weight) * label_loss + config.weight * soft_target_loss(student, teacher, config.temperature)
    return 0.5 * label_loss + 0.5 * hard_target_loss(student, teacher)
