"""The config of splits: the rule that assigns them, and how classes too small for every split are handled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config import Config, added

RareClassesRule = Literal["refuse", "drop", "train_only"]


class SplitConfig(Config):
    """How samples are assigned to the splits."""

    rule: Literal["group", "image", "given"] = Field(
        "group",
        description="How the split of an image is decided. group: by a hash of its content group, so that a group"
        " is never divided; image: by a hash of the image; given: by the data set, which must name a "
        "split for every image.",
    )
    val_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Fraction (0 to 1) of the content groups in the validation split. Ignored if the source has a"
        " validation split of its own.",
    )
    test_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Fraction (0 to 1) of the content groups in the test split. Ignored if the source has a test "
        "split of its own.",
    )
    holdout_family: str | None = Field(
        None,
        description="Use all images of this family, e.g. of one artist, as the test split, to measure transfer "
        "to an unseen style. null: no such family.",
    )
    seed: int = Field(0, ge=0, description="Random seed of the split. A change assigns other groups to val and test.")
    rare_classes: RareClassesRule = added(
        "refuse",
        description="What to do with a class that has fewer content groups than there are splits. refuse: fail; "
        "drop: remove the class and its images; train_only: put its images into train.",
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> SplitConfig:
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share + test_share is {self.val_share + self.test_share:g}: nothing is left to train on"
            )
        if self.rule == "given" and self.holdout_family is not None:
            raise ValueError("rule=given takes the splits of the data set; remove holdout_family")
        return self
