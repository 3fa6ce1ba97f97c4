"""`tutelage predict` and `zero-shot`: predictions of a registered model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.cli.image_files import image_bytes
from flows.preflight import open_store
from pipeline.errors import InputError, WorkError
from pipeline.printable import printable

_SHOWN = 5


def predict(model_uri: str, images: Sequence[Path], *, prompts: Sequence[str], as_json: bool) -> int:
    """Prints a registered model's prediction for each image file; returns the exit code.

    A file that fails is reported on stderr (and as "error" in JSON), does not affect the others, and makes the
    exit code 1.

    Raises:
        InputError: no image can be read, or there is no such model.
    """
    data: dict[int, bytes] = {}
    errors: dict[int, str] = {}
    for number, image in enumerate(images):
        try:
            data[number] = image_bytes(image)
        except InputError as error:
            errors[number] = str(error).removeprefix(f"{image}: ")
    if not data:
        message = f"{images[0]}: {errors[0]}" + (f" (nor can the other {len(images) - 1})" if len(images) > 1 else "")
        raise InputError(printable(message))
    from pipeline.registration.lookup import FailedPrediction, predict_images

    answers: dict[int, dict[str, Any]] = {}
    asked = predict_images(open_store(), model_uri, list(data.values()), prompts=prompts)
    for number, answer in zip(data, asked, strict=True):
        if isinstance(answer, FailedPrediction):
            errors[number] = answer.reason
        else:
            answers[number] = answer
    if as_json:
        rows = [
            {"image": str(image), **(answers[number] if number in answers else {"error": errors[number]})}
            for number, image in enumerate(images)
        ]
        print(json.dumps(rows, indent=1))
    elif answers:
        _print_table([(str(images[number]), answers[number]) for number in answers], prompts=bool(prompts))
    for number, reason in sorted(errors.items()):
        print(f"tutelage: {printable(f'{images[number]}: {reason}')}", file=sys.stderr)
    return WorkError.exit_code if errors else 0


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
