"""Logistic regression has the optimum of scikit-learn's, and the standardisation folds into its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from pipeline.training.linear_probe.logistic_regression import LinearClassifier, Standardisation, fit

CLASSES, SAMPLES, FEATURES = 4, 120, 7


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    """Features of classes that overlap, on different scales, the last one constant."""
    random = np.random.default_rng(0)
    labels = np.arange(SAMPLES) % CLASSES
    features = random.normal(size=(CLASSES, FEATURES))[labels] + random.normal(size=(SAMPLES, FEATURES))
    features = features * 10.0 ** np.arange(-3, FEATURES - 3) + 5
    features[:, -1] = 3
    return torch.from_numpy(features), torch.from_numpy(labels)


@pytest.mark.parametrize("l2", [1.0, 0.01, 0.0001])
def test_the_optimum_is_that_of_scikit_learn(data: tuple[Tensor, Tensor], l2: float) -> None:
    features, labels = Standardisation.of(data[0])(data[0]), data[1]
    ours = fit(features, labels, CLASSES, l2)
    theirs = LogisticRegression(C=1 / (l2 * SAMPLES), tol=1e-9, max_iter=10_000).fit(features.numpy(), labels.numpy())
    np.testing.assert_allclose(ours.weight.numpy(), theirs.coef_, atol=2e-3, rtol=2e-3)
    expected = theirs.predict_log_proba(features.numpy())
    np.testing.assert_allclose(ours.scores(features).log_softmax(dim=1).numpy(), expected, atol=5e-3)


def test_a_search_that_starts_elsewhere_ends_at_the_same_optimum(data: tuple[Tensor, Tensor]) -> None:
    features, labels = Standardisation.of(data[0])(data[0]), data[1]
    start = LinearClassifier(torch.randn(CLASSES, FEATURES).double(), torch.randn(CLASSES).double())
    cold, warm = fit(features, labels, CLASSES, 0.01), fit(features, labels, CLASSES, 0.01, start=start)
    torch.testing.assert_close(cold.weight, warm.weight, rtol=0, atol=1e-3)


def test_the_standardisation_folds_into_the_classifier_exactly(data: tuple[Tensor, Tensor]) -> None:
    features, labels = data
    scale = Standardisation.of(features)
    standardised = scale(features)
    before = features.double().std(dim=0, correction=0)
    expected = before / before.clamp(min=0.01 * before.mean())  # 1, but for features that hardly vary
    assert (expected == 1).any()
    torch.testing.assert_close(standardised.std(dim=0, correction=0), expected)
    assert (standardised[:, -1] == 0).all()
    classifier = fit(standardised, labels, CLASSES, 0.01)
    folded = scale.folded_into(classifier)
    torch.testing.assert_close(folded.scores(features), classifier.scores(standardised), rtol=1e-10, atol=1e-9)


def test_a_feature_that_is_zero_in_nearly_all_samples_decides_no_class_alone(data: tuple[Tensor, Tensor]) -> None:
    labels = data[1]
    rare = torch.zeros(len(labels), 1)
    rare[0] = 2e-6
    features = torch.cat([torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0)), rare], dim=1)
    scale = Standardisation.of(features)
    folded = scale.folded_into(fit(scale(features), labels, CLASSES, 0.01))
    assert folded.weight[:, -1].abs().max() < folded.weight[:, :-1].abs().max()


def test_a_class_without_samples_is_never_predicted(data: tuple[Tensor, Tensor]) -> None:
    features, labels = Standardisation.of(data[0])(data[0]), data[1]
    without = labels != 2
    classifier = fit(features[without], labels[without], CLASSES + 1, 0.01)
    assert classifier.weight.shape == (CLASSES + 1, FEATURES)
    for missing in (2, CLASSES):
        assert (classifier.weight[missing] == 0).all()
    anywhere = 10 * torch.randn(1000, FEATURES, generator=torch.Generator().manual_seed(0)).double()
    assert set(classifier.scores(torch.cat([features, anywhere])).argmax(dim=1).tolist()) == {0, 1, 3}


def test_the_search_can_be_stopped(data: tuple[Tensor, Tensor]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(*data, CLASSES, 1.0, on_evaluation=stop)
