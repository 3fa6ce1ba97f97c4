"""The look of figures as matplotlib's settings: a quiet grid, no frame, the colours of the pages."""

from __future__ import annotations

from typing import Any

from pipeline.html.theme import LIGHT


def figure_style(
    *, ink: str = LIGHT["ink"], muted: str = LIGHT["muted"], line: str = LIGHT["line"], size: float = 10
) -> dict[Any, Any]:
    """What `matplotlib.rc_context` takes.

    Args:
        ink, muted, line: colours of texts, of what belongs to the axes, and of the grid.
        size: of texts, in points.
    """
    return {
        "font.size": size,
        "text.color": ink,
        # A name with $ in it is no formula.
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
