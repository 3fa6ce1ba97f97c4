"""Captions, labels and other members that most samples have; samples without them are reported at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pipeline.sharding.format.tar_layout import BLOCK
from pipeline.sharding.inspection.lint.findings import Finding, Findings, code
from pipeline.sharding.inspection.lint.samples import Sample

CAPTION = code(
    "caption-missing", "warning", "An image without a caption (`.txt` or in the `.json`), where others have one."
)
LABEL = code("label-missing", "warning", "An image without a label (`.cls`, or in its `.json`), where others have one.")
MEMBER = code("member-missing", "warning", "An image without a member that at least half of the images have.")
_CODES = {"caption": CAPTION, "label": LABEL}
_COMPANION_OF = {"txt": "caption", "cls": "label"}
# Number of distinct sets of companions for which example samples are stored.
_MAX_SETS = 256


class Companions:
    """Counts the companions (captions, labels and other members) of images.

    Args:
        max_examples: maximum number of samples stored for each set of companions.
    """

    def __init__(self, max_examples: int) -> None:
        self.images = 0
        self._max_examples = max_examples
        self._with: Counter[str] = Counter()
        self._examples: dict[frozenset[str], list[tuple[int, str, Sample]]] = {}

    def add(self, shard: str, sample: Sample, json_fields: Iterable[str]) -> None:
        """Counts a sample.

        Args:
            json_fields: which of "caption" and "label" its .json has.
        """
        if sample.image is None:
            return
        others = (extension for extension, member in sample.members.items() if member is not sample.image)
        companions = frozenset({*(_COMPANION_OF.get(extension, f".{extension}") for extension in others), *json_fields})
        self._with.update(companions)
        if companions in self._examples or len(self._examples) < _MAX_SETS:
            examples = self._examples.setdefault(companions, [])
            if len(examples) < self._max_examples:
                examples.append((self.images, shard, sample))
        self.images += 1

    def report(self, findings: Findings) -> None:
        """Adds a finding for each missing companion."""
        for companion, number in sorted(self._with.items()):
            missing = self.images - number
            if not missing or (companion not in _CODES and 2 * number < self.images):
                continue
            code = _CODES.get(companion, MEMBER)
            without = [
                example
                for companions, examples in self._examples.items()
                if companion not in companions
                for example in examples
            ]
            shown = sorted(without, key=lambda example: example[0])[: self._max_examples]
            for _, shard, sample in shown:
                image = sample.image
                assert image is not None
                message = f"no {companion}, which {number} of {self.images} images have"
                findings.add(Finding(code, shard, message, sample.key, image.name, image.offset - BLOCK))
            findings.count_without_storing(code, missing - len(shown))
