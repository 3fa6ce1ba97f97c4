"""`tutelage data`: its sub-commands, as the shell sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.shell_arguments import AsJson

data_app = typer.Typer(help="Data sets: leaks between training and evaluation.", rich_markup_mode=None)


@data_app.callback()
def _data() -> None:
    """Keeps `leaks` a sub-command, were it the only one."""


@data_app.command("leaks")
def check_leaks(
    shards: Annotated[str, typer.Argument(metavar="SHARDS", help="STAGE/KEY; the key may be cut.")],
    other: Annotated[
        str | None, typer.Argument(metavar="OTHER", help="A second data set: train of each against the other.")
    ] = None,
    near_radius: Annotated[
        int | None, typer.Option(help="Images get a second look if at most so many of 64 bits differ. Default: 6.")
    ] = None,
    near_difference: Annotated[
        float | None, typer.Option(help="How far they may be apart on the second look. Default: 0.01.")
    ] = None,
    max_exact_share: Annotated[float | None, typer.Option(help="Bound on images with equal bytes. Default: 0.")] = None,
    max_pixels_share: Annotated[
        float | None, typer.Option(help="Bound on images with equal pixels in other bytes. Default: 0.")
    ] = None,
    max_near_share: Annotated[
        float | None, typer.Option(help="Bound on images that look alike. Default: 0.01.")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Copies the sheet of pairs there.")] = None,
    as_json: AsJson = False,
) -> int:
    """Find evaluation images in the training data; exit code 1 if a split has more than its bound."""
    from flows.leak_command import show_leaks

    given = {
        "near_radius": near_radius,
        "near_difference": near_difference,
        "max_exact_share": max_exact_share,
        "max_pixels_share": max_pixels_share,
        "max_near_share": max_near_share,
    }
    return show_leaks(shards, other, given, pictures=pictures, as_json=as_json)
