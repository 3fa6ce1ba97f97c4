"""`tutelage predict` and `zero-shot`: ask a registered model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.preflight import open_store
from pipeline.errors import InputError

_SHOWN = 5


def predict(model_uri: str, images: Sequence[Path], *, prompts: Sequence[str], as_json: bool) -> int:
    """What a registered model says of image files, a line an image.

    Raises:
        InputError: an image cannot be read, or there is no such model.
    """
    data = [_bytes_of(image) for image in images]
    from pipeline.registration.lookup import ask_model

    answers = ask_model(open_store(), model_uri, data, prompts=prompts)
    if as_json:
        print(
            json.dumps(
                [{"image": str(image), **answer} for image, answer in zip(images, answers, strict=True)], indent=1
            )
        )
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("image", overflow="fold")
    table.add_column("prompt" if prompts else "label", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for image, answer in zip(images, answers, strict=True):
        ranked = answer.get("ranking") or answer.get("top_k") or [answer]
        for place, one in enumerate(ranked[:_SHOWN]):
            name = Text(str(one["label"]), "bold" if place == 0 else "dim")
            table.add_row(str(image) if place == 0 else "", name, f"{one['score']:.3f}")
    Console().print(table)
    return 0


def _bytes_of(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise InputError(f"{image}: cannot be read ({error.strerror}); give image files") from None
