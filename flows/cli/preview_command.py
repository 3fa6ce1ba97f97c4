"""`tutelage data preview`: samples as a table and as a sheet of pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.data_targets import named_artifact, named_tars
from flows.cli.progress_line import progress_line
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.printable import printable
from pipeline.sharding.inspection.survey.preview_samples import (
    PreviewRequest,
    PreviewSample,
    samples_of_index,
    samples_of_tars,
)

_COLUMNS = ("key", "name", "split", "label", "image", "bytes")
_MIN_CAPTION_CHARS = 24
_MIN_WIDTH = 110  # columns; a narrower terminal wraps the lines


def preview(
    what: str,
    *,
    rows: int,
    split: str | None,
    label: str | None,
    keys: Sequence[str],
    out: Path | None,
    as_json: bool,
) -> int:
    """Prints samples of an artifact or of tars.

    Args:
        what: STAGE/KEY, or a tar, a folder or a pattern.
        rows: maximum number of samples.
        out: file for a sheet of pictures.
    Raises:
        InputError: there is no such sample, or the sheet cannot be written.
    """
    if out is not None and (out.suffix.lower() != ".png" or not out.absolute().parent.is_dir()):
        raise InputError(f"--out {out}: give the name of a .png in a folder that exists")
    request = PreviewRequest(rows, split, label, tuple(keys))
    samples = _samples(what, request)
    if out is not None:
        from pipeline.sharding.inspection.survey.preview_sheet import preview_sheet

        try:
            preview_sheet(samples, what, _heading(samples, request)).save(out, optimize=True)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    if as_json:
        described = [_as_json(sample) for sample in samples]
        print(json.dumps({"what": what, "sheet": str(out) if out else None, "samples": described}, indent=1))
        return 0
    width = max(Console(unwrapped=False).width, _MIN_WIDTH)
    console = Console(width=width)
    console.print(_table(samples, width))
    if out is not None:
        console.print(Text(f"{out}: {counted(len(samples), 'picture')}", "dim"), soft_wrap=True)
    return 0


def _samples(what: str, request: PreviewRequest) -> list[PreviewSample]:
    artifact = named_artifact(what)
    if artifact is None:
        with progress_line("data preview") as progress:
            return samples_of_tars([shard.file for shard in named_tars([what]).shards], request, progress)
    from pipeline.loading.reader import SampleReader
    from pipeline.sharding.format.index import SampleIndex
    from pipeline.sharding.format.item_names import item_names

    index = SampleIndex.open(artifact)
    reader = SampleReader(artifact, index, remote="ranges", verify="always")
    try:
        return samples_of_index(index, reader.read, partial(item_names, artifact), request)
    finally:
        reader.close()


def _heading(samples: Sequence[PreviewSample], request: PreviewRequest) -> str:
    words = [counted(len(samples), "sample")]
    words += [f"split {request.split}"] if request.split else []
    words += [f"label {request.label}"] if request.label else []
    broken = sum(bool(sample.problem) for sample in samples)
    return ", ".join(words + ([f"{broken} of them cannot be shown"] if broken else []))


def _table(samples: Sequence[PreviewSample], width: int) -> Table:
    """One line for each sample; captions get the remaining width."""
    rows = [
        (
            printable(sample.key, 28),
            _end(printable(sample.name), 32),
            sample.split,
            printable(sample.label, 18),
            f"{sample.width}x{sample.height} {sample.kind}" if not sample.problem else "none",
            f"{len(sample.data):,}",
        )
        for sample in samples
    ]
    # Samples of tars and mixtures have no names, so the column is omitted.
    shown = [column for column, name in enumerate(_COLUMNS) if name != "name" or any(row[column] for row in rows)]
    used = sum(max(len(_COLUMNS[column]), *(len(row[column]) for row in rows)) + 2 for column in shown)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in (_COLUMNS[column] for column in shown):
        table.add_column(name, no_wrap=True, justify="right" if name == "bytes" else "left")
    table.add_column("captions", no_wrap=True)
    for sample, row in zip(samples, rows, strict=True):
        words = sample.problem or " | ".join(sample.captions)
        last = Text(printable(words, max(_MIN_CAPTION_CHARS, width - used)), "red" if sample.problem else "")
        table.add_row(*(Text(row[column]) for column in shown), last)
    return table


def _end(name: str, limit: int) -> str:
    """The last `limit` characters of a name: a long path is truncated at its start, before the file's name."""
    return name if len(name) <= limit else "…" + name[1 - limit :]


def _as_json(sample: PreviewSample) -> dict[str, Any]:
    return {
        "key": sample.key,
        "name": sample.name or None,
        "shard": sample.shard,
        "byte": sample.byte,
        "split": sample.split or None,
        "label": sample.label or None,
        "captions": list(sample.captions),
        "bytes": len(sample.data),
        "format": sample.kind or None,
        "width": sample.width,
        "height": sample.height,
        "problem": sample.problem or None,
    }
