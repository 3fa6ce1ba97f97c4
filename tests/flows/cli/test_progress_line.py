"""Progress that is not on a terminal: plain lines of what there is to say."""

from __future__ import annotations

import pytest

from flows.cli import progress_line as module
from flows.cli.progress_line import progress_line


def test_a_plain_line_has_only_what_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_PLAIN_EVERY_S", 0.0)
    with progress_line("plan") as progress:
        progress(step=1, total=20)
        progress(note="starting 1 worker")
        progress(step=10, total=20, note="reading")
    assert capsys.readouterr().err.splitlines() == ["plan: 5%", "plan: starting 1 worker", "plan: reading, 50%"]
