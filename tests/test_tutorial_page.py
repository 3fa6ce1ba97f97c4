"""docs/tutorial.md: its commands and settings exist, also those in sentences and after `tutelage up`.

tests/journeys/test_tutorial.py runs its commands from step 2 on; tests/journeys/test_up.py does what follows
`tutelage up`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.catalog import find_flow
from flows.cli.app import app
from flows.cli.parameters_file import shell_parameters
from tests.page_commands import blocks

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
PRESET = "photos"


def commands() -> list[list[str]]:
    """The words of each `tutelage` command in the page's blocks, without what the shell does with its output."""
    lines = "\n".join(block.commands for block in blocks(PAGE)).splitlines()
    found = [re.search(r"tutelage ([a-z].*?)(?: [|>].*|\))?$", line) for line in lines if ".tutelage" not in line]
    return [shlex.split(match[1]) for match in found if match]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_page_exists_with_its_options(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    context = command.make_context("tutelage", words, resilient_parsing=True)
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(
            name, list(words), parent=context, resilient_parsing=hasattr(command, "commands")
        )
    assert context.command is command


@pytest.mark.parametrize("words", [one for one in commands() if one[0] in ("run", "config")], ids=" ".join)
def test_the_preset_and_the_settings_of_a_command_are_valid(words: list[str]) -> None:
    options = dict(zip(words[2::2], words[3::2], strict=False))
    settings = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    if "--config" not in options:
        shell_parameters(find_flow(words[1]), options["--preset"], None, settings)


def test_the_settings_in_its_sentences_are_valid() -> None:
    settings = re.findall(r"--set ([a-z_.]+=\w+)", PAGE.read_text())
    assert len(settings) > 6
    shell_parameters(find_flow("lifecycle"), PRESET, None, settings)


def test_its_request_is_of_a_picture_that_exists_and_is_that_of_the_page_on_serving() -> None:
    serving = (ROOT / "docs" / "serving.md").read_text()
    (block,) = [block for block in blocks(PAGE) if "models serve" in block.commands]
    for line in block.commands.splitlines():
        if not line.startswith(("export", "printf")):
            assert line in serving
