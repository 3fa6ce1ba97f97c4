"""A short form of the report: Markdown and table rows, for publishing a run elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.artifacts import Artifact
from pipeline.headline import headline
from pipeline.html.markdown import table, text
from pipeline.report.comparisons import baseline_notes
from pipeline.report.registered_models import champions_of, cost_line, model_name, registered_name, standing
from pipeline.report.results import accuracy_rows
from pipeline.report.run_data import RunData, read_run
from pipeline.report.wording import display_name, duration, percent, short_key


def report_markdown(inputs: Mapping[str, Artifact], title: str = "Tutelage run") -> str:
    """A short Markdown summary of a run: decisions, accuracies with their baselines, retrieval, stages.

    Args:
        inputs: the artifacts by name, as for `RunReport`; any may be absent.
    """
    run = read_run(inputs)
    finished = f"Finished {run.finished}; " if run.finished else ""
    lines = [f"# {text(title)}", "", f"{finished}{duration(run.seconds)} in total.", ""]
    champions = champions_of(run)
    for name, artifact in run.registrations.items():
        summary = artifact.summary
        version = f" version {summary['version']}" if "version" in summary else ""
        reason = f": {text(str(summary['reason']))}" if summary.get("reason") else ""
        role = standing(name, summary, champions)
        model = model_name(run, artifact)
        subject = f", {display_name(model)}" if model is not None else ""
        cost = cost_line(summary)
        lines += [f"**{text(registered_name(name, summary))}{version}{subject}, {role}**{reason}", ""]
        lines += [f"{cost}.", ""] if cost else []
        lines += [f"{text(str(summary['against_teacher']))}.", ""] if summary.get("against_teacher") else []
        if summary.get("lookup") and not role.startswith("replaced"):
            lines += ["```python", str(summary["lookup"]).replace("```", ""), "```", ""]
    lines += _accuracies(run)
    for sentence in baseline_notes(run):
        lines += [text(sentence), ""]
    lines += _retrieval(run)
    rows = stage_rows(inputs)
    if rows:
        lines += _table(list(rows[0]), [list(row.values()) for row in rows])
    return "\n".join(lines).rstrip() + "\n"


def stage_rows(inputs: Mapping[str, Artifact]) -> list[dict[str, str]]:
    """One row per artifact: name, stage, seconds, headline, key."""
    return [
        {
            "artifact": display_name(name),
            "stage": artifact.stage,
            "seconds": duration(artifact.seconds),
            "headline": headline(artifact.summary),
            "key": short_key(artifact),
        }
        for name, artifact in read_run(inputs).artifacts.items()
    ]


def _accuracies(run: RunData) -> list[str]:
    rows = []
    for evaluation in run.evaluations:
        metrics = evaluation.metrics
        for subset, prefix, suffix in accuracy_rows(evaluation):
            low, high = metrics[f"{prefix}/top1_low{suffix}"], metrics[f"{prefix}/top1_high{suffix}"]
            rows.append(
                [
                    display_name(evaluation.subject),
                    subset,
                    percent(metrics[f"{prefix}/top1{suffix}"]),
                    f"{low:.1%} – {high:.1%}",
                    percent(metrics[f"{prefix}/chance{suffix}"]),
                    percent(metrics[majority]) if (majority := f"{prefix}/majority{suffix}") in metrics else "",
                    f"{metrics[f'{prefix}/samples{suffix}']:,.0f}",
                ]
            )
    head = ["model", "measured on", "accuracy", "95% interval", "chance", "majority", "images"]
    return _table(head, rows) if rows else []


def _retrieval(run: RunData) -> list[str]:
    rows = []
    for evaluation in run.evaluations:
        metrics = evaluation.metrics
        for pool, pool_name in (
            ("retrieval", "all concepts" if run.has_concepts else "all images"),
            ("retrieval_unseen_concepts", "unseen concepts"),
        ):
            for direction, direction_name in (("image_retrieval", "text → image"), ("text_retrieval", "image → text")):
                start = f"{pool}/{direction}_recall@"
                for name in sorted(
                    (name for name in metrics if name.startswith(start)), key=lambda name: int(name.rpartition("@")[2])
                ):
                    chance = metrics[name.replace("_recall@", "_chance@")]
                    k = name.rpartition("@")[2]
                    rows.append([direction_name, pool_name, f"recall@{k}", percent(metrics[name]), percent(chance)])
    return _table(["retrieval", "among", "measure", "value", "chance"], rows) if rows else []


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [*table(head, rows), ""]
