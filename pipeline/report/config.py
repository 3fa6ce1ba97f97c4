"""The configuration of a report, apart from stage.py, so that a command reads it without what draws pages."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Config, renamed


class ReportConfig(Config):
    """The heading of the report, and how much it shows."""

    heading: str = renamed(
        "Tutelage run", was="title", min_length=1, max_length=200, description="Heading of the report."
    )
    mistakes: int = Field(24, ge=0, le=200, description="Maximum number of worst mistakes shown per model.")
    explanations: int = Field(
        9, ge=0, le=60, description="Maximum number of images for which the classifiers' predictions are explained."
    )
    queries: int = Field(
        10,
        ge=0,
        le=100,
        description="Maximum number of retrieval queries shown per direction (text to image, image to text).",
    )
