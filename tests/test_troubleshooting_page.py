"""docs/troubleshooting.md quotes lines as the product prints them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
PACKAGES = ("flows", "pipeline", "infra", "model_defs")
# Characters: what is shorter, between two placeholders, is a word such as `of`; each line has a longer part.
SHORT, LONG = 4, 9


def quoted_lines() -> list[str]:
    """The first cells of the page's tables."""
    cells = re.findall(r"^\| `(.+?)` \| ", PAGE.read_text(), flags=re.MULTILINE)
    return [cell.strip("`") + "`" * (cell.count("`") % 2) for cell in cells]


@cache
def product_text() -> str:
    """All literal texts of the product."""
    texts = [(ROOT / "Makefile").read_text()]
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            texts.extend(literal_texts(ast.parse(path.read_text())))
    return "\n".join(texts)


def literal_texts(module: ast.Module) -> Iterator[str]:
    """The texts and f-strings of a module. In an f-string, a constant of the module is its value, all else a NUL."""
    constants = {
        target.id: str(statement.value.value)
        for statement in module.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            yield "".join(_text(part, constants) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _text(part: ast.expr, constants: Mapping[str, str]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    name = part.value if isinstance(part, ast.FormattedValue) else None
    return constants.get(name.id, "\0") if isinstance(name, ast.Name) else "\0"


@pytest.mark.parametrize("line", quoted_lines())
def test_the_fixed_words_of_a_quoted_line_are_in_the_product(line: str) -> None:
    fixed = [part.strip(" '`;:,()=") for part in re.split(r"<[^<>]*>", line)]
    assert max(map(len, fixed)) >= LONG, "nothing in this line can be looked for"
    assert [part for part in fixed if len(part) >= SHORT and part not in product_text()] == []


def test_the_page_quotes_many_lines_and_each_once() -> None:
    lines = quoted_lines()
    assert len(lines) == PAGE.read_text().count("\n| `")
    assert len(lines) >= 40
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_page_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
