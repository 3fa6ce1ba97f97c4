"""`tutelage artifacts`: its sub-commands, as the shell sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.shell_arguments import AsJson

artifacts_app = typer.Typer(help="List, show, verify, open, copy and remove artifacts.", rich_markup_mode=None)

Reference = Annotated[str, typer.Argument(metavar="STAGE/KEY", help="A unique prefix of the key is enough.")]


@artifacts_app.command("list")
def list_artifacts(
    stage: Annotated[str | None, typer.Argument(metavar="STAGE", help="List only the artifacts of this stage.")] = None,
    as_json: AsJson = False,
) -> int:
    """List committed artifacts, the newest last."""
    from flows.cli.artifact_commands import list_artifacts

    return list_artifacts(stage, as_json=as_json)


@artifacts_app.command("show")
def show_artifact(reference: Reference, as_json: AsJson = False) -> int:
    """Print an artifact's result, inputs and files. --json prints its manifest."""
    from flows.cli.artifact_commands import show_artifact

    return show_artifact(reference, as_json=as_json)


@artifacts_app.command("verify")
def verify_artifacts(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="STAGE/KEY...", help="Artifacts to verify. Default: all.")
    ] = None,
) -> int:
    """Compare every file with its manifest. The exit code is 1 if any differs."""
    from flows.cli.artifact_commands import verify_artifacts

    return verify_artifacts(references or [])


@artifacts_app.command("open")
def open_artifact(
    reference: Annotated[
        str | None, typer.Argument(metavar="STAGE/KEY", help="A report or a data set. Default: the latest report.")
    ] = None,
) -> int:
    """Open a report or a data card in the browser, and print its path."""
    from flows.cli.artifact_files import open_page

    return open_page(reference)


@artifacts_app.command("get")
def get_artifact(
    reference: Reference,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE...]", help="Files of the artifact. Default: all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder for the copies. Default: STAGE-KEY here.")
    ] = None,
) -> int:
    """Copy files of an artifact to a folder, compared with the manifest."""
    from flows.cli.artifact_files import copy_files

    return copy_files(reference, names or [], out)


@artifacts_app.command("rm")
def remove_artifacts(
    references: Annotated[list[str], typer.Argument(metavar="STAGE/KEY...", help="Artifacts to remove.")],
    force: Annotated[bool, typer.Option("--force", help="Also remove artifacts from which others were built.")] = False,
) -> int:
    """Remove artifacts. Refused while other artifacts need them."""
    from flows.cli.artifact_removal import remove_artifacts

    return remove_artifacts(references, force=force)
