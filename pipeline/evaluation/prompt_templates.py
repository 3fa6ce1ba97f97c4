"""Prompt templates of zero-shot classification, such as "a photo of {a_label}", and the prompts that they give."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.article import with_article

PLACEHOLDER = "{}"
_WITH_ARTICLE = "{a_label}"


def check_template(template: str) -> str:
    """The template itself, checked to have one placeholder: {}, or {a_label} for the name with its article.

    Raises:
        ValueError: it has no placeholder, or several.
    """
    if template.count(PLACEHOLDER) + template.count(_WITH_ARTICLE) != 1:
        raise ValueError(f"template {template!r} needs exactly one {PLACEHOLDER} or {_WITH_ARTICLE}, for the name")
    return template


def label_text(label: str) -> str:
    """A label as words: "food-fruit" reads "food fruit"."""
    return " ".join(re.sub("[-_/]", " ", label).split())


def prompts_for(label: str, templates: Sequence[str]) -> list[str]:
    """The prompts of one label; braces in it have no special meaning."""
    return [_prompt(label, check_template(template)) for template in templates]


def _prompt(label: str, template: str) -> str:
    if _WITH_ARTICLE in template:
        # Before the hyphens are replaced: they matter for the article.
        return template.replace(_WITH_ARTICLE, label_text(with_article(label.replace("_", " "))))
    return template.replace(PLACEHOLDER, label_text(label))
