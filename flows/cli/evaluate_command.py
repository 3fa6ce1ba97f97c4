"""`tutelage evaluate`: the accuracy of a model on shards, on a folder of images or on a table of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.model_argument import model_artifact
from flows.cli.progress_line import progress_line
from flows.preflight import open_store
from pipeline.counted import counted
from pipeline.errors import InputError, UnknownNameError
from pipeline.machine import default_threads
from pipeline.printable import printable

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact
    from pipeline.report.evaluation_results import EvaluationResults

SPLITS = ("train", "val", "test", "all")
_CLASSES, _MISTAKES, _UNREADABLE = 5, 8, 10  # printed; JSON has all


def evaluate(model_uri: str, data: str, *, split: str | None, leave_out_unknown: bool, as_json: bool) -> int:
    """Evaluates a model and prints its accuracy, its worst classes and its worst mistakes.

    Args:
        data: STAGE/KEY of shards, a folder with one sub-folder per class, or a table with the columns path and label.
        split: None: test of shards, all images of a folder or a table.
        leave_out_unknown: leave out images whose label the model does not have, instead of refusing them.
    Raises:
        InputError: there is no such model, data or split, or the labels are not those of the model.
    """
    if split is not None and split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    store = open_store()
    from flows.cli.evaluation_data import evaluation_data
    from pipeline.evaluation.config import EvaluationConfig
    from pipeline.evaluation.stage import EvaluateModel
    from pipeline.exported_model import ExportedModel
    from pipeline.report.evaluation_results import EvaluationResults
    from pipeline.stage import run_stage

    images = evaluation_data(data, store)
    with progress_line("evaluate") as progress:
        progress(note="loading the model")
        model = model_artifact(model_uri, store)
        if not leave_out_unknown:
            images.check_labels(ExportedModel.open(model), store, data=data, model=model_uri)
        shards = images.shards(store, progress)
        chosen = split or images.default_split
        _check_split(data, shards, chosen)
        config = EvaluationConfig.model_validate(
            {
                "split": chosen,
                "unknown_labels": "leave_out" if leave_out_unknown else "refuse",
                "threads": default_threads(),
            }
        )
        progress(note="evaluating")
        inputs = {"shards": shards, "model": model}
        evaluated = EvaluationResults.read(run_stage(EvaluateModel(), config, inputs, store=store, progress=progress))
    unreadable = _unreadable(shards)
    if as_json:
        print(json.dumps(_plain(evaluated, unreadable), indent=1))
    else:
        _print(model_uri, data, evaluated)
    for row in unreadable[:_UNREADABLE]:
        print(f"tutelage: {printable('{name}: left out, cannot be read ({reason})'.format(**row))}", file=sys.stderr)
    if len(unreadable) > _UNREADABLE:
        more = counted(len(unreadable) - _UNREADABLE, "more image")
        print(f"tutelage: {more} left out, cannot be read; --json names them", file=sys.stderr)
    return 0


def _check_split(data: str, shards: Artifact, split: str) -> None:
    """Refuses a split without images."""
    counts = {name: int(shards.summary[name]) for name in SPLITS if shards.summary.get(name)}
    if split != "all" and counts and split not in counts:
        there = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise InputError(f"--split {split}: no image of {data} is in this split ({there}); evaluate --split all")


def _unreadable(shards: Artifact) -> list[dict[str, str]]:
    """Name and reason of each image that sharding left out because it cannot be read."""
    if "quarantine.parquet" not in shards.files or not shards.summary.get("unreadable"):
        return []
    import pyarrow.parquet as pq

    rows: list[dict[str, str]] = pq.read_table(
        shards.path("quarantine.parquet"), columns=["name", "reason"]
    ).to_pylist()
    return rows


def _plain(evaluated: EvaluationResults, unreadable: list[dict[str, str]]) -> dict[str, Any]:
    """The whole result as JSON values."""
    from pipeline.report.confusion import confused_pairs

    labels, confusion = evaluated.labels, evaluated.confusion
    names = evaluated.names(mistake["id"] for mistake in evaluated.mistakes)
    return {
        "evaluation": evaluated.artifact.name,
        "cached": evaluated.artifact.cached,
        "model": evaluated.model,
        "data": evaluated.shards.name,
        "split": evaluated.split,
        "images": len(evaluated.columns["id"]),
        "left_out": evaluated.artifact.summary.get("left_out", {"images": 0, "labels": 0, "of": {}}),
        "unreadable": unreadable,
        "metrics": evaluated.metrics,
        "classes": [{**asdict(result), "accuracy": result.accuracy} for result in evaluated.classes()],
        "confusions": []
        if confusion is None
        else [
            {
                "true": labels[pair.true],
                "predicted": labels[pair.predicted],
                "count": pair.count,
                "of": pair.total,
            }
            for pair in confused_pairs(confusion, len(labels) ** 2)
        ],
        "mistakes": [{"image": names[mistake["id"]], **mistake} for mistake in evaluated.mistakes],
    }


def _print(model_uri: str, data: str, evaluated: EvaluationResults) -> None:
    from pipeline.report.weak_points import confused_sentence
    from pipeline.report.wording import percent

    console = Console()
    metrics = evaluated.metrics
    images = counted(len(evaluated.columns["id"]), "image")
    split = "" if evaluated.split == "all" else f", {evaluated.split} split"
    console.print(Text.assemble((model_uri, "bold"), f" on {data}{split}: {images}"), soft_wrap=True)
    rows: list[tuple[str, str]] = []
    for prefix, name in (("accuracy", "accuracy"), ("zero_shot", "zero-shot accuracy")):
        if f"{prefix}/top1" in metrics:
            top, low, high = (metrics[f"{prefix}/top1{bound}"] for bound in ("", "_low", "_high"))
            rows.append((name, f"{percent(top)}  (95% interval {low:.1%} to {high:.1%})"))
            floors = [f"{floor} {percent(metrics[f'{prefix}/{floor}'])}" for floor in ("chance", "majority")
                      if f"{prefix}/{floor}" in metrics]  # fmt: skip
            rows.append(("without a model", ", ".join(floors)))
    for key, name in (("accuracy/balanced", "balanced accuracy"), ("accuracy/macro_f1", "macro F1")):
        if key in metrics:
            rows.append((name, percent(metrics[key])))
    for key, name in (("image_retrieval", "text finds its image"), ("text_retrieval", "image finds its text")):
        if f"retrieval/{key}_recall@1" in metrics:
            chance = percent(metrics[f"retrieval/{key}_chance@1"])
            rows.append((name, f"R@1 {percent(metrics[f'retrieval/{key}_recall@1'])}  (chance {chance})"))
    classes = evaluated.classes()
    worst = [
        f"{result.label}: {result.right:,} of {result.images:,} right ({percent(result.accuracy)})"
        for result in classes
        if result.right < result.images
    ]
    if worst:
        rows.append(("worst classes", "\n".join(worst[:_CLASSES])))
    if evaluated.confusion is not None and (pair := confused_sentence(evaluated.confusion, evaluated.labels)):
        rows.append(("most confused", pair))
    names = evaluated.names(mistake["id"] for mistake in evaluated.mistakes[:_MISTAKES])
    mistakes = [
        f"{names[mistake['id']]}: {mistake['label']}, predicted {mistake['predicted']} ({mistake['score']:.0%})"
        for mistake in evaluated.mistakes[:_MISTAKES]
    ]
    if mistakes:
        rows.append(("worst mistakes", "\n".join(mistakes)))
    if left_out := evaluated.artifact.summary.get("left_out"):
        of = ", ".join(f"{label} {count:,}" for label, count in left_out["of"].items())
        what = f"{counted(left_out['images'], 'image')} of {counted(left_out['labels'], 'label')} unknown to the model"
        rows.append(("left out", f"{what}: {of}"))
    rows.append(("evaluation", evaluated.artifact.name))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, Text(text))
    console.print(table)
