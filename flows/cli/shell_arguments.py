"""Arguments that several commands of the shell take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.catalog import FLOWS

Flow = Annotated[str, typer.Argument(metavar="FLOW", help="One of: " + ", ".join(FLOWS))]
Preset = Annotated[str | None, typer.Option(metavar="NAME", help="A preset, e.g. emoji. Default: emoji.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Changes one value, e.g. --set teacher.training.epochs=5."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")]
ModelUri = Annotated[str, typer.Argument(metavar="MODEL_URI", help="e.g. models:/emoji-classifier@champion")]
