"""A finding: what is wrong, where, under a code that the documentation explains.

Every code is declared once, beside the check that gives it: `CODES` lists them all, docs/lint.md too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of finding.

    Attributes:
        severity: error: samples are lost, wrong, or end a reader; warning: they are read, though perhaps not as meant.
        doc: what it means and what it does to a reader, in a sentence or two.
    """

    name: str
    severity: Severity
    doc: str


CODES: dict[str, Code] = {}


def code(name: str, severity: Severity, doc: str) -> Code:
    """Declares a code.

    Raises:
        ValueError: there is one of this name.
    """
    if name in CODES:
        raise ValueError(f"code {name} is declared twice")
    CODES[name] = Code(name, severity, doc)
    return CODES[name]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        shard: the tar's name, or a file of the artifact.
        key, member: of the sample; "" where it is no sample's matter.
        byte: where it is in the tar: at a member's header for what headers say, in its data for what those say;
            None where it is no byte's matter.
        says: the sentence, without the place.
    """

    code: Code
    shard: str
    says: str
    key: str = ""
    member: str = ""
    byte: int | None = None

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "severity": self.code.severity,
            "code": self.code.name,
            "shard": _writable(self.shard),
            "key": _writable(self.key),
            "member": _writable(self.member),
            "byte": self.byte,
            "says": _writable(self.says),
        }


class Findings:
    """Findings, of which the first of each code are kept and all are counted.

    Args:
        most: findings of one code that are kept.

    Attributes:
        inside: what the names of shards are put after, where several artifacts are looked at.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside = ""
        self.counts: Counter[str] = Counter()
        self._kept: dict[str, list[Finding]] = {}

    def add(self, finding: Finding) -> None:
        name = finding.code.name
        self.counts[name] += 1
        if self.counts[name] <= self.most:
            if self.inside:
                finding = replace(finding, shard=f"{self.inside}/{finding.shard}")
            self._kept.setdefault(name, []).append(finding)

    def add_uncounted(self, code: Code, number: int) -> None:
        """Counts findings of which nothing but their number is known any more."""
        if number:
            self.counts[code.name] += number

    def of(self, name: str) -> list[Finding]:
        """The kept ones of a code."""
        return self._kept.get(name, [])

    def by_code(self) -> Iterator[tuple[Code, int, list[Finding]]]:
        """Code, number of findings, those that were kept; errors first, by name."""
        for severity in ("error", "warning"):
            for name, declared in sorted(CODES.items()):
                if declared.severity == severity and self.counts[name]:
                    yield declared, self.counts[name], self.of(name)

    def number(self, severity: Severity) -> int:
        return sum(count for name, count in self.counts.items() if CODES[name].severity == severity)


def codes_table() -> list[str]:
    """All codes as the lines of a Markdown table, as docs/lint.md has them."""
    rows = [f"| `{one.name}` | {one.severity} | {one.doc} |" for _, one in sorted(CODES.items())]
    return ["| code | severity | what it means |", "|---|---|---|", *rows]


def _writable(text: str) -> str:
    """A name as text that can be written anywhere; bytes that are no UTF-8 become replacement signs."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
