"""Progressive resizing: early epochs use smaller images, which take less time.

Touvron 2019, "Fixing the train-test resolution discrepancy"; Tan 2021, "EfficientNetV2", section 4.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSizeSchedule:
    """The side of the images in pixels, as a function of the epoch.

    Attributes:
        last: side after the epochs of `smaller`; of every epoch if that is empty.
        smaller: sides of the first epochs, each for `epochs` epochs.
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
