"""A caption generated from the label, for data without captions: "a photo of {a_label}"."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.article import with_article

_LABEL, _WITH_ARTICLE = "{label}", "{a_label}"


def _names_the_label(template: str | None) -> str | None:
    if template is not None and _LABEL not in template and _WITH_ARTICLE not in template:
        raise ValueError('must contain {label} or {a_label}, e.g. "a photo of {a_label}"')
    return template


CaptionTemplate = Annotated[
    str | None,
    AfterValidator(_names_the_label),
    Field(
        description="Template for captions, with {label} for the class name, or {a_label} for the class name with its "
        'article ("an ankle boot"), e.g. "a photo of {a_label}". null: no captions.'
    ),
]


def caption_of(template: str | None, label: str | None) -> tuple[str, ...]:
    """The caption of an image with this label; () without template or label."""
    if template is None or label is None:
        return ()
    spaced = label.replace("_", " ")
    name, named = (text.replace("-", " ") for text in (spaced, with_article(spaced)))
    return (named.join(piece.replace(_LABEL, name) for piece in template.split(_WITH_ARTICLE)),)
