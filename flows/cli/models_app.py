"""`tutelage models`: its sub-commands, as the shell sees them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import typer.core

from flows.cli.shell_arguments import AsJson


class _ListsByDefault(typer.core.TyperGroup):
    """`models PATTERN` is `models list PATTERN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named else ["list", *args])


models_app = typer.Typer(
    cls=_ListsByDefault,
    help="List the architectures, or show the layers of one.",
    rich_markup_mode=None,
)


@models_app.command("list")
def list_models(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="e.g. 'resnet*'")] = "*", as_json: AsJson = False
) -> int:
    """List architectures by name pattern. Show year, parameters, MACs, image size, published errors and weights."""
    from flows.cli.model_commands import list_architectures

    return list_architectures(pattern, as_json=as_json)


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `models list` prints.")],
    img_size: Annotated[int | None, typer.Option(help="Side of the images in pixels.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Number of classes; 0: no head.")] = None,
    in_chans: Annotated[int | None, typer.Option(help="Channels of the images.")] = None,
    depth: Annotated[
        int | None, typer.Option(min=0, help="Levels of nested modules to print. Default: as many as fit.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Print the layers of a model: output shape, parameters, MACs."""
    from flows.cli.model_commands import show_architecture

    return show_architecture(
        name, num_classes=num_classes, in_chans=in_chans, img_size=img_size, depth=depth, as_json=as_json
    )
