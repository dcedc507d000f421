"""What the marks of a U-curve mean."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lrsweep.analysis.facts import OptimizerFacts
from lrsweep.plot.style import GREY, INK, RED


def legend(rows: Sequence[OptimizerFacts], *, worse_up: bool, beyond: bool) -> list[Artist]:
    statuses = {run.status for row in rows for run in row.runs}
    several = any(row.n_seeds > 1 for row in rows)
    handles: list[Artist] = [
        Line2D([], [], color=GREY, marker="o", markersize=3.4, linestyle="", label="one seed"),
        Line2D([], [], color=GREY, linewidth=1.6, marker="o", markersize=4, label="median over seeds"),
        *([Patch(color=GREY, alpha=0.3, linewidth=0, label="range over seeds")] if several else []),
        Line2D([], [], color=GREY, linestyle=(0, (5, 3)), linewidth=1, label="untrained model"),
        Patch(color=GREY, alpha=0.14, linewidth=0, label="basin: within 5 % of the gain"),
        Line2D(
            [], [], color=GREY, marker="*", markersize=10, markeredgecolor=INK, linestyle="", label="best of the grid"
        ),
        Line2D(
            [],
            [],
            markerfacecolor="none",
            markeredgecolor=INK,
            marker="o",
            markersize=10,
            linestyle="",
            label="recommended",
        ),
        Line2D([], [], color=INK, linestyle=(0, (7, 2, 1, 2)), linewidth=0.9, label="torch's default rate"),
    ]
    handles.append(
        Line2D([], [], color=INK, marker="^", markersize=5, linestyle="", label="0.01 and 0.1, the usual first tries")
    )
    if "diverged" in statuses:
        handles.append(
            Line2D([], [], color=RED, marker="x", markersize=5.5, linestyle="", label="diverged (a cross a run)")
        )
    if "failed" in statuses:
        handles.append(
            Line2D(
                [],
                [],
                markerfacecolor="none",
                markeredgecolor=INK,
                marker="s",
                markersize=5,
                linestyle="",
                label="failed",
            )
        )
    if beyond:
        handles.append(
            Line2D(
                [],
                [],
                color=GREY,
                marker="^" if worse_up else "v",
                markersize=5,
                linestyle="",
                label="finite, beyond the axis",
            )
        )
    return handles
