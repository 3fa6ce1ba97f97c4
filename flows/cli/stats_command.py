"""`tutelage data stats`: counts of shards: splits, labels, sizes, formats, captions, duplicates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.data_targets import named_artifact, named_tars
from flows.cli.progress_line import progress_line
from pipeline.artifacts import Artifact
from pipeline.counted import counted
from pipeline.loading.reader import SampleReader
from pipeline.printable import printable
from pipeline.sharding.format.index import SPLITS, SampleIndex
from pipeline.sharding.inspection.survey.artifact_columns import artifact_columns
from pipeline.sharding.inspection.survey.columns import ImageColumns
from pipeline.sharding.inspection.survey.statistics import statistics
from pipeline.sharding.inspection.survey.tar_columns import tar_columns

_LABELS_SHOWN = 12


def stats(what: str, *, as_json: bool) -> int:
    """Prints statistics of an artifact, from its index, or of tars, from their headers."""
    artifact = named_artifact(what)
    if artifact is not None:
        values = statistics(_artifact_columns(artifact))
    else:
        tars = [shard.file for shard in named_tars([what]).shards]
        with progress_line("data stats") as progress:
            values = statistics(tar_columns(tars, progress))
    if as_json:
        print(json.dumps({"what": what, **values}, indent=1, ensure_ascii=False))
    else:
        Console().print(_page(values))
    return 0


def _artifact_columns(artifact: Artifact) -> ImageColumns:
    index = SampleIndex.open(artifact)

    @contextmanager
    def reading() -> Iterator[Callable[[int], bytes]]:
        with closing(SampleReader(artifact, index)) as reader:
            yield reader.read

    return artifact_columns(artifact, index, reading)


def _page(values: dict[str, Any]) -> Group:
    shards, labels, captions = values["shards"], values["labels"], values["captions"]
    blocks: list[RenderableType] = [
        Text.assemble(
            (counted(values["images"], "image"), "bold"),
            f", {values['image_bytes'] / 1e6:,.1f} MB, in "
            f"{counted(shards['number'], 'shard')} ({shards['total_bytes'] / 1e6:,.1f} MB): ",
            ", ".join(f"{split} {count:,}" for split, count in values["splits"].items() if count),
        ),
        Text(),
        _spreads(
            {
                "width": values["width"],
                "height": values["height"],
                "bytes an image": values["bytes"],
                "captions an image": captions["per_image"],
                "characters a caption": captions["characters"],
                "bytes a shard": shards["bytes"],
            }
        ),
        Text(),
    ]
    rows = []
    if values["formats"]:
        some = f" (of {counted(values['formats_of'], 'image')})" if values["formats_of"] < values["images"] else ""
        rows.append(("formats", ", ".join(f"{name} {count:,}" for name, count in values["formats"].items()) + some))
    without = f", {counted(captions['images_without'], 'image')} without one" if captions["images_without"] else ""
    rows.append(("captions", f"{captions['number']:,}{without}"))
    twice = values["duplicates"]
    rows.append(
        (
            "duplicates",
            f"{counted(twice['copies'], 'image')} equal to another one ({counted(twice['sets'], 'set')}, "
            f"{twice['sets_in_two_splits']:,} in two splits, {twice['sets_with_two_labels']:,} with two labels)"
            if twice["sets"]
            else "none with equal bytes",
        )
    )
    rows += [("problem", f"{counted(count, 'sample')}: {reason}") for reason, count in values["problems"].items()]
    without = f", {counted(labels['without'], 'image')} without one" if labels["without"] else ""
    rows.append(("labels", f"{labels['number']:,}{without}"))
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, text in rows:
        table.add_row(Text(name, "dim"), Text(printable(text)))
    blocks.append(table)
    if labels["per_label"]:
        blocks += [Text(), _labels(labels["per_label"])]
    return Group(*blocks)


def _spreads(spreads: dict[str, dict[str, int]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for name in ("min", "5%", "median", "95%", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, values in spreads.items():
        if values:
            table.add_row(Text(name, "dim"), *(f"{value:,}" for value in values.values()))
    return table


def _labels(per_label: list[dict[str, Any]]) -> Table:
    """The labels with the most and the fewest images."""
    ranked = sorted(per_label, key=lambda row: (-row["images"], row["label"]))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("label", overflow="ellipsis", no_wrap=True, max_width=48)
    for name in ("images", *SPLITS):
        table.add_column(name, justify="right", no_wrap=True)
    half = _LABELS_SHOWN // 2
    shown = ranked if len(ranked) <= _LABELS_SHOWN else [*ranked[:half], None, *ranked[-half:]]
    for row in shown:
        if row is None:
            table.add_row(Text(f"... {len(ranked) - 2 * half:,} more", "dim"))
        else:
            numbers = (f"{row[name]:,}" for name in ("images", *SPLITS))
            table.add_row(Text(printable(row["label"])), *numbers)
    return table
