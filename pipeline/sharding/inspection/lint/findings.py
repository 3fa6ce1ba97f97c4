"""Findings: a problem and its position, with a code that the documentation explains.

Every code is declared once, next to the check that reports it; `CODES` and docs/lint.md list them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.sharding.format.valid_text import valid_text

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of finding.

    Attributes:
        severity: error: samples are lost or wrong, or crash a reader; warning: they are read, perhaps not as intended.
        doc: its meaning and its effect on a reader, in one or two sentences.
    """

    name: str
    severity: Severity
    doc: str


CODES: dict[str, Code] = {}


def code(name: str, severity: Severity, doc: str) -> Code:
    """Declares a code.

    Raises:
        ValueError: the name is already declared.
    """
    if name in CODES:
        raise ValueError(f"code {name} is declared twice")
    CODES[name] = Code(name, severity, doc)
    return CODES[name]


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    Attributes:
        shard: the tar's name, or a file of the artifact.
        message: the problem, without its position.
        key, member: key of the sample and name of the member that has the problem; "" if none has.
        byte: offset of the problem in the tar: that of a header, or of a byte in a member's data; None if it has none.
    """

    code: Code
    shard: str
    message: str
    key: str = ""
    member: str = ""
    byte: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {
            "severity": self.code.severity,
            "code": self.code.name,
            "shard": valid_text(self.shard),
            "key": valid_text(self.key),
            "member": valid_text(self.member),
            "byte": self.byte,
            "says": valid_text(self.message),
        }


class Findings:
    """Collects findings: all are counted, and the first ones of each code are stored.

    Args:
        max_stored: maximum number of findings stored for each code.

    Attributes:
        artifact: STAGE/KEY that is put before the names of shards, if several artifacts are checked; else "".
        counts: code name -> number of findings.
    """

    def __init__(self, max_stored: int) -> None:
        self.max_stored = max_stored
        self.artifact = ""
        self.counts: Counter[str] = Counter()
        self._stored: dict[str, list[Finding]] = {}

    def add(self, finding: Finding) -> None:
        name = finding.code.name
        self.counts[name] += 1
        if self.counts[name] <= self.max_stored:
            if self.artifact:
                finding = replace(finding, shard=f"{self.artifact}/{finding.shard}")
            self._stored.setdefault(name, []).append(finding)

    def count_without_storing(self, code: Code, number: int) -> None:
        """Adds to the count of a code without storing findings."""
        if number:
            self.counts[code.name] += number

    def of(self, name: str) -> list[Finding]:
        """The stored findings of a code."""
        return self._stored.get(name, [])

    def by_code(self) -> Iterator[tuple[Code, int, list[Finding]]]:
        """Code, number of findings, and the stored findings; errors first, sorted by name."""
        for severity in ("error", "warning"):
            for name, declared in sorted(CODES.items()):
                if declared.severity == severity and self.counts[name]:
                    yield declared, self.counts[name], self.of(name)

    def number(self, severity: Severity) -> int:
        return sum(count for name, count in self.counts.items() if CODES[name].severity == severity)
