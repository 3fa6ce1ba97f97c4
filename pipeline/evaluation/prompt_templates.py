"""Prompt templates of zero-shot classification, such as "a photo of {a_label}", and the prompts that they give."""

from __future__ import annotations

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
    return " ".join(label.replace("_", " ").replace("-", " ").replace("/", " ").split())


def prompts_for(name: str, templates: Sequence[str]) -> list[str]:
    """The prompts of one class name; braces in the name have no special meaning."""
    return [_prompt(name, check_template(template)) for template in templates]


def _prompt(name: str, template: str) -> str:
    if _WITH_ARTICLE in template:
        return template.replace(_WITH_ARTICLE, with_article(name))
    return template.replace(PLACEHOLDER, name)
