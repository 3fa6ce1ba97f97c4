"""The configuration of evaluate: the samples and texts on which a model is evaluated."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pipeline.config import Config, added, renamed, unkeyed
from pipeline.evaluation.prompt_templates import check_template
from pipeline.sharding.format.column_options import captions_from_field


class EvaluationConfig(Config):
    """The samples and texts on which a model is evaluated."""

    split: Literal["train", "val", "test", "all"] = Field(
        "test", description="The split to evaluate on. all: every split, e.g. of a data set that is only evaluated on."
    )
    batch_size: int = Field(256, ge=1, le=65_536, description="Images per batch. Changes results by rounding only.")
    templates: tuple[str, ...] = Field(
        (),
        description="Prompt templates for zero-shot classification, each with one {} for the class name, or "
        "{a_label} for the class name with its article. []: those of the exported model.",
    )
    captions: Literal["first", "all"] = Field(
        "first", description="Captions used for retrieval: the first one of each image, or all."
    )
    captions_from: str | None = captions_from_field()
    recall_at: tuple[int, ...] = Field((1, 5, 10), min_length=1, description="Values of k for recall@k in retrieval.")
    kept_examples: int = renamed(
        24,
        was="examples",
        ge=0,
        le=1000,
        description="Maximum number of worst mistakes, and of retrieval queries, that are stored as examples.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Random seed of the choice of retrieval examples.")
    unknown_labels: Literal["refuse", "leave_out"] = added(
        "refuse",
        description="What to do with a label of the data that the classifier does not have. refuse: fail; leave_out: "
        "leave its images out, and state their number.",
    )
    threads: int = unkeyed(2, ge=1, le=256, description="Number of threads that decode images.")

    @field_validator("templates")
    @classmethod
    def _templates_have_a_placeholder(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_template(template) for template in templates)

    @field_validator("recall_at")
    @classmethod
    def _recall_at_positive(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if min(ks) < 1:
            raise ValueError("every k of recall@k must be at least 1")
        return ks
