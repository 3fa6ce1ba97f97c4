"""The config of the stage build-ontology."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Config
from pipeline.sharding.format.column_options import KeepRanges, captions_from_field, keep_field


class OntologyConfig(Config):
    """Which concepts are retained, and which pairs are held out to measure their accuracy."""

    min_count: int = Field(
        16,
        ge=2,
        description="Minimum number of distinct training images below a concept. Smaller concepts are "
        "removed, and their pairs assigned to the parent.",
    )
    pairs_per_node: int = Field(
        8,
        ge=1,
        le=65536,
        description="Number of pairs that a batch takes from a concept. A concept with fewer than twice as many "
        "distinct training images is removed, and its pairs assigned to the parent.",
    )
    use_validation_split: bool = Field(
        True, description="Measure the accuracy of concepts on pairs of the validation split."
    )
    held_out_share: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Fraction (0 to 1) of the training images that is held out to measure the accuracy of concepts.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Random seed of the choice of held-out images.")
    captions_from: str | None = captions_from_field()
    keep: KeepRanges = keep_field()

    @property
    def needed(self) -> int:
        """Minimum number of distinct contents below a retained concept."""
        return max(self.min_count, 2 * self.pairs_per_node)
