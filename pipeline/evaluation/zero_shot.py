"""Zero-shot classification: a class is represented by the mean embedding of several prompts.

The prompts of a class are built from templates ("a photo of {}"); their embeddings are normalised and
averaged, and the mean is normalised; an image's score for a class is the cosine.

Source: Radford et al. 2021 (CLIP), section 3.1.4, ensembling in embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.evaluation.prompt_templates import prompts_for

_PROMPTS_AT_ONCE = 512


def class_embeddings(
    encode_text: Callable[[list[str]], Tensor], names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """The unit embedding of each class, [K, E], on the encoder's device.

    Args:
        encode_text: n texts -> [n, E]; need not be normalised.
        names: K class names; "food-fruit" is read as "food fruit".
        templates: T templates; see `check_template`.
    Raises:
        ValueError: no names, no templates, or a template without its placeholder.
    """
    if not names or not templates:
        raise ValueError("zero-shot classification needs at least one name and one template")
    classes_at_once = max(1, _PROMPTS_AT_ONCE // len(templates))
    means = []
    for start in range(0, len(names), classes_at_once):
        chunk = names[start : start + classes_at_once]
        prompts = [prompt for name in chunk for prompt in prompts_for(name, templates)]
        embedded = normalize(encode_text(prompts).float(), dim=-1)  # [len(chunk) * T, E]
        means.append(embedded.view(len(chunk), len(templates), -1).mean(dim=1))
    return normalize(torch.cat(means), dim=-1)


def zero_shot_scores(image_features: Tensor, classes: Tensor) -> Tensor:
    """Cosine of each image with each class, [N, K].

    Args:
        image_features: [N, E]; normalised here.
        classes: [K, E] unit vectors from `class_embeddings`.
    """
    return normalize(image_features.float(), dim=-1) @ classes.T
