"""`tutelage compare`: two models on the same samples, as text, JSON or a page."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.progress_line import progress_line
from flows.preflight import open_store
from pipeline.atomic_files import atomic_write
from pipeline.counted import counted
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.artifacts import ArtifactStore
    from pipeline.report.config_differences import ConfigDifference
    from pipeline.report.paired_evaluations import Comparison, DifferingSample

_CONFIGS, _PICTURES = 15, 5  # printed; JSON and the page have more
_GROUPS = {"only_b": "only B is right", "only_a": "only A is right", "both_wrong": "both wrong, differently"}


@dataclass(frozen=True)
class _Findings:
    """What the command shows of two models.

    Attributes:
        arguments: A and B as the user named them.
        costs: of A and B, from `image_cost`; None: not known.
        names: the source's names of the images in `differing`, by id.
    """

    comparison: Comparison
    arguments: tuple[str, str]
    configs: Sequence[ConfigDifference]
    costs: tuple[dict[str, float], dict[str, float]] | None
    differing: Sequence[DifferingSample]
    names: Mapping[int, str]


def compare(a: str, b: str, *, out: Path | None, as_json: bool) -> int:
    """Prints measures side by side, the paired test, the settings that differ and the images on which they differ.

    Args:
        a, b: see `evaluations_of`.
        out: path of an HTML page to write.
    Raises:
        InputError: an argument names nothing, a model has no evaluation on the data of the other, they have no sample
            in common, or the page cannot be written.
    """
    if out is not None and (out.suffix.lower() not in (".html", ".htm") or not out.parent.is_dir() or out.is_dir()):
        raise InputError(f"--out {out}: name an .html file in a folder that exists")
    store = open_store()
    from flows.cli.compared import evaluations_of

    with progress_line("compare") as progress:
        progress(note="reading the evaluations")
        evaluations = evaluations_of(a, b, store)
        from pipeline.report.config_differences import config_differences
        from pipeline.report.evaluation_results import EvaluationResults
        from pipeline.report.paired_evaluations import Comparison

        comparison = Comparison.of(*map(EvaluationResults.read, evaluations))
        configs = config_differences(comparison.a.model, comparison.b.model, store)
        progress(note="measuring sizes")
        costs = _costs(comparison, store)
        differing = comparison.differing()
        names = comparison.a.names(sample.id for sample in differing)
        findings = _Findings(comparison, (a, b), configs, costs, differing, names)
        if out is not None:
            from pipeline.report.comparison_page import comparison_page

            progress(note="drawing the page")
            _write(out, comparison_page(comparison, (a, b), configs, costs))
    if as_json:
        print(json.dumps(_plain(findings), indent=1))
    else:
        _print(findings)
    if out is not None:
        print(out, file=sys.stderr if as_json else sys.stdout)
    return 0


def _write(out: Path, page: str) -> None:
    try:
        with atomic_write(out, durable=False) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror}); name another file") from None


def _costs(comparison: Comparison, store: ArtifactStore) -> tuple[dict[str, float], dict[str, float]] | None:
    """Size and latency of both models: as registered if both were, else measured now, both on this machine.

    None if a model is no longer in the store.
    """
    from flows.cli.compared import cost_of

    registered = cost_of(comparison.a.model, store), cost_of(comparison.b.model, store)
    if registered[0] is not None and registered[1] is not None:
        return registered[0], registered[1]
    artifacts = store.find(comparison.a.model), store.find(comparison.b.model)
    if artifacts[0] is None or artifacts[1] is None:
        return None
    from pipeline.exported_model import ExportedModel
    from pipeline.registration.cost import image_cost

    return image_cost(ExportedModel.open(artifacts[0])), image_cost(ExportedModel.open(artifacts[1]))


def _plain(findings: _Findings) -> dict[str, Any]:
    """All findings as JSON values."""
    comparison, costs = findings.comparison, findings.costs
    tests = {"accuracy": comparison.accuracy_test, "retrieval": comparison.score_test}
    return {
        **{
            name: {
                "argument": argument,
                "model": evaluation.model,
                "evaluation": evaluation.artifact.name,
                "data": evaluation.shards.name,
                "split": evaluation.split,
                "images": len(evaluation.columns["id"]),
                "cost": None if costs is None else costs[side],
            }
            for side, (name, argument, evaluation) in enumerate(
                zip("ab", findings.arguments, (comparison.a, comparison.b), strict=True)
            )
        },
        "common_images": comparison.samples,
        "sentences": comparison.sentences(),
        "tests": {name: asdict(test) for name, test in tests.items() if test is not None},
        "measures": [{**asdict(measure), "difference": measure.difference} for measure in comparison.measures()],
        "configs": [asdict(setting) for setting in findings.configs],
        "differing": [{"image": findings.names[sample.id], **asdict(sample)} for sample in findings.differing],
    }


def _print(findings: _Findings) -> None:
    from pipeline.report.comparison_rows import NO_INTERVAL, NO_INTERVAL_NOTE, data_sentence, measure_rows

    comparison, console = findings.comparison, Console()
    for letter, argument, evaluation in zip("AB", findings.arguments, (comparison.a, comparison.b), strict=True):
        model = "" if argument == evaluation.model else f"  {evaluation.model}"
        console.print(
            Text.assemble((f"{letter}  ", "bold"), argument, (f"{model}, {evaluation.artifact.name}", "dim")),
            soft_wrap=True,
        )
    console.print(Text(data_sentence(comparison), "dim"), soft_wrap=True)
    console.print()
    for sentence in comparison.sentences():
        console.print(Text(f"{sentence}.", "bold"), soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for heading in ("A", "B", "B - A"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = measure_rows(comparison, findings.costs)
    for row in rows:
        a, b = (
            f"{value} ({interval})" if interval else value
            for value, interval in ((row.a, row.a_interval), (row.b, row.b_interval))
        )
        table.add_row(row.name, a, b, row.difference)
    console.print(table)
    if any(NO_INTERVAL in (row.a_interval, row.b_interval) for row in rows):
        console.print(Text(NO_INTERVAL_NOTE, "dim"), soft_wrap=True)
    if findings.configs:
        console.print()
        _print_configs(findings.configs, console)
    if findings.differing:
        console.print()
        _print_differing(findings.differing, findings.names, console)


def _print_configs(configs: Sequence[ConfigDifference], console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("settings that differ", no_wrap=True)
    for heading in ("A", "B"):
        table.add_column(heading, overflow="fold")
    for setting in configs[:_CONFIGS]:
        table.add_row(setting.key, setting.a, setting.b)
    console.print(table)
    if len(configs) > _CONFIGS:
        more = f"{counted(len(configs) - _CONFIGS, 'more setting')}: --json, or --out PAGE.html"
        console.print(Text(more, "dim"), soft_wrap=True)


def _print_differing(differing: Sequence[DifferingSample], names: Mapping[int, str], console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("images on which they differ", overflow="fold")
    for heading in ("true", "A", "B"):
        table.add_column(heading, overflow="fold")
    for group, words in _GROUPS.items():
        members = [sample for sample in differing if sample.group == group]
        if not members:
            continue
        table.add_row(Text(f"{words}: {counted(len(members), 'image')}", "bold"))
        for sample in members[:_PICTURES]:
            answers = (f"{sample.a} ({sample.a_score:.0%})", f"{sample.b} ({sample.b_score:.0%})")
            table.add_row(Text(f"  {names[sample.id]}"), Text(sample.label), *map(Text, answers))
    console.print(table)
