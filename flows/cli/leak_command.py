"""`tutelage data leaks`: evaluation images that also occur in the training data, as a table and as pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.preflight import open_store
from pipeline.artifacts import Artifact, ArtifactStore
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.leaks.bounds import LISTING, SHEET, LeakCheckConfig, file_location, split_name
from pipeline.leaks.kinds import KINDS
from pipeline.leaks.stage import CheckLeaks
from pipeline.stage import run_stage


def show_leaks(
    shards: str, other: str | None, given: Mapping[str, Any], *, pictures: Path | None, as_json: bool
) -> int:
    """Runs the leak check; prints the counts of every evaluation split and the path of the pictures.

    Args:
        shards, other: STAGE/KEY of shards.
        given: values for a LeakCheckConfig; None: its default.
        pictures: path to which the sheet is copied.
    Raises:
        InputError: an artifact has no shards, or a value is out of bounds.
        WorkError: a larger fraction of a split is leaked than its bound allows; raised after printing.
    """
    values = {name: value for name, value in given.items() if value is not None}
    config = parse_config(LeakCheckConfig, values, "data leaks")
    if pictures is not None and (pictures.suffix.lower() != ".png" or not pictures.parent.is_dir()):
        raise InputError(f"--pictures {pictures}: name a .png file in a folder that exists")
    store = open_store()
    inputs = {"shards": _shards(store, shards)}
    if other is not None:
        inputs["other"] = _shards(store, other)
    artifact = _check_leaks(config, inputs, store)
    findings = json.loads(artifact.read("leaks.json"))
    if pictures is not None:
        shutil.copyfile(artifact.path(SHEET), pictures)
    if as_json:
        exceeded = config.exceeded_in_words(findings)
        files = {"sheet": str(pictures or file_location(artifact, SHEET)), "listing": file_location(artifact, LISTING)}
        print(
            json.dumps(
                {"artifact": artifact.name, "ok": not exceeded, "broken": exceeded, **files, **findings}, indent=1
            )
        )
    else:
        _print(findings, config, artifact, pictures)
    config.check(artifact)
    return 0


def _shards(store: ArtifactStore, reference: str) -> Artifact:
    artifact = store.resolve(reference)
    if "index.arrow" not in artifact.files:
        raise InputError(
            f"{reference}: is an artifact of {artifact.stage}; give shards, as `tutelage artifacts list` prints them"
        )
    return artifact


def _check_leaks(config: LeakCheckConfig, inputs: Mapping[str, Artifact], store: ArtifactStore) -> Artifact:
    """The artifact of the check, from the store or computed now; shows progress on a terminal."""
    with Console(stderr=True).status("checking for leaks") as status:

        def progress(*, step: int = 0, total: int | None = None, note: str = "", **numbers: float) -> None:
            counted = f" {step:,}/{total:,}" if total else f" {step:,}" if step else ""
            status.update(f"{note}{counted}")

        return run_stage(CheckLeaks(), config, inputs, store=store, progress=progress)


def _print(findings: Mapping[str, Any], config: LeakCheckConfig, artifact: Artifact, pictures: Path | None) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("evaluation split", no_wrap=True)
    for name in ("images", *KINDS, "flat", "unreadable"):
        table.add_column(name, justify="right", no_wrap=True)
    for split in findings["splits"]:
        cells = [Text(f"{split['images']:,}")]
        for kind in KINDS:
            matches = split[kind]
            above = matches["share"] > getattr(config, f"max_{kind}_share")
            cells.append(Text(f"{matches['images']:,} ({matches['share']:.2%})", "bold red" if above else ""))
        cells += [Text(f"{split[name]:,}") for name in ("flat", "unreadable")]
        table.add_row(split_name(split["data"], split["split"]), *cells)
    console = Console()
    console.print(table)
    lines = {"pictures": str(pictures or file_location(artifact, SHEET)), "listing": file_location(artifact, LISTING)}
    for name, path in lines.items():
        console.print(Text.assemble((f"{name:<9}", "dim"), path), soft_wrap=True)
