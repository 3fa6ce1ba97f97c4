"""Names of others in Markdown, HTML and on a terminal are shown, never obeyed."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from flows.cli.console import Console
from pipeline.html.markdown import Cell, code, link, table, text
from pipeline.html.markup import tag
from pipeline.printable import printable
from pipeline.sharding.sources.base import Credit

HOSTILE = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/pixel.png)",
    "<javascript:alert(1)>",
    "<img src=x onerror=alert(1)>",
    "a | b ` c * d _ e ~~f~~ $x$ # g",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "&lt;b&gt; &amp; &#60;",
    "\x1b]0;title\x07\x1b[31mred",
    "line\nbreak\r\n\n| --- |",
    "\u202egnp.exe\u2066",
    "back\\slash \\[x](y)",
    "[x]: javascript:alert(1)",
    "```",
    "www.evil.example",
    "\x00\x9b31m",
]


class Seen(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_a_text_in_markdown_whatever_is_in_it(name: str) -> None:
    shown = " ".join(printable(" ".join(name.split())).split())
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render
    for page, wanted in (
        (render(f"- {text(name)}"), ["ul", "li"]),
        (render(f"# {text(name)}"), ["h1"]),
        (
            render("\n".join(table(("name", "n"), [(name, 1000)]))),
            ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"],
        ),
    ):
        seen = Seen(page)
        assert seen.tags == wanted
        assert shown in " ".join(seen.words.split())
        assert not any(char < " " and char != "\n" for char in page)
    assert Seen(render(code(name))).tags == ["p", "code"]


def test_an_address_is_a_link_only_if_it_is_one_of_the_web() -> None:
    render = MarkdownIt("commonmark").render
    assert render(link("https://example.org/a_b?c=d")) == (
        '<p><a href="https://example.org/a_b?c=***">https://example.org/a_b?c=***</a></p>\n'
    )
    for bad in ("javascript:alert(1)", "data:text/html,<script>", "https://a b", 'https://x/"><script>', "file:///etc"):
        assert "<a" not in render(link(bad))
    assert "hush" not in link("https://me:hush@example.org/x")
    assert "|" not in table(("a",), [(Cell(link("https://x/a|b")),)])[2].strip("| ")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_a_text_in_html_and_on_a_terminal(name: str) -> None:
    page = tag("p", name, title=name)
    assert Seen(page).tags == ["p"]
    out = io.StringIO()
    Console(file=out, force_terminal=False, width=200).print(name, f"[bold]{name}[/nothing]", ":smile:")
    for written in (page, out.getvalue()):
        assert not set(written) & set("\x00\x07\x1b\x9b\u202e\u2066\r")
    assert "[bold]" in out.getvalue()
    assert ":smile:" in out.getvalue()


def test_what_joins_letters_and_emoji_is_left_alone() -> None:
    for word in ("👩\u200d🚀", "نمی\u200cخواهم", "❤️", "🏴\U000e0067\U000e0062\U000e007f", "Bär", "日本語"):
        assert printable(word) == word
        assert text(word) == word


def test_a_data_card_and_a_model_card_show_what_the_data_say_of_themselves() -> None:
    from pipeline.registration.model_card import _data_rows, licence_rows

    render = MarkdownIt("commonmark", {"html": True}).render
    for name in HOSTILE:
        credit = Credit(name, name, name, name)
        entry = {"work": credit.work, "author": credit.author, "licence": credit.licence, "url": credit.url}
        lines = [
            *_data_rows({"title": name, "per_source": [{"source": name, "samples": 3}]}),
            "",
            *licence_rows([entry]),
        ]
        assert set(Seen(render("\n".join(lines))).tags) <= {"p", "ul", "li"}
