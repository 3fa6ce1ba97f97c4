"""RunReport: the artifacts of a run -> report.html and report.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline.artifacts import Artifact
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.report.comparisons import baseline_notes
from pipeline.report.config import ReportConfig
from pipeline.report.run_data import read_run
from pipeline.report.summary import report_markdown
from pipeline.stage import Workspace


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
