"""Arguments that several commands of the shell take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.catalog import FLOWS

Flow = Annotated[str, typer.Argument(metavar="FLOW", help="One of: " + ", ".join(FLOWS))]
Preset = Annotated[
    str | None, typer.Option(metavar="NAME", help="The preset to start from; see `tutelage presets`. Default: emoji.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.yaml", help="Parameters, in the YAML that `tutelage config` prints."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set one parameter, e.g. teacher.training.epochs=5; repeat the option."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = Annotated[
    str, typer.Argument(metavar="MODEL_URI", help="models:/NAME@ALIAS, an artifact STAGE/KEY, or a model's folder.")
]
EVALUATE_EXAMPLES = (
    "Examples: tutelage evaluate models:/image-classifier@champion --data new_photos; "
    "tutelage evaluate train-teacher/0a1b --data shard-dataset/2c3d --split val"
)
COMPARED_HELP = (
    "A run (run-report/KEY; run-report/KEY:teacher for another of its models), an evaluation (evaluate/KEY), or a "
    "model: STAGE/KEY, models:/NAME@ALIAS, models:/NAME/VERSION, a model's folder."
)
COMPARE_EXAMPLES = (
    "Examples: tutelage compare models:/image-classifier/2 models:/image-classifier@champion; "
    "tutelage compare run-report/0a1b run-report/2c3d --out page.html"
)
IMAGES_HELP = "Image files, folders of images, or quoted patterns such as 'photos/**/*.jpg'."
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help=IMAGES_HELP)]
