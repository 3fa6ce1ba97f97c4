"""`tutelage doctor`: prints the checks of this machine, and how to fix each problem."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.doctor import examine

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


def show(*, as_json: bool) -> int:
    """Prints every check; returns 1 if any failed."""
    checks = examine()
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for check in checks:
            mark, style = _MARKS[check.status]
            table.add_row(Text(mark, style), check.name, check.found)
            if check.fix:
                table.add_row("", "", Text(check.fix, style))
        Console().print(table)
    return 1 if any(check.status == "fail" for check in checks) else 0
