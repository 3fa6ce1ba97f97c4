"""The outcome of a run, as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from flows.cli.console import Console
from flows.cli.plan_record import plan_note
from flows.cli.terminal import stage_table
from flows.run_board import RunBoard, StageRow
from flows.stage_line import clock
from pipeline.artifacts import ArtifactStore
from pipeline.counted import counted
from pipeline.service_url import without_credentials
from pipeline.sharding.sources.skipped_files import SkippedFiles

if TYPE_CHECKING:
    from flows.stage_run import RunSummary

_MAX_NAMES = 5


@dataclass(frozen=True)
class Outcome:
    """A run that has ended, successfully or not.

    Attributes:
        flow_run: id of the Prefect flow run; None if it did not start.
        rows: its stages as the board shows them.
        artifacts: label of a stage -> STAGE/KEY.
        report: path of the HTML report; None if there is none.
        models: summaries of the registrations: registered name, version, decision, lookup line.
        data: the notes and the skipped files of each stage that has any.
    """

    flow: str
    flow_run: str | None
    store: str
    seconds: float
    log: Path
    rows: tuple[StageRow, ...]
    artifacts: Mapping[str, str]
    report: Path | None
    models: tuple[Mapping[str, Any], ...]
    data: tuple[Mapping[str, Any], ...] = ()

    def plain(self, error: BaseException | None) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {
            "flow": self.flow,
            "flow_run": self.flow_run,
            "ok": error is None,
            "nothing_new": any(row.state == "nothing new" for row in self.rows)
            and all(row.state in ("cached", "nothing new") for row in self.rows),
            "error": None if error is None else without_credentials(str(error)) or type(error).__name__,
            "seconds": round(self.seconds, 1),
            "store": self.store,
            "log": str(self.log),
            "report": None if self.report is None else str(self.report),
            "stages": [
                {
                    "stage": row.label,
                    "state": row.state,
                    "seconds": None if row.seconds is None else round(row.seconds, 1),
                    "headline": row.headline,
                    "artifact": self.artifacts.get(row.label),
                }
                for row in self.rows
            ],
            "models": [dict(model) for model in self.models],
            "data": [dict(source) for source in self.data],
        }


def outcome_of(
    flow: str, store: ArtifactStore, board: RunBoard, summary: RunSummary | None, seconds: float, log: Path
) -> Outcome:
    """Collects the outcome; `summary` is None if the run failed."""
    results = summary.results if summary is not None else ()
    report = None
    for result in results:
        if result.reference.startswith("run-report/"):
            report = result.artifact(store).path("report.html")
    models = [result.summary for result in results if result.reference.startswith("register-model/")]
    data = [noted for result in results if (noted := _source_notes(result.label, result.summary, cached=result.cached))]
    data += [
        {"stage": result.label, "notes": [note]} for result in results if (note := plan_note(store, result)) is not None
    ]
    data += [{"stage": label, "notes": [note]} for label, note in board.notes.items()]
    artifacts = {result.label: result.reference for result in results}
    return Outcome(
        flow=flow,
        flow_run=board.flow_run_id,
        store=store.storage.url,
        seconds=seconds,
        log=log,
        rows=tuple(board.rows()),
        artifacts=artifacts,
        report=report,
        models=tuple(models),
        data=tuple(data),
    )


def _source_notes(label: str, summary: Mapping[str, Any], *, cached: bool) -> dict[str, Any]:
    """Notes of a stage, e.g. about its source, and skipped files; {} if there are none."""
    notes = {name: summary[name] for name in ("notes", "passed_over") if summary.get(name)}
    if summary.get("bottleneck") and not cached:
        notes["notes"] = [*notes.get("notes", ()), summary["bottleneck"]]
    return {"stage": label, **notes} if notes else {}


def print_outcome(outcome: Outcome, console: Console, *, ok: bool) -> None:
    """Prints the table of stages, the shards, the path of the report, and code that loads the models."""
    if not outcome.rows:
        return
    console.print()
    console.print(stage_table(list(outcome.rows)))
    console.print()
    cached = sum(row.state in ("cached", "nothing new") for row in outcome.rows)
    total = len(outcome.rows)
    words = "every stage was cached" if cached == total else f"{cached} of {counted(total, 'stage')} cached"
    if cached == total and any(row.state == "nothing new" for row in outcome.rows):
        words = "nothing new"
    verdict = ("done", "bold green") if ok else ("not done", "bold red")
    console.print(Text.assemble(verdict, f" in {clock(outcome.seconds)}, {words}"))
    for source in outcome.data:
        for line in _data_lines(source):
            console.print(Text(line), soft_wrap=True)
    # The argument of `tutelage data ...`; a mixture has several.
    shards = " ".join(name for name in outcome.artifacts.values() if name.startswith("shard-dataset/"))
    lines = {"data": shards, "report": outcome.report, "store": outcome.store, "log": outcome.log}
    for name, location in lines.items():
        if location:
            console.print(Text.assemble((f"{name:<7}", "dim"), str(location)), soft_wrap=True)
    for model in outcome.models:
        if model.get("against_teacher"):
            console.print(Text(f"{model['name']}: {model['against_teacher']}"), soft_wrap=True)
    if outcome.models:
        console.print()
        console.print(Text("to look the models up, in any Python that has mlflow and torch:", "dim"))
        addresses = sorted({str(model["tracking_uri"]) for model in outcome.models if model.get("tracking_uri")})
        code = ["import mlflow", *(f'mlflow.set_tracking_uri("{address}")' for address in addresses)]
        # A champion that was replaced in this run has the same line as its successor.
        code += dict.fromkeys(str(model["lookup"]) for model in outcome.models)
        for line in code:
            console.print(Text(f"    {line}", "cyan"), soft_wrap=True)


def _data_lines(data: Mapping[str, Any]) -> list[str]:
    lines = [f"{data['stage']}: {note}" for note in data.get("notes", ())]
    if "passed_over" in data:
        skipped = SkippedFiles.of_json(data["passed_over"])
        first = ", ".join(skipped.names[:_MAX_NAMES])
        more = ", ..." if skipped.count > _MAX_NAMES else ""
        lines.append(f"{data['stage']}: skipped {skipped.in_words()} ({first}{more})")
        if skipped.unread_photos:
            lines.append(f"{data['stage']}: {skipped.unread_photos}")
    return lines
