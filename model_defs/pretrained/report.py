"""What became of each tensor when weights were loaded, with reasons, for people to read."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class KeyNote:
    """The name of a tensor, and why it was not simply taken over."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoadingReport:
    """Every tensor of the model and of the source is counted in `loaded` or named in one of the lists.

    Attributes:
        source: where the weights came from.
        format: whose names they had, e.g. "torchvision ViT".
        loaded: how many tensors were taken over as they are.
        adapted: in the model; taken over in another shape, or made from another tensor.
        replaced: in both; the model keeps its fresh ones.
        missing: in the model only; it keeps its fresh ones.
        dropped: in the source only, by the source's names.
        normalisation: by which the model's images are normalised, and where that comes from; "" if nobody said.
    """

    source: str
    format: str
    loaded: int
    adapted: tuple[KeyNote, ...] = field(default=())
    replaced: tuple[KeyNote, ...] = field(default=())
    missing: tuple[KeyNote, ...] = field(default=())
    dropped: tuple[KeyNote, ...] = field(default=())
    normalisation: str = ""

    def lines(self) -> list[str]:
        """One line for the whole, then one for each reason with the names it holds for."""
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
