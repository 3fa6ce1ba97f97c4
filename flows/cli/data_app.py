"""`tutelage data`: its sub-commands, as the shell sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.shell_arguments import AsJson

data_app = typer.Typer(
    help="Check, preview and count shards, find leaks, compact deltas.",
    rich_markup_mode=None,
)
_WHAT = (
    "A shards artifact STAGE/KEY (a unique prefix of the key is enough), a tar, a folder, a pattern such as "
    "'x/{000..099}.tar', or s3://..."
)
What = Annotated[str, typer.Argument(metavar="WHAT", help=_WHAT)]


@data_app.command("lint")
def lint(
    what: Annotated[list[str] | None, typer.Argument(metavar="WHAT...", help=_WHAT)] = None,
    deep: Annotated[
        bool, typer.Option("--deep/--shallow", help="Read every text and decode every image, or read only headers.")
    ] = True,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Findings to print for each code; all are counted.")
    ] = 5,
    codes: Annotated[bool, typer.Option("--codes", help="List all codes and exit.")] = False,
    as_json: AsJson = False,
) -> int:
    """Check shards for errors. Findings name shard, key and byte; the exit code is 1 if there are errors."""
    from flows.cli.lint_command import lint, list_codes

    if codes:
        return list_codes(as_json=as_json)
    return lint(what or [], deep=deep, limit=limit, as_json=as_json)


@data_app.command("preview")
def preview(
    what: What,
    rows: Annotated[int, typer.Option(min=1, max=400, metavar="N", help="The number of samples to show.")] = 24,
    split: Annotated[str | None, typer.Option(help="Show only this split: train, val or test.")] = None,
    label: Annotated[str | None, typer.Option(help="Show only this label.")] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", metavar="KEY", help="Show the sample with this key; repeat the option.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the images on a sheet.")] = None,
    as_json: AsJson = False,
) -> int:
    """Show samples as a table. With --out, draw them with keys, labels and captions."""
    from flows.cli.preview_command import preview

    return preview(what, rows=rows, split=split, label=label, keys=keys or [], out=out, as_json=as_json)


@data_app.command("stats")
def stats(what: What, as_json: AsJson = False) -> int:
    """Count splits, labels, sizes, formats, captions, duplicates."""
    from flows.cli.stats_command import stats

    return stats(what, as_json=as_json)


@data_app.command("leaks")
def check_leaks(
    shards: Annotated[str, typer.Argument(metavar="SHARDS", help="STAGE/KEY; a unique prefix of the key is enough.")],
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="OTHER", help="A second data set; each is checked against the train split of the other."
        ),
    ] = None,
    near_radius: Annotated[
        int | None, typer.Option(help="Hashes of similar images differ in at most this many of 64 bits. Default: 6.")
    ] = None,
    near_difference: Annotated[
        float | None, typer.Option(help="Largest mean difference of similar images, 0 to 1. Default: 0.01.")
    ] = None,
    max_exact_share: Annotated[
        float | None, typer.Option(help="Largest fraction of images with equal bytes. Default: 0.")
    ] = None,
    max_pixels_share: Annotated[
        float | None, typer.Option(help="Largest fraction with equal pixels but other bytes. Default: 0.")
    ] = None,
    max_near_share: Annotated[
        float | None, typer.Option(help="Largest fraction of similar images. Default: 0.01.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Copy the sheet of pairs to this file.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Find evaluation images in the training data. The exit code is 1 if a split has more than its limit."""
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
    reference: Annotated[
        str, typer.Argument(metavar="STAGE/KEY", help="A delta; a unique prefix of the key is enough.")
    ],
    samples_per_shard: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Maximum number of images in one tar. Default: that of the delta."),
    ] = None,
    shard_megabytes: Annotated[
        float | None, typer.Option(min=0.001, max=1_000_000, help="Maximum size of one tar, in MB.")
    ] = None,
    writers: Annotated[int | None, typer.Option(min=1, max=4096, help="Tars written at the same time.")] = None,
    as_json: AsJson = False,
) -> int:
    """Merge a delta and its base into one artifact."""
    from flows.cli.compact_command import compact

    return compact(
        reference,
        samples_per_shard=samples_per_shard,
        shard_megabytes=shard_megabytes,
        writers=writers,
        as_json=as_json,
    )
