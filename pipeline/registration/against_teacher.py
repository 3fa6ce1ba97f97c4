"""Compares a registered student with its teacher in a sentence, if it is hardly smaller or far less accurate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import committed_config
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.difference import MAX_P_VALUE, accuracy_difference
from pipeline.evaluation.paired_test import mcnemar
from pipeline.evaluation.stage import EvaluateModel
from pipeline.exported_model import ExportedModel
from pipeline.registration.cost import weights_size
from pipeline.registration.gate import Outcomes
from pipeline.registration.outcomes import read_outcomes
from pipeline.stage import stage_key

_HARDLY_SMALLER = 0.5  # of the teacher's parameters
_FAR_LESS_ACCURATE = 0.05


def against_teacher(
    cost: Mapping[str, float], student: Outcomes, inputs: Mapping[str, Artifact], store: ArtifactStore
) -> str | None:
    """The sentence, with the sizes and the paired test.

    None if the student is clearly smaller and not far less accurate, or if the two cannot be compared.

    Args:
        cost: of the student, from `image_cost`.
        student: its outcomes in `inputs["evaluation"]`.
        inputs: of the registration; without "teacher", or without the teacher's evaluation in the store: None.
    """
    teacher = inputs.get("teacher")
    if teacher is None or student.measure != "accuracy":
        return None
    evaluation = _same_evaluation(teacher, inputs, store)
    if evaluation is None:
        return None
    outcomes = read_outcomes(evaluation)
    if outcomes.measure != student.measure or not np.array_equal(outcomes.ids, student.ids):
        return None
    test = mcnemar(student.values, outcomes.values)
    size = weights_size(ExportedModel.open(teacher).build())
    is_large = cost["parameters"] > _HARDLY_SMALLER * size["parameters"]
    is_worse = test.difference < -_FAR_LESS_ACCURATE and test.p_value <= MAX_P_VALUE
    if not is_large and not is_worse:
        return None
    difference = accuracy_difference(test, "the student", "its teacher")
    return f"The student has {_in_words(cost)}, its teacher {_in_words(size)}; {difference[0].lower()}{difference[1:]}"


def _same_evaluation(model: Artifact, inputs: Mapping[str, Artifact], store: ArtifactStore) -> Artifact | None:
    """The evaluation of another model with the same config on the same shards; None if the store has none."""
    evaluation = inputs["evaluation"]
    config = committed_config(EvaluationConfig, evaluation.config, f"config of {evaluation.name}")
    stage = EvaluateModel()
    return store.find(f"{stage.name}/{stage_key(stage, config, {'shards': inputs['shards'], 'model': model})}")


def _in_words(size: Mapping[str, float]) -> str:
    return f"{size['parameters'] / 1e6:.2f}M parameters ({size['megabytes']:.1f} MB)"
