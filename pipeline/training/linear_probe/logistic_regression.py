"""Multinomial logistic regression with an L2 penalty, in float64, by L-BFGS on the whole data.

    loss(W, b) = mean over samples of cross_entropy(x W^T + b, label) + l2 / 2 * |W|^2

The biases are not penalised, so the optimum is that of scikit-learn's LogisticRegression with C = 1 / (l2 N).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 500
_LEAST_STD = 0.01  # of a feature, as a fraction of the mean over all features
_GRADIENT = 1e-6  # the largest entry of the gradient at which the optimum counts as reached


@dataclass(frozen=True)
class LinearClassifier:
    """Scores x W^T + b; weight float64 [K, D], bias float64 [K]."""

    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """float64 [N, K]."""
        return F.linear(features.double(), self.weight, self.bias)


@dataclass(frozen=True)
class Standardisation:
    """Shifts and scales features to mean 0 and deviation 1 on the samples it was computed from; both float64 [D]."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Standardisation:
        """The standardisation of features [N, D]; a constant feature is only shifted.

        The deviation by which a feature is divided has a lower limit. Without it, a feature that is 0 in nearly all
        samples would decide the class alone wherever it is not 0.
        """
        features = features.double()
        std = features.std(dim=0, correction=0)
        scale = std.clamp(min=_LEAST_STD * std.mean())
        return cls(features.mean(dim=0), torch.where(scale > 1e-12, scale, torch.ones_like(std)))

    def __call__(self, features: Tensor) -> Tensor:
        return (features.double() - self.mean) / self.std

    def folded_into(self, classifier: LinearClassifier) -> LinearClassifier:
        """The classifier with the same scores on features that are not standardised."""
        weight = classifier.weight / self.std
        return LinearClassifier(weight, classifier.bias - weight @ self.mean)


def fit(
    features: Tensor,
    labels: Tensor,
    classes: int,
    l2: float,
    *,
    start: LinearClassifier | None = None,
    on_evaluation: Callable[[], None] = lambda: None,
) -> LinearClassifier:
    """The classifier with the least loss.

    A class without a sample gets zero weights and a bias so low that it is never predicted: without a penalty its
    optimal bias is minus infinity.

    Args:
        features: [N, D].
        labels: int64 [N], in [0, classes).
        l2: > 0.
        start: the classifier from which the search starts, e.g. of another penalty.
        on_evaluation: called at each evaluation of the loss; may raise to stop the search.
    """
    features = features.double()
    present, targets = torch.unique(labels, return_inverse=True)
    weight = features.new_zeros(len(present), features.shape[1])
    bias = features.new_zeros(len(present))
    if start is not None:
        weight.copy_(start.weight[present])
        bias.copy_(start.bias[present])
    weight.requires_grad_()
    bias.requires_grad_()
    search = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_STEPS,
        history_size=20,
        tolerance_grad=_GRADIENT,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        on_evaluation()
        search.zero_grad()
        value = F.cross_entropy(F.linear(features, weight, bias), targets) + l2 / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)
    all_weights = features.new_zeros(classes, features.shape[1])
    # At the optimum the weights sum to 0 over the classes, so the highest score of a sample is at least the mean bias.
    all_biases = features.new_full((classes,), float(bias.detach().min()) - math.log(2 * len(labels)))
    all_weights[present] = weight.detach()
    all_biases[present] = bias.detach()
    return LinearClassifier(all_weights, all_biases)
