"""The style of figures as matplotlib settings: a light grid, no frame, the colours of the pages."""

from __future__ import annotations

from typing import Any

from pipeline.html.theme import LIGHT


def figure_style(
    *, ink: str = LIGHT["ink"], muted: str = LIGHT["muted"], line: str = LIGHT["line"], size: float = 10
) -> dict[Any, Any]:
    """The settings for `matplotlib.rc_context`.

    Args:
        ink, muted, line: colours of the text, the axes and the grid.
        size: font size in points.
    """
    return {
        "font.size": size,
        "text.color": ink,
        # A name that contains $ is not a formula.
        "text.parse_math": False,
        "axes.edgecolor": line,
        "axes.labelcolor": muted,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": line,
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
    }
