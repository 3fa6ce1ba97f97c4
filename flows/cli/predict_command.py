"""`tutelage predict` and `zero-shot`: predictions of a registered or an exported model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.image_files import ImageFile, image_files
from flows.cli.model_argument import exported_model, names_of_model
from flows.cli.progress_line import progress_line
from flows.preflight import open_store
from pipeline.errors import InputError, WorkError
from pipeline.printable import printable

if TYPE_CHECKING:
    from pipeline.registration.lookup import Predictor

_SHOWN = 5
_BATCH, _BATCH_BYTES = 64, 128 << 20  # Images read at once: a folder may hold more than the memory.


def predict(model_uri: str, images: Sequence[Path], *, as_json: bool) -> int:
    """Prints a model's prediction for each image; returns the exit code.

    A file that fails is reported on stderr (and as "error" in JSON), does not affect the others, and makes the
    exit code 1.

    Args:
        model_uri: see `exported_model`.
        images: files, folders or patterns.
    Raises:
        InputError: no image can be read, or there is no such model.
    """
    return _predict(model_uri, image_files(images), prompts=(), as_json=as_json)


def zero_shot(model_uri: str, images: Sequence[Path], *, prompts: Sequence[str], as_json: bool) -> int:
    """Prints a dual encoder's ranking of prompts for each image, as `predict` does.

    Raises:
        InputError: the prompts cannot be ranked, no image can be read, there is no such model, or it ranks no prompts.
    """
    files = image_files(images)
    problem = _problem_of(prompts)
    if problem is not None:
        # First what the command line names: with a wrong name, prompts would be written in vain.
        for file in files:
            if file.problem is not None or not file.path.exists():
                file.read()  # raises
        names_of_model(model_uri, open_store())
        raise InputError(f"zero-shot: {problem}")
    return _predict(model_uri, files, prompts=prompts, as_json=as_json)


def _problem_of(prompts: Sequence[str]) -> str | None:
    if not prompts:
        return "no prompts; give --prompt TEXT at least twice"
    if len(set(prompts)) < max(2, len(prompts)) or not all(prompt.strip() for prompt in prompts):
        return "prompts are ranked against each other; give two or more, all different, none empty"
    return None


def _predict(model_uri: str, files: Sequence[ImageFile], *, prompts: Sequence[str], as_json: bool) -> int:
    answers: dict[ImageFile, dict[str, Any]] = {}
    errors: dict[ImageFile, str] = {}
    predictor: Predictor | None = None
    with progress_line("zero-shot" if prompts else "predict") as progress:
        for batch in _batches(files, errors):
            if predictor is None:
                progress(note="loading and running the model")
                predictor = _load_predictor(model_uri, prompts)
            else:
                progress(step=len(answers) + len(errors), total=len(files), note="predicting")
            for file, answer in zip(batch, predictor.predict(list(batch.values())), strict=True):
                if isinstance(answer, dict):
                    answers[file] = answer
                else:
                    errors[file] = answer.reason
    if predictor is None:
        first = next(iter(errors))
        others = f" (nor can the other {len(files) - 1})" if len(files) > 1 else ""
        raise InputError(printable(f"{first.path}: {errors[first]}{others}"))
    if as_json:
        rows = [
            {"image": str(file.path), **(answers[file] if file in answers else {"error": errors[file]})}
            for file in files
        ]
        print(json.dumps(rows, indent=1))
    elif answers:
        _print_table([(str(file.path), answers[file]) for file in files if file in answers], prompts=bool(prompts))
    for file in files:
        if file in errors:
            print(f"tutelage: {printable(f'{file.path}: {errors[file]}')}", file=sys.stderr)
    return WorkError.exit_code if errors else 0


def _load_predictor(model_uri: str, prompts: Sequence[str]) -> Predictor:
    if model_uri.startswith("models:"):
        from pipeline.registration.lookup import load_predictor

        return load_predictor(open_store(), model_uri, prompts=prompts)
    with exported_model(model_uri) as exported:
        from pipeline.registration.lookup import predictor_of

        return predictor_of(exported, model_uri, prompts=prompts)


def _batches(files: Sequence[ImageFile], errors: dict[ImageFile, str]) -> Iterator[dict[ImageFile, bytes]]:
    """The contents of the files that can be read, some at a time; the reasons of the others go to `errors`."""
    batch: dict[ImageFile, bytes] = {}
    for file in files:
        try:
            batch[file] = file.read()
        except InputError as error:
            errors[file] = file.reason(error)
        if len(batch) == _BATCH or sum(map(len, batch.values())) > _BATCH_BYTES:
            yield batch
            batch = {}
    if batch:
        yield batch


def _print_table(answers: Sequence[tuple[str, dict[str, Any]]], *, prompts: bool) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("image", overflow="fold")
    table.add_column("prompt" if prompts else "label", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for image, answer in answers:
        ranked = answer.get("ranking") or answer.get("top_k") or [answer]
        for rank, entry in enumerate(ranked[:_SHOWN]):
            name = Text(printable(str(entry["label"])), "bold" if rank == 0 else "dim")
            table.add_row(Text(printable(image)) if rank == 0 else "", name, f"{entry['score']:.3f}")
    Console().print(table)
