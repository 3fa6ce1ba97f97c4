"""The config of splits: the rule that assigns them, and how classes too small for every split are handled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config import Config, added

RareClassesRule = Literal["refuse", "drop", "train_only"]


class SplitConfig(Config):
    """The fraction of the content groups that is held out, or the artist family."""

    rule: Literal["group", "image", "given"] = Field(
        "group",
        description="What decides: group: a hash of the content group; image: a hash of each image, whatever its "
        "group; given: the data set itself, for every image.",
    )
    val_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the content groups for validation; unused where the val split is given."
    )
    test_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the content groups for test; unused where the test split is given."
    )
    holdout_family: str | None = Field(None, description="This artist family, whole, is the test split.")
    seed: int = Field(0, ge=0, description="Another seed holds out other groups.")
    rare_classes: RareClassesRule = added(
        "refuse",
        description="A class with fewer content groups than splits: refuse the data set, drop the class with its "
        "images, or put all of its images that are drawn into train.",
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
