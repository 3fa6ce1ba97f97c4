"""The distillation losses, against their formulas written out."""

from __future__ import annotations

import pytest
import torch

from pipeline.distillation.loss_config import DistillationLossConfig
from pipeline.distillation.losses import distillation_loss, hard_target_loss, soft_target_loss


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    student = (3 * torch.randn(6, 7, generator=random)).requires_grad_()
    return student, 3 * torch.randn(6, 7, generator=random)


@pytest.mark.parametrize("t", [1.0, 3.0])
def test_soft_targets_are_t2_kl_by_batch(logits: tuple[torch.Tensor, torch.Tensor], t: float) -> None:
    student, teacher = logits
    p = (teacher / t).exp() / (teacher / t).exp().sum(1, keepdim=True)
    q = (student / t).exp() / (student / t).exp().sum(1, keepdim=True)
    expected = t * t * (p * (p.log() - q.log())).sum() / 6
    torch.testing.assert_close(soft_target_loss(student, teacher, t), expected)


def test_the_gradient_of_soft_targets_does_not_shrink_at_high_temperature(
    logits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    student, teacher = logits
    # Hinton 2015, equation 4: at high temperature it is (student - teacher) / K, for centred logits.
    (gradient,) = torch.autograd.grad(soft_target_loss(student, teacher, 1000.0), student)
    centred = [x - x.mean(1, keepdim=True) for x in (student, teacher)]
    torch.testing.assert_close(gradient, (centred[0] - centred[1]) / 7 / 6, rtol=0.02, atol=1e-4)


def test_hard_targets_are_cross_entropy_with_the_teachers_class(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, teacher = logits
    predicted = teacher.argmax(1)
    probabilities = student.exp() / student.exp().sum(1, keepdim=True)
    expected = -probabilities[torch.arange(6), predicted].log().mean()
    torch.testing.assert_close(hard_target_loss(student, teacher), expected)


@pytest.mark.parametrize(
    ("config", "soft"),
    [
        ({"method": "soft"}, True),
        ({"method": "hard"}, False),
        ({"method": "token"}, False),
        ({"method": "token", "token_target": "soft"}, True),
    ],
)
def test_weights_of_label_and_teacher(
    logits: tuple[torch.Tensor, torch.Tensor], config: dict[str, str], soft: bool
) -> None:
    student, teacher = logits
    label_loss = torch.tensor(2.0)
    loss = distillation_loss(
        label_loss,
        student,
        teacher,
        DistillationLossConfig.model_validate({**config, "temperature": 2.0, "weight": 0.1}),
    )
    teacher_loss = 0.1 * soft_target_loss(student, teacher, 2.0) if soft else 0.5 * hard_target_loss(student, teacher)
    torch.testing.assert_close(loss, (0.9 if soft else 0.5) * label_loss + teacher_loss)


@pytest.mark.parametrize("loss", [hard_target_loss, lambda s, t: soft_target_loss(s, t, 2.0)])
def test_another_number_of_classes_is_an_error(loss: object) -> None:
    with pytest.raises(ValueError, match="differ"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))  # type: ignore[operator]


def test_the_teacher_gets_no_gradient(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, teacher = logits
    teacher.requires_grad_()
    (soft_target_loss(student, teacher, 3.0) + hard_target_loss(student, teacher)).backward()
    assert teacher.grad is None
    assert student.grad is not None
