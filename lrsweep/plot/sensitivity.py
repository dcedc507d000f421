"""Three numbers per optimizer side by side: sensitivity, good range, and what the default learning rate costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis.facts import Interval, OptimizerFacts, SweepFacts
from lrsweep.plot import legend, style, tags, ticks
from lrsweep.plot.style import GREY, INK, RED, SCREEN, Head, Look, Sheet
from lrsweep.plot.text import width_of, wrap
from lrsweep.wording import words

BORDER = 1.12
"""The end of the axis of lost shares: a little more than all of the improvement."""
ROW = 0.3
"""Inches of a row."""
NAMES = 3.0
"""Inches that the longest name takes."""


def sensitivity(facts: SweepFacts, looks: Sequence[Look], sheet: Sheet = SCREEN) -> Figure:
    """A dot per row of the summary, in the order of the spec, with its interval over seeds."""
    rows = facts.rows
    room = NAMES if sheet.width is None else min(NAMES, 0.4 * sheet.width)
    titles = ["\n".join(wrap(words.title(row), room, ticks.SIZE, most=2)) for row in rows]
    numbers = max((width_of(far_text(row), 7.5) for row in rows), default=0.0)
    heads = [
        Head(title="sensitivity S", facts=f"mean distance from the best, in {facts.metric}"),
        Head(title="good range", facts="learning rates that keep 95 % of the improvement"),
        Head(title="cost of the default lr", facts="fraction of the improvement lost"),
    ]
    page = style.page(
        heads, f"{facts.name}: learning-rate sensitivity, by {words.objective_text(facts)}",
        words.budget_line(facts, sheet.setting), sheet, columns=3, panel=(2.9, max(0.9, ROW * len(rows) + 0.3)),
        left=max((width_of(title, ticks.SIZE) for title in titles), default=1.0) + 0.25, right=0.25 + numbers,
        gap=(0.3, 0.55), legend=_handles(facts), tall=True,
    )  # fmt: skip
    places = np.arange(len(rows))[::-1]
    spread, width, cost = page.panels
    _spreads(spread, rows, looks, places)
    _good_ranges(width, rows, looks, places)
    _costs(cost, rows, looks, places)
    for index, ax in enumerate(page.panels):
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ticks.name_ticks(ax.yaxis, list(places), titles if page.left_column(index) else [""] * len(rows))
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
    several = [row for row in rows if row.trained and row.n_rates > 1]
    window = ", best three decades" * (bool(several) and all(math.isfinite(r.sensitivity.window) for r in several))
    spread.set_xlabel(f"S{window} ({facts.metric})")
    width.set_xlabel("learning rate")
    cost.set_xlabel("0: best tried, 1: untrained")
    return page.figure


def _shown(row: OptimizerFacts) -> Interval:
    """S over the best three decades, or over the whole grid where that has no three decades."""
    found = row.sensitivity
    return found.window_interval if math.isfinite(found.window) else found.whole


def _handles(facts: SweepFacts) -> list[Artist]:
    """An entry for every mark that is in the figure."""
    rows = [row for row in facts.rows if row.trained]
    several = [row for row in rows if row.n_rates > 1]
    known = [row for row in rows if math.isfinite(row.sensitivity.window)]
    found: list[Artist] = []
    if known:
        found.append(legend.mark("o", "S over the best three decades", size=6))
    if len(known) < len(several):
        found.append(legend.mark("D", "S over the whole grid (no window of three decades)", size=5))
    if any(math.isfinite(_shown(row).low) for row in several):
        found.append(legend.line(words.interval_name(len(facts.seeds)), color=INK, linewidth=1.2))
    if rows:
        found.append(legend.line("good range", linewidth=4, alpha=0.6))
        found.append(legend.mark("|", "best learning rate tried", size=9, color=INK))
    if any(row.good_range.censored for row in rows):
        found.append(legend.mark(">", "good range may extend further", color=INK, size=5))
    if any(_share(row) <= BORDER for row in rows):
        found.append(legend.mark("s", "at the default lr", size=5.5))
    if any(far_text(row) for row in rows):
        found.append(legend.mark("4", "off scale, with its value", color=INK, size=8))
    if any(math.isinf(_share(row)) for row in rows):
        found.append(legend.mark("x", "diverged", color=RED))
    return found


def _spreads(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    top = 0.0
    for row, one, y in tags.each(ax, zip(rows, looks, places, strict=True)):
        shown = _shown(row)
        if not row.trained or not math.isfinite(shown.value) or row.n_rates == 1:
            why = "only one learning rate" if row.trained and row.n_rates == 1 else "nothing trained"
            style.note(ax, why, (0, y), (4, 0), va="center", size=7.5, color=GREY)
            continue
        if math.isfinite(shown.low):
            ax.plot([shown.low, shown.high], [y, y], color=INK, linewidth=1.2)
        marker, size = ("o", 6.5) if math.isfinite(row.sensitivity.window) else ("D", 5.5)
        ax.plot([shown.value], [y], marker=marker, markersize=size, color=one.color, linestyle="", zorder=5)
        top = max(top, *(value for value in (shown.value, shown.high) if math.isfinite(value)))
    top = top * 1.08 if top > 0 and math.isfinite(top) else 1.0
    scale = ticks.value_scale(0.0, top, log=False)
    ax.set_xlim(0, top)
    ticks.name_ticks(ax.xaxis, scale.ticks, scale.texts)
    if scale.exponent:
        style.note(ax, scale.label("S"), (1, 0), (0, 3), xycoords="axes fraction", size=7.5, color=GREY, ha="right")


def _good_ranges(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    rates = [point.lr for row in rows for point in row.rates] or [1e-6, 1.0]
    ticks.rate_axis(ax, min(rates), max(rates), label=None)
    for row, one, y in tags.each(ax, zip(rows, looks, places, strict=True)):
        found = row.good_range
        if not row.trained or not math.isfinite(found.decades):
            continue
        ax.plot([found.low, found.high], [y, y], color=one.color, linewidth=4, alpha=0.6, solid_capstyle="butt")
        ax.plot([row.best_lr.value], [y], marker="|", markersize=8, color=INK, linestyle="", zorder=5)
        for open_end, end, marker in ((found.censored_low, found.low, "<"), (found.censored_high, found.high, ">")):
            if open_end:
                ax.plot([end], [y], marker=marker, markersize=5, color=INK, linestyle="", clip_on=False, zorder=6)
        text = f"{'≥ ' * found.at_least}{words.decades_text(row)} decades"
        width = row.good_range_decades
        text += f" [{width.low:.1f}, {width.high:.1f}]" if math.isfinite(width.low) else ""
        left, right = ax.transData.inverted().transform(ax.transAxes.transform([(0, 0), (1, 0)]))[:, 0]
        middle = math.sqrt(found.low * found.high)
        half = (right / left) ** (0.5 * width_of(text, 6.5) / ticks.inches(ax))  # of the text, as a factor
        middle = min(max(middle, left * half), right / half)
        style.note(ax, text, (middle, y), (0, -10), ha="center", size=6.5)


def _share(row: OptimizerFacts) -> float:
    """The share of the improvement that is lost at the default rate; nan: not known."""
    if not row.trained or not math.isfinite(row.default.lr) or math.isnan(row.default.objective):
        return math.nan
    return row.lost_share(row.default.objective)


def far_text(row: OptimizerFacts) -> str:
    """The share that the axis does not reach, if it is finite."""
    share = _share(row)
    return words.compact(share, 2) if BORDER < share < math.inf else ""


def _costs(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], places: style.Ints) -> None:
    for row, one, y in tags.each(ax, zip(rows, looks, places, strict=True)):
        share = _share(row)
        if math.isnan(share):
            if row.trained:
                style.note(ax, "default lr not in the grid", (0, y), (4, 0), va="center", size=7.5, color=GREY)
            continue
        far, mark = min(share, BORDER), "x" if math.isinf(share) else "s"
        ax.plot([0, far], [y, y], color=one.color, linewidth=1.0, alpha=0.6)
        if text := far_text(row):
            ax.plot([far], [y], marker="4", markersize=8, color=INK, linestyle="", clip_on=False, zorder=6)
            style.note(ax, text, (far, y), (8, 0), va="center", size=7.5)
        else:
            ink = RED if mark == "x" else one.color
            ax.plot([far], [y], marker=mark, markersize=5.5, linestyle="", color=ink, clip_on=False, zorder=5)
            if row.default.interpolated:
                style.note(ax, "interpolated", (far, y), (7, 0), va="center", size=6.5, color=GREY)
    ax.axvline(1.0, color=GREY, linestyle=legend.UNTRAINED, linewidth=1.0)
    ax.set_xlim(-0.03, BORDER + 0.03)
    ticks.plain_axis(ax, 0, 1)
