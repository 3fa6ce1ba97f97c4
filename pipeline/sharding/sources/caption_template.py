"""A caption generated from the label, for data without captions: "a photo of a {label}"."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _names_the_label(template: str | None) -> str | None:
    if template is not None and "{label}" not in template:
        raise ValueError('must contain {label}, e.g. "a photo of a {label}"')
    return template


CaptionTemplate = Annotated[str | None, AfterValidator(_names_the_label)]


def caption_of(template: str | None, label: str | None) -> tuple[str, ...]:
    """The caption of an image with this label; () without template or label."""
    if template is None or label is None:
        return ()
    return (template.replace("{label}", label.replace("_", " ").replace("-", " ")),)
