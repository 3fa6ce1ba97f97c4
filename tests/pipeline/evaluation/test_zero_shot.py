"""Zero-shot classes: the ensemble re-derived, templates checked before they are used."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.evaluation.prompt_templates import label_text, prompts_for
from pipeline.evaluation.zero_shot import class_embeddings, zero_shot_scores


def test_ensemble_normalises_each_prompt_before_the_mean_and_the_mean_after() -> None:
    vectors = {"cat": [3.0, 0.0], "a cat": [0.0, 0.1], "dog": [1.0, 0.0], "a dog": [5.0, 0.0]}

    def encode(texts: list[str]) -> Tensor:
        return torch.tensor([vectors[text] for text in texts])

    classes = class_embeddings(encode, ["cat", "dog"], ["{}", "a {}"])
    half = 2**-0.5  # both phrasings weigh the same, however long their vectors are
    assert torch.allclose(classes, torch.tensor([[half, half], [1.0, 0.0]]))
    scores = zero_shot_scores(torch.tensor([[0.0, 7.0], [2.0, 0.0]]), classes)
    assert torch.allclose(scores, torch.tensor([[half, 0.0], [half, 1.0]]))


def test_many_classes_are_embedded_in_chunks_with_the_same_result() -> None:
    calls: list[int] = []

    def encode(texts: list[str]) -> Tensor:
        calls.append(len(texts))
        return torch.tensor([[float(text.split()[-1]) + 1.0, 1.0] for text in texts])

    classes = class_embeddings(encode, [str(n) for n in range(700)], ["{}", "an emoji of {}"])
    assert len(calls) > 1
    assert classes.shape == (700, 2)
    assert torch.allclose(classes[41], torch.nn.functional.normalize(torch.tensor([42.0, 1.0]), dim=0))


def test_braces_in_a_name_mean_nothing() -> None:
    assert prompts_for("{0} {}", ["an icon of {}"]) == ["an icon of {0} {}"]


def test_the_article_of_a_name_is_the_template_s() -> None:
    assert prompts_for("ankle boot", ["{}", "a {}", "a photo of {a_label}"]) == [
        "ankle boot",
        "a ankle boot",
        "a photo of an ankle boot",
    ]
    assert prompts_for("A-line_skirt", ["{}", "{a_label}"]) == ["A line skirt", "an A line skirt"]
    with pytest.raises(ValueError, match=r"exactly one \{} or \{a_label}"):
        prompts_for("bag", ["{a_label} and {}"])


def test_label_reads_as_words() -> None:
    assert label_text("face-smiling") == "face smiling"
    assert label_text("animals_nature/plant-flower") == "animals nature plant flower"


@pytest.mark.parametrize("template", ["an emoji", "{} and {}", "{name}"])
def test_template_without_one_place_for_the_name_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        class_embeddings(lambda texts: torch.ones(len(texts), 2), ["cat"], [template])


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        class_embeddings(lambda texts: torch.ones(len(texts), 2), [], ["{}"])
