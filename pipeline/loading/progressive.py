"""Progressive resolution: early epochs see smaller images, which cost a share of the time.

Touvron 2019, "Fixing the train-test resolution discrepancy"; Tan 2021, "EfficientNetV2", section 4.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SizeOfEpoch:
    """The side of the images in pixels, as a function of the epoch.

    Attributes:
        last: the size after the smaller ones.
        smaller: sizes to begin with, each for `epochs` epochs.
    """

    last: int
    smaller: tuple[int, ...] = ()
    epochs: int = 1

    def __call__(self, epoch: int) -> int:
        stage = epoch // self.epochs
        return self.smaller[stage] if stage < len(self.smaller) else self.last

    @property
    def largest(self) -> int:
        """The largest side of any epoch, in pixels."""
        return max((*self.smaller, self.last))
