"""Three numbers side by side: sensitivity, width of the basin, and what default, middle and worst rate cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import style
from lrsweep.plot.overlays import lost_share
from lrsweep.plot.style import GREY, INK, RED, Look


def sensitivity(facts: SweepFacts, looks: Sequence[Look]) -> Figure:
    """Bars with intervals over seeds; every row of the summary, in the order of the spec."""
    rows = facts.rows
    tall = max(1.1, 0.3 * len(rows) + 0.3)
    names = max((style.width_of(row.title, 8.5) for row in rows), default=1.0)
    left = min(2.6, names + 0.25)
    page = style.page(3, columns=3, panel=(3.0, tall), left=left, gap=(0.3, 0.4), legend=_handles(facts))
    style.heading(page.figure, f"{facts.name}: how sensitive is each to its rate?", style.budget_line(facts))
    spread, width, cost = page.panels
    places = np.arange(len(rows))[::-1]
    _bars(spread, rows, looks, places)
    _basins(width, rows, looks, places)
    _costs(cost, rows, looks, places)
    for ax in page.panels:
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.yaxis.set_major_locator(FixedLocator(list(places)))
        titles = [style.fit(row.title, left - 0.2, 8) for row in rows] if ax is spread else [""] * len(rows)
        ax.yaxis.set_major_formatter(FixedFormatter(titles))
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
    style.panel_title(spread, "sensitivity S", "mean loss over the grid (Wortsman 2023)")
    style.panel_title(width, "basin, in decades", "rates within 5 % of the gain; arrow: the grid ends first")
    style.panel_title(cost, "share of the gain that is lost", "0: best of the grid, 1: untrained")
    return page.figure


def _handles(facts: SweepFacts) -> list[Artist]:
    n = len(facts.seeds)
    return [
        Line2D([], [], color=INK, linewidth=1.2, marker="|", markersize=7, label=f"95 % interval over {n} seed{'s' * (n != 1)}"),
        Line2D([], [], color=INK, marker="D", markersize=5, markerfacecolor="white", linestyle="", label="S over the best three decades"),
        Line2D([], [], color=GREY, marker="s", markersize=5.5, linestyle="", label="at torch's default rate"),
        Line2D([], [], color=GREY, marker="o", markersize=6, linestyle="", label="median over the grid"),
        Line2D([], [], color=GREY, marker="|", markersize=10, markeredgewidth=2.2, linestyle="", label="worst of the grid"),
        Line2D([], [], color=RED, marker="x", markersize=5.5, linestyle="", label="diverged"),
    ]  # fmt: skip


def _finish_x(ax: Axes, top: float) -> None:
    top = top if top > 0 and math.isfinite(top) else 1.0
    ax.set_xlim(0, top * 1.12)
    style.plain_axis(ax, 0, top * 1.12)


def _bars(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    top = 0.0
    for row, one, y in zip(rows, looks, places, strict=True):
        whole = row.sensitivity.whole
        if not math.isfinite(whole.value):
            ax.annotate(
                "nothing trained", (0, y), xytext=(4, 0), textcoords="offset points", va="center", size=7.5, color=GREY
            )
            continue
        ax.barh(y, whole.value, height=0.56, color=one.color, alpha=0.75, linewidth=0)
        if math.isfinite(whole.low):
            ax.plot([whole.low, whole.high], [y, y], color=INK, linewidth=1.2, marker="|", markersize=7)
        if math.isfinite(row.sensitivity.window):
            ax.plot(
                [row.sensitivity.window],
                [y],
                marker="D",
                markersize=5,
                markerfacecolor="white",
                color=INK,
                linestyle="",
            )
        top = max(top, whole.value, whole.high if math.isfinite(whole.high) else 0.0)
    _finish_x(ax, top)


def _basins(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    top = max((row.basin.decades for row in rows if row.trained and math.isfinite(row.basin.decades)), default=1.0)
    for row, one, y in zip(rows, looks, places, strict=True):
        if not row.trained or not math.isfinite(row.basin.decades):
            continue
        ax.barh(y, row.basin.decades, height=0.56, color=one.color, alpha=0.75, linewidth=0)
        end = f"{row.basin.decades:.2f}"
        if row.basin.censored:
            ax.plot([row.basin.decades], [y], marker=">", markersize=6, color=INK, linestyle="", clip_on=False)
            end = f"≥ {end}"
        ax.annotate(
            end,
            (row.basin.decades, y),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            size=7.5,
            annotation_clip=False,
        )
    _finish_x(ax, top * 1.2)


def _costs(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    """Costs beyond the untrained model stand at the right border; a cross there means diverged."""
    border = 1.12
    for row, one, y in zip(rows, looks, places, strict=True):
        if not row.trained:
            continue
        marks = (
            (row.median_objective, "o", 6.5, 1.0),
            (row.worst_objective, "|", 11.0, 2.2),
            (row.default.objective if math.isfinite(row.default.lr) else math.nan, "s", 5.5, 1.0),
        )
        shares = [(lost_share(row, value), *how) for value, *how in marks if not math.isnan(value)]
        ax.plot(
            [0, min(max((s[0] for s in shares), default=0.0), border)],
            [y, y],
            color=one.color,
            linewidth=1.0,
            alpha=0.6,
        )
        for share, marker, size, edge in shares:
            gone = not math.isfinite(share)
            ax.plot(
                [min(share, border)], [y], marker="x" if gone else marker, markersize=5.5 if gone else size,
                color=RED if gone else one.color, markeredgewidth=1.3 if gone else edge, linestyle="", clip_on=False,
                zorder=6 if gone else 5,
            )  # fmt: skip
    ax.axvline(1.0, color=GREY, linestyle=(0, (5, 3)), linewidth=1.0)
    ax.set_xlim(-0.03, border + 0.03)
    style.plain_axis(ax, 0, 1)
