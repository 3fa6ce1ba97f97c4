"""`tutelage data lint`: errors in shards, found before a reader fails on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.data_targets import named_artifact, named_tars
from flows.cli.progress_line import progress_line
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.printable import printable
from pipeline.sharding.inspection.lint.findings import CODES, Finding, Findings
from pipeline.sharding.inspection.lint.lint import Totals
from pipeline.sharding.inspection.lint.lint import lint as check
from pipeline.sharding.inspection.lint.target import artifact_target

_MAX_CHARS = 240
_STYLES = {"error": "bold red", "warning": "yellow"}


def lint(what: Sequence[str], *, deep: bool, limit: int, as_json: bool) -> int:
    """Checks artifacts and tars; returns 1 if there are errors.

    Raises:
        InputError: no argument was given, or one that does not exist.
    """
    if not what:
        raise InputError("data lint: nothing to check; name STAGE/KEY of a shards artifact, tars or a folder of them")
    findings = Findings(limit)
    artifacts = {name: named_artifact(name) for name in what}
    tars = [name for name, artifact in artifacts.items() if artifact is None]
    targets = [named_tars(tars)] if tars else []
    for artifact in artifacts.values():
        if artifact is not None:
            findings.artifact = artifact.name if len(artifacts) > 1 else ""
            targets.append(artifact_target(artifact, findings))
    with progress_line("data lint") as progress:
        totals = check(targets, findings, deep=deep, progress=progress)
    errors = findings.number("error")
    if as_json:
        print(json.dumps(_as_json(what, findings, totals, deep), indent=1))
    else:
        _print(findings, totals, deep)
    return 1 if errors else 0


def list_codes(*, as_json: bool = False) -> int:
    """Prints every code with its severity and description."""
    if as_json:
        rows = [{"code": code.name, "severity": code.severity, "means": code.doc} for _, code in sorted(CODES.items())]
        print(json.dumps(rows, indent=1))
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("code", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("what it means", overflow="fold")
    for _, code in sorted(CODES.items()):
        table.add_row(code.name, Text(code.severity, _STYLES[code.severity]), code.doc)
    Console().print(table)
    return 0


def _as_json(what: Sequence[str], findings: Findings, totals: Totals, deep: bool) -> dict[str, Any]:
    groups = list(findings.by_code())
    return {
        "what": list(what),
        "deep": deep,
        "shards": totals.shards,
        "samples": totals.samples,
        "members": totals.members,
        "bytes": totals.bytes,
        "errors": findings.number("error"),
        "warnings": findings.number("warning"),
        "counts": {code.name: count for code, count, _ in groups},
        "findings": [finding.as_json() for _, _, shown in groups for finding in shown],
    }


def _print(findings: Findings, totals: Totals, deep: bool) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for code, count, shown in findings.by_code():
        console.print(Text.assemble((code.severity, _STYLES[code.severity]), "  ", (code.name, "bold"), f"  {count:,}"))
        console.print(Text(f"  {code.doc}", "dim"))
        for finding in shown:
            console.print(_line(finding))
        if count > len(shown):
            console.print(Text(f"  ... and {count - len(shown):,} more; --limit {count} shows all", "dim"))
        console.print()
    errors, warnings = findings.number("error"), findings.number("warning")
    checked = f"{counted(totals.shards, 'shard')}, {counted(totals.samples, 'sample')}, {totals.bytes / 1e6:,.1f} MB"
    result = f"{counted(errors, 'error')}, {counted(warnings, 'warning')}" if errors or warnings else "nothing found"
    how = "" if deep else " (headers only)"
    style = _STYLES["error"] if errors else _STYLES["warning"] if warnings else "green"
    console.print(Text.assemble(f"{checked}{how}: ", (result, style)))


def _line(finding: Finding) -> Text:
    described = finding.as_json()
    location = [(str(described["shard"]), "cyan")]
    if finding.byte is not None:
        location.append((f" @{finding.byte}", "cyan"))
    member = described["member"] or described["key"]
    return Text.assemble(
        "  ",
        *location,
        f"  {printable(member, _MAX_CHARS)}" if member else "",
        f": {printable(described['says'], _MAX_CHARS)}",
    )
