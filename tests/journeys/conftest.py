"""One complete lifecycle, run once from the shell, whose results the journeys check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TUTELAGE = Path(sys.executable).with_name("tutelage")


@dataclass(frozen=True)
class Shell:
    """A folder, a store and an environment for running commands as a user would.

    TUTELAGE_TEST_PACKS may name a folder of downloaded emoji packs, for machines without a registry.
    """

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "TUTELAGE_STORE": str(self.store), "PYTHONUNBUFFERED": "1"}

    def command(self, *arguments: str) -> list[str]:
        packs = os.environ.get("TUTELAGE_TEST_PACKS")
        from_packs = ["--set", f"data.source.packs={packs}"] if packs and arguments[0] == "run" else []
        return [str(TUTELAGE), *arguments, *from_packs]

    def run(self, *arguments: str, within_s: float = 580, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env={**self.env, **env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def processes(self) -> list[str]:
        """Command lines of the processes that inherited this store, i.e. that a command left running."""
        mark = f"TUTELAGE_STORE={self.store}".encode()
        command_lines = []
        for process in Path("/proc").iterdir():
            if not process.name.isdecimal():
                continue
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    command_lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
            except OSError:
                continue
        return command_lines


@dataclass(frozen=True)
class Journey:
    """A finished `tutelage run --json`: its shell and its output."""

    shell: Shell
    said: dict[str, Any]
    progress: str

    def states(self) -> dict[str, str]:
        return {stage["stage"]: stage["state"] for stage in self.said["stages"]}


@pytest.fixture(scope="session")
def shell(prefect_home: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell with a store that contains only a Prefect database."""
    shell = Shell(tmp_path_factory.mktemp("shell"))
    prefect_home(shell.store / "services" / "prefect")
    return shell


@pytest.fixture(scope="session")
def lifecycle(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """`tutelage run lifecycle --preset emoji-tiny`, run once per session."""
    shell = Shell(tmp_path_factory.mktemp("journey"))
    answer = shell.run("run", "lifecycle", "--preset", "emoji-tiny", "--json")
    assert answer.returncode == 0, answer.stderr
    return Journey(shell, json.loads(answer.stdout), answer.stderr)
