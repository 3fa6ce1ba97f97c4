"""docs/operations.md: its commands, settings and the unit of systemd are valid.

tests/infra/local/test_up.py makes and restores its backup.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli.app import app
from infra.local.servers import prefect_server

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
COMMANDS = sorted(set(re.findall(r"`tutelage ([a-z][^`]*)`", PAGE)))


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_the_page_exists(words: str) -> None:
    arguments = shlex.split(words)
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and arguments:
        name, *arguments = arguments
        assert name in command.commands, words
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


def test_the_setting_for_ones_own_prefect_server_is_that_of_up(tmp_path: Path) -> None:
    (setting,) = re.findall(r"`(PREFECT_SERVER_\w+)=(\S+)`", PAGE)
    assert prefect_server(tmp_path, 1).env[setting[0]] == setting[1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    (unit,) = re.findall(r"```ini\n(.*?)```", PAGE, flags=re.DOTALL)
    file = tmp_path / "tutelage.service"
    # SIGTERM to all processes of the unit would end the store before a training has written its checkpoint.
    assert "KillMode=mixed\n" in unit
    # The program of the unit must exist for this check.
    file.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit).replace("%h/tutelage", str(tmp_path)))
    checked = subprocess.run(
        ["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
