"""`tutelage presets`: the presets and what each trains."""

from __future__ import annotations

import json

from rich.table import Table
from rich.text import Text

from flows.cli.console import Console
from flows.presets import DEFAULT_PRESET, PRESETS


def list_presets(*, as_json: bool) -> int:
    """Prints the name and the summary of each preset."""
    if as_json:
        listed = [
            {"name": name, "aliases": preset.aliases, "summary": preset.summary} for name, preset in PRESETS.items()
        ]
        print(json.dumps(listed, indent=1))
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, preset in PRESETS.items():
        notes = [f"Also called {alias}." for alias in preset.aliases]
        if name == DEFAULT_PRESET:
            notes.append("The default.")
        table.add_row(Text(name, "bold"), " ".join([preset.summary, *notes]))
    console = Console()
    console.print(table)
    console.print("\ntutelage config FLOW --preset NAME prints the parameters of one", style="dim")
    return 0
