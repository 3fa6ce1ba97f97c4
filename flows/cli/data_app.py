"""`tutelage data`: its sub-commands, as the shell sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.shell_arguments import AsJson

data_app = typer.Typer(
    help="Look into data sets, ours or foreign tars: lint, preview, stats, leaks; compact folds a delta.",
    rich_markup_mode=None,
)
_WHAT = (
    "STAGE/KEY of a shards artifact (the key may be cut), a tar, a folder, a pattern like 'x/{000..099}.tar', s3://..."
)
What = Annotated[str, typer.Argument(metavar="WHAT", help=_WHAT)]


@data_app.command("lint")
def lint(
    what: Annotated[list[str] | None, typer.Argument(metavar="WHAT...", help=_WHAT)] = None,
    deep: Annotated[
        bool, typer.Option("--deep/--shallow", help="Read every text and decode every image, or headers only.")
    ] = True,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Findings shown of each code; all are counted.")] = 5,
    codes: Annotated[bool, typer.Option("--codes", help="List what is looked for, and end.")] = False,
    as_json: AsJson = False,
) -> int:
    """Tell what a reader would trip over, with shard, key and byte; exit code 1 if there are errors."""
    from flows.cli.lint_command import lint, list_codes

    if codes:
        return list_codes(as_json=as_json)
    return lint(what or [], deep=deep, limit=limit, as_json=as_json)


@data_app.command("preview")
def preview(
    what: What,
    rows: Annotated[int, typer.Option(min=1, max=400, metavar="N", help="Samples that are shown.")] = 24,
    split: Annotated[str | None, typer.Option(help="Only of this split: train, val or test.")] = None,
    label: Annotated[str | None, typer.Option(help="Only with this label.")] = None,
    keys: Annotated[list[str] | None, typer.Option("--key", metavar="KEY", help="This; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw them on a sheet.")] = None,
    as_json: AsJson = False,
) -> int:
    """Show samples: a table, and with --out a sheet of pictures with keys, labels and captions."""
    from flows.cli.preview_command import preview

    return preview(what, rows=rows, split=split, label=label, keys=keys or [], out=out, as_json=as_json)


@data_app.command("stats")
def stats(what: What, as_json: AsJson = False) -> int:
    """Count splits, labels, sizes, formats, captions, duplicates and shards."""
    from flows.cli.stats_command import stats

    return stats(what, as_json=as_json)


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
    from flows.cli.leak_command import show_leaks

    given = {
        "near_radius": near_radius,
        "near_difference": near_difference,
        "max_exact_share": max_exact_share,
        "max_pixels_share": max_pixels_share,
        "max_near_share": max_near_share,
    }
    return show_leaks(shards, other, given, pictures=pictures, as_json=as_json)


@data_app.command("compact")
def compact_shards(
    reference: Annotated[str, typer.Argument(metavar="STAGE/KEY", help="A delta; the key may be cut.")],
    samples_per_shard: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Images in one tar, at most. Default: as in the delta.")
    ] = None,
    shard_megabytes: Annotated[
        float | None, typer.Option(min=0.001, max=1_000_000, help="Size of one tar, at most, in MB.")
    ] = None,
    writers: Annotated[int | None, typer.Option(min=1, max=4096, help="Tars written at the same time.")] = None,
    as_json: AsJson = False,
) -> int:
    """Fold a delta and what it adds to into shards that need no other artifact."""
    from flows.cli.compact_command import compact

    return compact(
        reference,
        samples_per_shard=samples_per_shard,
        shard_megabytes=shard_megabytes,
        writers=writers,
        as_json=as_json,
    )
