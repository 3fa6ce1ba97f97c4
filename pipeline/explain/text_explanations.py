"""Explanations by the similarity of each patch to texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_defs.clip import CLIP
from pipeline.evaluation.prompt_templates import PLACEHOLDER, prompts_for
from pipeline.explain.drawing import Panel, enlarge, overlay, to_picture
from pipeline.explain.explanation import Explanation, ExplanationRequest
from pipeline.explain.patch_text import patch_text_similarity
from pipeline.exported_model import ExportedModel

_TEXTS_SHOWN = 3  # the best labels, if no prompts are given


def explain_by_texts(
    exported: ExportedModel, model: nn.Module, images: Tensor, request: ExplanationRequest
) -> list[Explanation]:
    """For each image, similarity maps over it: one per prompt, or per label of those most similar to the image."""
    assert isinstance(model, CLIP)
    x = exported.preprocessing.normalise(images)
    template = (exported.templates or (PLACEHOLDER,))[0]
    texts = list(request.prompts) or [prompts_for(label, [template])[0] for label in exported.labels]
    tokens = exported.tokenizer().encode(texts)
    with torch.no_grad():
        cosines = model.encode_image(x) @ model.encode_text(tokens).T
    explained = []
    for image, pixels, row in zip(images, x, cosines, strict=True):
        order = row.argsort(descending=True)
        shown = torch.arange(len(texts)) if request.prompts else order[:_TEXTS_SHOWN]
        maps = patch_text_similarity(model, pixels[None], tokens[shown])[0]
        low, high = maps.min(), maps.max()
        base = to_picture(image)
        large = enlarge(base)  # over which the maps are drawn
        panels = [Panel("image", base)] + [
            Panel(f"{texts[text]}   {row[text]:.2f}", overlay(large, ((heat - low) / (high - low + 1e-12)).numpy()))
            for text, heat in zip(shown.tolist(), maps, strict=True)
        ]
        best = int(order[0])
        heading = f"{texts[best]}, cosine {row[best]:.2f}"
        explained.append(Explanation("patch-text", texts[best], float(row[best]), heading, tuple(panels)))
    return explained
