"""RunReport: the artifacts of a run -> report.html and report.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from pipeline.artifacts import Artifact
from pipeline.config import Config, renamed
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.report.comparisons import baseline_notes
from pipeline.report.run_data import read_run
from pipeline.report.summary import report_markdown
from pipeline.stage import Workspace


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


class RunReport:
    """Builds the report from artifacts; models run on only a few pictures, so a report takes seconds."""

    name: ClassVar[str] = "run-report"
    version: ClassVar[int] = 5

    def run(self, config: ReportConfig, inputs: Mapping[str, Artifact], work: Workspace) -> Mapping[str, Any]:
        """Writes report.html and report.md.

        Args:
            inputs: any of shards, leaks, baseline, teacher, student, ontology, clip, baseline-evaluation,
                teacher-evaluation, student-evaluation, clip-evaluation, classifier-registration, clip-registration;
                others appear only in the list of stages.
        """
        # Imports matplotlib: half a second that only a report should spend.
        from pipeline.report.page import page

        if not inputs:
            raise InputError("run-report: no artifact to report on")
        work.progress(note="writing the report")
        run = read_run(inputs)
        text = page(
            run,
            title=config.heading,
            mistakes=config.mistakes,
            explanations=config.explanations,
            queries=config.queries,
        )
        (work.output / "report.html").write_text(text, encoding="utf-8")
        (work.output / "report.md").write_text(report_markdown(inputs, config.heading), encoding="utf-8")
        kilobytes = round(len(text.encode()) / 1000)
        words = f"{kilobytes:,} kB over {counted(len(inputs), 'artifact')}"
        summary = {"artifacts": len(inputs), "kilobytes": kilobytes, "headline": words}
        notes = baseline_notes(run)
        return {**summary, "notes": notes} if notes else summary
