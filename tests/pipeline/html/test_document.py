"""Every page has one frame, and figures have the colours of the pages."""

from __future__ import annotations

import re

import matplotlib as mpl
import pytest

from pipeline.html.document import document, number_card
from pipeline.html.figure_style import figure_style
from pipeline.html.markup import tag
from pipeline.html.theme import CSS, DARK, LIGHT
from pipeline.sharding.card.page.style import CSS as CARD_CSS


def test_the_frame_links_to_the_sections_that_are_there_and_escapes_what_it_is_given() -> None:
    text = document(
        "<tab>",
        kind="sheet",
        heading="<head>",
        introduction=[tag("p", "first"), number_card("images", "<7>", "of 9"), None],
        sections=[("one", "One & all", tag("p", "content")), ("two", "Two", None)],
        footer="<end>",
        css="p { color: red; }",
    )
    assert text.startswith("<!DOCTYPE html>")
    assert "<title>&lt;tab&gt;</title>" in text
    assert '<p class="eyebrow">Tutelage · sheet</p><h1>&lt;head&gt;</h1><p>first</p><div class="card">' in text
    assert '<p class="figure-value">&lt;7&gt;</p><p class="label">of 9</p>' in text
    assert '<nav aria-label="Sections"><a href="#one">One &amp; all</a></nav>' in text
    assert '<section id="one"><h2>One &amp; all</h2><p>content</p></section>' in text
    assert "Two" not in text
    assert "<footer>&lt;end&gt;</footer></main>" in text
    assert text.index(CSS) < text.index("p { color: red; }") < text.index("</style>")


@pytest.mark.parametrize("css", [CSS, CSS + CARD_CSS])
def test_every_colour_that_a_rule_uses_is_defined_on_both_grounds(css: str) -> None:
    light, dark = (dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", part)) for part in css.split("@media", 1))
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", css))
    assert used <= set(re.findall(r"--([a-z0-9-]+):", css))
    assert light.items() >= LIGHT.items()
    assert dark.items() >= DARK.items()


def test_figures_take_the_colours_of_the_page_unless_others_are_given() -> None:
    with mpl.rc_context(figure_style(line="#010203", size=9)):
        assert (mpl.rcParams["text.color"], mpl.rcParams["ytick.color"]) == (LIGHT["ink"], LIGHT["muted"])
        assert (mpl.rcParams["grid.color"], mpl.rcParams["font.size"]) == ("#010203", 9)
        assert not mpl.rcParams["text.parse_math"]
