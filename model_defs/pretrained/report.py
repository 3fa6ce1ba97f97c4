"""A readable report on how each tensor was used when weights were loaded, with reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class KeyNote:
    """The name of a tensor, and why it was not loaded unchanged."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoadingReport:
    """Every tensor of the model and of the weights is counted in `loaded` or named in one of the lists.

    Attributes:
        source: the origin of the weights.
        format: the library of their names, e.g. "torchvision ViT".
        loaded: the number of tensors that were loaded unchanged.
        adapted: in the model; loaded in another shape, or derived from another tensor.
        replaced: in both; the model retains its initial values.
        missing: only in the model, which retains its initial values.
        dropped: only in the weights, with their original names.
        normalisation: the normalisation of the model's images, and its origin; "" if unknown.
    """

    source: str
    format: str
    loaded: int
    adapted: tuple[KeyNote, ...] = field(default=())
    replaced: tuple[KeyNote, ...] = field(default=())
    missing: tuple[KeyNote, ...] = field(default=())
    dropped: tuple[KeyNote, ...] = field(default=())
    normalisation: str = ""

    def with_replaced(self, names: Sequence[str], reason: str) -> LoadingReport:
        """The report after tensors of the model were replaced by others, for a reason."""
        lists = (self.adapted, self.replaced, self.missing)
        noted = {note.name for notes in lists for note in notes}
        adapted, replaced, missing = (tuple(note for note in notes if note.name not in names) for notes in lists)
        return replace(
            self,
            loaded=self.loaded - sum(name not in noted for name in names),
            adapted=adapted + tuple(KeyNote(name, reason) for name in names),
            replaced=replaced,
            missing=missing,
        )

    def lines(self) -> list[str]:
        """One line for the totals, then one line per reason with its names."""
        lines = [f"{self.source} ({self.format}): {self.loaded} tensors loaded"]
        for word in ("adapted", "replaced", "missing", "dropped"):
            names_of: dict[str, list[str]] = {}
            for note in getattr(self, word):
                names_of.setdefault(note.reason, []).append(note.name)
            lines += [f"  {word} {_listed(names)}: {reason}" for reason, names in names_of.items()]
        if self.normalisation:
            lines.append(f"  images normalised by {self.normalisation}")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
