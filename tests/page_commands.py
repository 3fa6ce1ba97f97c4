"""Runs the commands of a page for people in one shell, and compares what they print with what the page shows.

A block ```bash holds commands; a block ```text right after it holds what they print. All blocks run in order in one
bash, which stops at the first that fails. In an output, numbers and keys of artifacts are masked, `...` stands for
anything, and a line that is only `...` for any lines; lines that the page leaves out at the start or the end may be
printed too.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCKS = re.compile(r"^```bash\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?", flags=re.MULTILINE | re.DOTALL)
_KEYS = re.compile(r"\b[0-9a-f]{10,20}\b")
_NUMBERS = re.compile(r"\d+(?:[.,:]\d+)*")
_RUN = """
set -e
{{
{commands}
}} > {output} 2>&1
echo done >> {output}.done
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Commands, and what the page shows of their output; "" if it shows nothing."""

    commands: str
    shown: str


def blocks(page: Path) -> list[Block]:
    return [Block(commands, shown or "") for commands, shown in _BLOCKS.findall(page.read_text())]


def run_blocks(
    found: Sequence[Block],
    folder: Path,
    *,
    env: Mapping[str, str],
    within_s: float,
    replaced: Mapping[str, str] | None = None,
) -> list[str]:
    """Runs the commands of blocks in a folder, in one shell; returns what each block printed.

    Args:
        replaced: texts of the page -> texts to run instead, e.g. a port that is free.
    Raises:
        AssertionError: a command failed, or printed something else than the page shows.
    """
    assert found, "no commands"
    outputs = [folder / f"block-{number}.out" for number in range(len(found))]
    script = "".join(
        _RUN.format(commands=block.commands, output=output.name) for block, output in zip(found, outputs, strict=True)
    )
    for old, new in (replaced or {}).items():
        script = script.replace(old, new)
    # A group of its own: a page may leave a server running.
    shell = subprocess.Popen(["bash", "-c", script], cwd=folder, env=dict(env), start_new_session=True)
    try:
        shell.wait(timeout=within_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(timeout=30)
    printed = [output.read_text() if output.exists() else "" for output in outputs]
    for block, output, text in zip(found, outputs, printed, strict=True):
        assert output.with_name(f"{output.name}.done").exists(), f"failed:\n{block.commands}\n{text[-3000:]}"
        assert shows(block.shown, text), f"the page shows\n{block.shown}\nbut\n{block.commands}\nprints\n{text}"
    return printed


def shows(shown: str, printed: str) -> bool:
    """Whether `printed` contains what a page shows of it."""
    lines = [line for line in map(_masked, printed.splitlines()) if line]
    at = 0
    free = True  # whether lines may be left out here
    for line in filter(None, map(str.strip, shown.splitlines())):
        if line == "...":
            free = True
            continue
        pattern = re.compile(".*".join(re.escape(_masked(part)) for part in line.split("...")))
        candidates = range(at, len(lines)) if free else range(at, min(at + 1, len(lines)))
        match = next((number for number in candidates if pattern.fullmatch(lines[number])), None)
        if match is None:
            return False
        at, free = match + 1, False
    return True


def _masked(line: str) -> str:
    return " ".join(_NUMBERS.sub("0", _KEYS.sub("KEY", line)).split())
