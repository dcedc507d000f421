"""Three numbers side by side: sensitivity, width of the good range, and what default, middle and worst rate cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import legend, style
from lrsweep.plot.style import GREY, INK, RED, Look
from lrsweep.wording import words

BORDER = 1.12
"""The end of the axis of lost shares: a little more than all of the gain."""


def sensitivity(facts: SweepFacts, looks: Sequence[Look], setting: str = "") -> Figure:
    """Bars with intervals over seeds; every row of the summary, in the order of the spec."""
    rows = facts.rows
    tall = max(1.1, 0.3 * len(rows) + 0.3)
    names = max((style.width_of(words.title(row), 8.5) for row in rows), default=1.0)
    left = min(4.0, names + 0.25)
    numbers = max((style.width_of(far_text(row), 7.5) for row in rows), default=0.0)
    title = f"{facts.name}: learning-rate sensitivity, by {words.objective_text(facts)}"
    page = style.page(
        3, title, words.budget_line(facts, setting), columns=3, panel=(3.0, tall), left=left, right=0.25 + numbers,
        gap=(0.3, 0.4), legend=_handles(facts),
    )  # fmt: skip
    spread, width, cost = page.panels
    places = np.arange(len(rows))[::-1]
    _bars(spread, rows, looks, places)
    _basins(width, rows, looks, places)
    _costs(cost, rows, looks, places)
    for ax in page.panels:
        ax.set_ylim(-0.6, len(rows) - 0.4)
        titles = [style.fit(words.title(row), left - 0.2, 8) for row in rows] if ax is spread else [""] * len(rows)
        style.name_ticks(ax.yaxis, list(places), titles)
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
    style.panel_title(spread, "sensitivity S", "mean excess over the best (Wortsman et al. 2023)")
    style.panel_title(width, "good range (decades)", "arrow: extends past the grid")
    style.panel_title(cost, "fraction of the improvement lost", "0: best tried, 1: untrained")
    return page.figure


def _handles(facts: SweepFacts) -> list[Artist]:
    """An entry for every mark that is in the picture."""
    n = len(facts.seeds)
    rows = [row for row in facts.rows if row.trained]
    shares = [share for row in rows for share in shares_of(row)]
    found: list[Artist] = []
    if any(math.isfinite(row.sensitivity.whole.low) for row in facts.rows):
        bar = {"marker": "|", "markersize": 7}
        found.append(legend.line(f"95 % interval over {n} seeds", color=INK, linewidth=1.2, **bar))
    if any(math.isfinite(row.sensitivity.window) for row in facts.rows):
        found.append(legend.mark("D", "S over the best three decades", color=INK, size=5, markerfacecolor="white"))
    if any(not math.isnan(row.default.objective) and math.isfinite(row.default.lr) for row in rows):
        found.append(legend.mark("s", "at the default lr"))
    if rows:
        found.append(legend.mark("o", "median over the grid", size=6))
        found.append(legend.mark("|", "worst over the grid", size=10, markeredgewidth=2.2))
    if any(far_text(row) for row in rows):
        found.append(legend.mark(">", "off scale, with its value", color=INK, size=5))
    if any(math.isinf(share) for share in shares):
        found.append(legend.mark("s", "in red: diverged", color=RED))
    return found


def _finish_x(ax: Axes, top: float) -> None:
    top = top if top > 0 and math.isfinite(top) else 1.0
    ax.set_xlim(0, top * 1.12)
    style.plain_axis(ax, 0, top * 1.12)


def _bars(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    top = 0.0
    for row, one, y in zip(rows, looks, places, strict=True):
        whole = row.sensitivity.whole
        if not math.isfinite(whole.value):
            style.note(ax, "nothing trained", (0, y), (4, 0), va="center", size=7.5, color=GREY)
            continue
        ax.barh(y, whole.value, height=0.56, color=one.color, alpha=0.75, linewidth=0)
        if math.isfinite(whole.low):
            ax.plot([whole.low, whole.high], [y, y], color=INK, linewidth=1.2, marker="|", markersize=7)
        if math.isfinite(row.sensitivity.window):
            hollow: dict[str, Any] = {"marker": "D", "markersize": 5, "markerfacecolor": "white"}
            ax.plot([row.sensitivity.window], [y], **hollow, color=INK, linestyle="")
        top = max(top, whole.value, whole.high if math.isfinite(whole.high) else 0.0)
    _finish_x(ax, top)


def _basins(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    top = max(
        (row.good_range.decades for row in rows if row.trained and math.isfinite(row.good_range.decades)), default=1.0
    )
    for row, one, y in zip(rows, looks, places, strict=True):
        if not row.trained or not math.isfinite(row.good_range.decades):
            continue
        ax.barh(y, row.good_range.decades, height=0.56, color=one.color, alpha=0.75, linewidth=0)
        end = f"{'≥ ' * row.good_range.at_least}{row.good_range.decades:.2f}"
        if row.good_range.censored:
            ax.plot([row.good_range.decades], [y], marker=">", markersize=6, color=INK, linestyle="", clip_on=False)
        style.note(ax, end, (row.good_range.decades, y), (7, 0), va="center", size=7.5)
    _finish_x(ax, top * 1.2)


def shares_of(row: OptimizerFacts) -> tuple[float, float, float]:
    """The share of the gain that is lost at the worst rate, the median one and torch's default; nan: not known."""
    default = row.default.objective if math.isfinite(row.default.lr) else math.nan
    return _share(row, row.worst_objective), _share(row, row.median_objective), _share(row, default)


def _share(row: OptimizerFacts, objective: float) -> float:
    return math.nan if math.isnan(objective) else row.lost_share(objective)


def far_text(row: OptimizerFacts) -> str:
    """The finite shares that the axis does not reach, least first; "" if there is none."""
    far = {words.compact(share, 2) for share in shares_of(row) if BORDER < share < math.inf} if row.trained else ()
    return ", ".join(sorted(far, key=float))


def _costs(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    """What is beyond the axis stands at its border: with an arrow and its value, or in red where it diverged."""
    border = BORDER
    for row, one, y in zip(rows, looks, places, strict=True):
        if not row.trained:
            continue
        shares = shares_of(row)
        if text := far_text(row):
            ax.plot([border + 0.06], [y], marker=">", markersize=5, color=INK, linestyle="", clip_on=False, zorder=6)
            style.note(ax, text, (border + 0.06, y), (6, 0), va="center", size=7.5)
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
