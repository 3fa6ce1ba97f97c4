"""The pages for people keep up with the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"])
def test_every_path_that_a_page_links_to_exists(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    missing = [link for link in links if not (ROOT / link).exists()]
    assert missing == []


def test_every_room_is_on_the_architecture_page() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = [place.name for place in (ROOT / "pipeline").iterdir() if (place / "__init__.py").exists()]
    assert [room for room in rooms if f"pipeline/{room}" not in text] == []


def test_every_command_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    cli = (ROOT / "flows" / "cli" / "app.py").read_text()
    for command in re.findall(r"^\| `tutelage (\w+)", text, flags=re.MULTILINE):
        assert f"def {command}" in cli or f'"{command}"' in cli, command
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", text)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
