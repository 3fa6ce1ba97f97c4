"""Progressive resizing: the first epochs of a training use smaller images, which take less time.

Touvron 2019, "Fixing the train-test resolution discrepancy"; Tan 2021, "EfficientNetV2", section 4.

The epochs are those of the training (`training.epochs`), in images. A sampling policy may count others for its
augmentation (`SamplingPolicy.epoch`): those of the label or data set that is repeated soonest, or every step.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSizeSchedule:
    """The side of the images in pixels, as a function of the progress of the training.

    Attributes:
        last: side after the images of `smaller`; of every image if that is empty.
        smaller: sides of the first images, each for `images_a_size` images.
        images_a_size: number of images at each of `smaller`, views of the same sample included.
    """

    last: int
    smaller: tuple[int, ...] = ()
    images_a_size: int = 1

    def __call__(self, images_before: int) -> int:
        """The side of the images of a step that comes after `images_before` images; a step has one side."""
        stage = images_before // self.images_a_size
        return self.smaller[stage] if stage < len(self.smaller) else self.last

    @property
    def largest(self) -> int:
        """The largest side of any step, in pixels."""
        return max((*self.smaller, self.last))
