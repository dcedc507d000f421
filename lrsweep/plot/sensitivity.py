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

from lrsweep import words
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import style
from lrsweep.plot.overlays import lost_share
from lrsweep.plot.style import GREY, INK, RED, Look


def sensitivity(facts: SweepFacts, looks: Sequence[Look]) -> Figure:
    """Bars with intervals over seeds; every row of the summary, in the order of the spec."""
    rows = facts.rows
    tall = max(1.1, 0.3 * len(rows) + 0.3)
    names = max((style.width_of(words.title(row), 8.5) for row in rows), default=1.0)
    left = min(2.6, names + 0.25)
    page = style.page(3, columns=3, panel=(3.0, tall), left=left, gap=(0.3, 0.4), legend=_handles(facts))
    style.heading(page.figure, f"{facts.name}: how sensitive is each to its rate?", words.budget_line(facts))
    spread, width, cost = page.panels
    places = np.arange(len(rows))[::-1]
    _bars(spread, rows, looks, places)
    _basins(width, rows, looks, places)
    _costs(cost, rows, looks, places)
    for ax in page.panels:
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.yaxis.set_major_locator(FixedLocator(list(places)))
        titles = [style.fit(words.title(row), left - 0.2, 8) for row in rows] if ax is spread else [""] * len(rows)
        ax.yaxis.set_major_formatter(FixedFormatter(titles))
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
    style.panel_title(spread, "sensitivity S", "mean loss over the grid (Wortsman 2023)")
    style.panel_title(width, "basin, in decades", "rates within 5 % of the gain; arrow: the grid ends first")
    style.panel_title(cost, "share of the gain that is lost", "0: best of the grid, 1: untrained")
    return page.figure


def _handles(facts: SweepFacts) -> list[Artist]:
    n = len(facts.seeds)
    interval = f"95 % interval over {n} seed{'s' * (n != 1)}"
    diamond = {"color": INK, "marker": "D", "markersize": 5, "markerfacecolor": "white"}
    red = "in red: diverged"
    return [
        Line2D([], [], color=INK, linewidth=1.2, marker="|", markersize=7, label=interval),
        Line2D([], [], linestyle="", label="S over the best three decades", **diamond),  # type: ignore[arg-type]
        Line2D([], [], color=GREY, marker="s", markersize=5.5, linestyle="", label="at torch's default rate"),
        Line2D([], [], color=GREY, marker="o", markersize=6, linestyle="", label="median rate of the grid"),
        Line2D([], [], color=GREY, marker="|", markersize=10, markeredgewidth=2.2, linestyle="", label="worst rate"),
        Line2D([], [], color=RED, marker="s", markersize=5.5, linestyle="", label=red),
    ]


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
        at = (row.basin.decades, y)
        ax.annotate(end, at, xytext=(7, 0), textcoords="offset points", va="center", size=7.5, annotation_clip=False)
    _finish_x(ax, top * 1.2)


def _costs(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    """What is worse than the untrained model stands at the right border, in red where it diverged."""
    border = 1.12
    for row, one, y in zip(rows, looks, places, strict=True):
        if not row.trained:
            continue
        default = row.default.objective if math.isfinite(row.default.lr) else math.nan
        shares = [lost_share(row, value) for value in (row.worst_objective, row.median_objective, default)]
        far = min(max((share for share in shares if not math.isnan(share)), default=0.0), border)
        ax.plot([0, far], [y, y], color=one.color, linewidth=1.0, alpha=0.6)
        for share, (marker, size, edge) in zip(
            shares, (("|", 11.0, 2.2), ("o", 6.5, 1.0), ("s", 5.5, 1.0)), strict=True
        ):
            if not math.isnan(share):
                ax.plot(
                    [min(share, border)], [y], marker=marker, markersize=size, markeredgewidth=edge, linestyle="",
                    color=one.color if math.isfinite(share) else RED, clip_on=False, zorder=5,
                )  # fmt: skip
    ax.axvline(1.0, color=GREY, linestyle=(0, (5, 3)), linewidth=1.0)
    ax.set_xlim(-0.03, border + 0.03)
    style.plain_axis(ax, 0, 1)
