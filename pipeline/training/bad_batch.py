"""The batch of a step whose loss or gradient is not finite, in a file beside the checkpoints.

Each rank writes the rows that it had: bad_batches/step-N-rank-R.pt, which torch.load(weights_only=True) reads. Of a
training that skipped the step and ended, the artifact has the files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from pipeline.loading.batch import Batch
from pipeline.training.checkpoint import Checkpoints

FOLDER = "bad_batches"
_log = logging.getLogger("tutelage.training")


def save_batch(batch: Batch, checkpoints: Checkpoints, seed: int, rank: int, world: int) -> str | None:
    """Saves a rank's batch: pixels uint8 [B, C, H, W], labels, ids, step, with seed, rank and world.

    Of a slice, the batch from which it was cut is saved, and "rows", the slice.

    Returns:
        The file's path or URL; None if it cannot be written, which is logged.
    """
    source = batch.source
    values = {field.name: _on_host(getattr(source, field.name)) for field in fields(Batch) if field.name != "cut_from"}
    start = batch.first_row - source.first_row
    values |= {"rows": [start, start + len(batch)], "seed": seed, "rank": rank, "world": world}
    path = batch_file(f"{checkpoints.prefix}/{FOLDER}", batch.step, rank)
    try:
        checkpoints.save_beside(values, path)
    except OSError as error:
        _log.warning("%s: the batch was not saved (%s)", path, error)
        return None
    local = checkpoints.storage.local_path(path)
    return str(local) if local is not None else f"{checkpoints.storage.url}/{path}"


def batch_file(folder: str, step: int, rank: int) -> str:
    """The path of a rank's saved batch."""
    return f"{folder}/step-{step:09d}-rank-{rank}.pt"


def load_batch(file: Path) -> tuple[Batch, dict[str, Any]]:
    """The batch in a file of `save_batch`, and the training's seed, rank and world."""
    values = torch.load(file, weights_only=True)
    names = {field.name for field in fields(Batch)}
    source = Batch(**{name: value for name, value in values.items() if name in names})
    start, stop = values["rows"]
    batch = source if (start, stop) == (0, len(source)) else source.rows(start, stop)
    return batch, {name: values[name] for name in ("seed", "rank", "world")}


def copy_bad_batches(checkpoints: Checkpoints, output: Path) -> None:
    """Copies the saved batches, if there are any, into a folder of the artifact."""
    for info in list(checkpoints.storage.list(f"{checkpoints.prefix}/{FOLDER}")):
        checkpoints.storage.download(info.path, output / FOLDER / Path(info.path).name)


def _on_host(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()  # a view would be saved with the whole of its memory
    return {name: _on_host(entry) for name, entry in value.items()} if isinstance(value, Mapping) else value
