"""`tutelage models`: a table of the zoo, or the layers of one model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from model_defs import ModelError, ModelInfo, list_models, model_info
from pipeline.errors import InputError, UnknownNameError
from pipeline.report.wording import magnitude, paper_errors

if TYPE_CHECKING:
    from model_defs.counting import LayerRow

_WIDE = 110  # columns; a terminal at least this wide shows the full names of weights
_MAX_ROWS = 48  # of a layer table, if no depth is given


def list_architectures(pattern: str, *, as_json: bool = False) -> int:
    """Prints the models that match a pattern, as a table.

    Raises:
        UnknownNameError: nothing matches.
    """
    names = list_models(pattern)
    if not names:
        raise UnknownNameError("model", pattern, list_models())
    infos = [model_info(name) for name in names]
    if as_json:
        print(json.dumps([asdict(info) for info in infos], indent=1))
        return 0
    console = Console()
    console.print(_zoo_table(infos, wide=console.width >= _WIDE))
    console.print("MACs: multiply-accumulates; error: papers' top-1/top-5 in %, protocols differ", style="dim")
    return 0


def show_architecture(
    name: str,
    *,
    num_classes: int | None,
    in_chans: int | None,
    img_size: int | None,
    depth: int | None,
    as_json: bool = False,
) -> int:
    """Prints a model's layers with output shapes, parameters and multiply-accumulates, computed without weights.

    Args:
        num_classes, in_chans, img_size: arguments of the model; None: its default.
        depth: levels of nested modules to print; None: as many as make a readable table.
    Raises:
        UnknownNameError: there is no such model.
        InputError: it does not take these arguments.
    """
    try:
        info = model_info(name)
    except ModelError:
        raise UnknownNameError("model", name, list_models()) from None
    given = {"num_classes": num_classes, "in_chans": in_chans, "img_size": img_size}
    from model_defs.counting import layer_table, rows_at

    try:
        rows = layer_table(name, **{key: value for key, value in given.items() if value is not None})
    except ModelError as error:
        raise InputError(f"models show: {error}") from None
    shown = rows_at(rows, depth if depth is not None else _readable_depth(rows))
    if as_json:
        layers = [asdict(row) for row in shown]
        total = {"parameters": rows[0].parameters, "macs": rows[0].macs}
        print(json.dumps({"model": asdict(info), "layers": layers, "total": total}, indent=1))
        return 0
    console = Console()
    console.print(Text(name, "bold"), Text(f"{info.paper}, {info.year}", "dim"), sep="  ", soft_wrap=True)
    if info.errors_from is not None:
        console.print(Text(f"error {paper_errors(info)} %, {info.errors_from}", "dim"), soft_wrap=True)
    printed = [row for row in shown if row.type != "Identity" and (row.shape is not None or row.parameters)]
    console.print(_layer_table(printed, rows[0]))
    return 0


def _zoo_table(infos: Sequence[ModelInfo], *, wide: bool) -> Table:
    table = _plain_table(gap=2 if wide else 1)
    table.add_column("model", no_wrap=True)
    for heading in ("year", "params", "MACs", "px", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("weights", no_wrap=True, overflow="ellipsis")
    for info in infos:
        weights = info.weights or ""
        table.add_row(
            info.name,
            str(info.year),
            magnitude(info.parameters),
            magnitude(info.macs),
            str(info.image_size or ""),
            paper_errors(info),
            weights if wide else weights.partition(" ")[0],
        )
    return table


def _layer_table(shown: Sequence[LayerRow], model: LayerRow) -> Table:
    table = _plain_table()
    table.add_column("layer", overflow="fold")
    table.add_column("type", overflow="fold")
    table.add_column("output", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    for row in shown:
        output = " x ".join(map(str, row.shape[1:])) if row.shape else ""
        table.add_row(row.path or row.type, row.type, output, _count(row.parameters), _count(row.macs))
    table.add_section()
    table.add_row("total", "", "", _count(model.parameters), _count(model.macs), style="bold")
    return table


def _readable_depth(rows: Sequence[LayerRow]) -> int:
    from model_defs.counting import rows_at

    deepest = max(row.path.count(".") + 1 for row in rows)
    fitting = [depth for depth in range(1, deepest + 1) if len(rows_at(rows, depth)) <= _MAX_ROWS]
    return max(fitting, default=1)


def _plain_table(gap: int = 2) -> Table:
    return Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")


def _count(count: int) -> str:
    return f"{count:,}" if count else ""
