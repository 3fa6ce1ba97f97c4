"""The licences in the model card are those that the source states."""

from __future__ import annotations

from pipeline.registration.model_card import licence_rows
from pipeline.sharding.sources.base import NOT_STATED


def test_a_credit_names_what_is_stated_and_nothing_else() -> None:
    known = {"work": "Noto", "author": "Google", "licence": "OFL-1.1", "url": "https://example.org/noto"}
    unknown = {"work": "photos", "author": NOT_STATED, "licence": NOT_STATED, "url": ""}
    assert licence_rows([known]) == ["- Noto by Google: OFL-1.1 (<https://example.org/noto>)"]
    assert licence_rows([{**unknown, "author": "Ada"}]) == ["- photos by Ada: licence not stated"]
    assert licence_rows([{**unknown, "licence": "CC0-1.0"}, unknown]) == ["- photos: CC0-1.0"]
    assert licence_rows([unknown]) == licence_rows([]) == ["Not stated by the source."]
