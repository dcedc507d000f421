"""All optimizers in one pair of axes: on the rate itself, and on the rate over each one's best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis.facts import AgainstAdam, OptimizerFacts, SweepFacts
from lrsweep.plot import legend, rail, style, tags, ticks
from lrsweep.plot.rail import Range, value_range
from lrsweep.plot.style import GREY, INK, SCREEN, Head, Look, Sheet
from lrsweep.plot.u_curves import (
    default_shown,
    draw_line_to_beat,
    draw_overlay,
    draw_row,
    left_room,
    line_to_beat,
    name_values,
    overlay_key,
    rate_range,
)
from lrsweep.wording import words

PANEL = (6.4, 4.0)
ROW = 0.26
"""Inches of a row beyond the axis."""
MISSED: tuple[int, tuple[int, ...]] = (0, (2, 2))
REACH = 300.0
"""The factor from the best rate beyond which the aligned overlay is cut."""


def overlay(facts: SweepFacts, looks: Sequence[Look], sheet: Sheet = SCREEN) -> Figure:
    """Median U-curves on one rate axis, with Adam at its default rate as the line to beat."""
    rows = facts.rows
    limits = overlay_range(rows, facts.mode)
    against = line_to_beat(facts, limits)
    key = [
        *legend.curves(rows, looks),
        *overlay_key(rows, limits),
        *([legend.adam(facts.adam, against)] if against else []),
    ]
    name = limits.scale.label(words.objective_axis_label(facts))
    page = style.page(
        [Head(title="")], f"{facts.name}: {words.objective_text(facts)}, all curves",
        words.budget_line(facts, sheet.setting), sheet, columns=1, panel=PANEL, legend=key,
        left=left_room(limits, name),
    )  # fmt: skip
    limits = rail.with_rows(limits, limits.rows, page.size[1], ROW)
    on_axes(page.panels[0], facts, looks, limits, against)
    name_values(page, 0, limits, name)
    return page.figure


def overlay_range(rows: Sequence[OptimizerFacts], mode: str) -> Range:
    found = value_range(rows, mode)
    return rail.with_rows(found, rail.of_medians(rows, found), PANEL[1], ROW)


def on_axes(
    ax: Axes, facts: SweepFacts, looks: Sequence[Look], limits: Range, against: AgainstAdam | None
) -> None:  # fmt: skip
    """The overlay in a panel that is there."""
    rail.open_axes(ax, limits)
    ticks.rate_axis(ax, *rate_range(facts.rows))
    ticks.mark_traditional(ax)
    draw_overlay(ax, facts.rows, looks, limits)
    draw_line_to_beat(ax, against)


def into(ax: Axes, facts: SweepFacts, looks: Sequence[Look]) -> None:
    """The U-curve in a panel of the user's: one row with its runs, or the medians of several."""
    rows, several = facts.rows, len(facts.rows) > 1
    found = value_range(rows, facts.mode)
    names = rail.of_medians(rows, found) if several else rail.statuses(rows, found)
    limits = rail.with_rows(found, names, ticks.inches(ax, upright=True))
    if several:
        against = line_to_beat(facts, limits)
        on_axes(ax, facts, looks, limits, against)
        key = [*legend.curves(rows, looks), *overlay_key(rows, limits)]
        key += [legend.adam(facts.adam, against)] if against else []
    else:
        rail.open_axes(ax, limits)
        ticks.rate_axis(ax, *rate_range(rows))
        ticks.mark_traditional(ax)
        draw_row(ax, rows[0], looks[0], limits)
        key = legend.of_runs(rows, limits, default=default_shown(rows[0]))
    rail.name_rows(ax, limits)
    ax.set_ylabel(limits.scale.label(words.objective_axis_label(facts)))
    shown = ax.legend(handles=key, fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    for text in (*shown.get_texts(), ax.yaxis.label):
        text.set_parse_math(False)  # labels and metrics are text, `$` too


def aligned(facts: SweepFacts, looks: Sequence[Look], sheet: Sheet = SCREEN) -> Figure:
    """Share of the gain that is lost by missing the best rate by a factor; who forgives a factor of 3 shows at the two
    vertical lines. 0 is the best of the grid, 1 the untrained model."""
    shown = [(row, one) for row, one in zip(facts.rows, looks, strict=True) if row.trained]
    key = legend.curves([row for row, _ in shown], [one for _, one in shown])
    key += legend.untrained([row for row, _ in shown])
    key.append(legend.good_range())
    key.append(legend.line("a factor of 3 from the best lr", color=INK, linestyle=MISSED, linewidth=0.9))
    left_out = [words.title(row) for row in facts.rows if not row.trained]
    note = f" · not shown (nothing trained): {', '.join(left_out)}" if left_out else ""
    name = "fraction of the improvement lost"
    page = style.page(
        [Head(title="")], f"{facts.name}: cost of a wrong lr, by {words.objective_axis_label(facts)}",
        words.budget_line(facts, sheet.setting) + note, sheet, columns=1, panel=PANEL, legend=key,
        left=style.left_room(0.3, name),
    )  # fmt: skip
    ax = page.panels[0]
    low, high = 1 / 3, 3.0
    for row, one in tags.each(ax, shown):
        x = np.array([point.lr / row.best_lr.value for point in row.rates])
        y = np.array([row.lost_share(point.objective) for point in row.rates])
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        inside = y <= 1.2
        ax.plot(x, np.clip(y, None, 1.3), color=one.color, linestyle=one.line, linewidth=1.6, zorder=4)
        ax.plot(x[inside], y[inside], **one.of_marks, markersize=4.5, zorder=5)
    _aligned_axes(ax, max(low, 1 / REACH) / 1.25, min(high, REACH) * 1.25)
    ax.set_xlabel("lr / best lr")
    style.y_label(ax, name, page.size[1])
    return page.figure


def _aligned_axes(ax: Axes, low: float, high: float) -> None:
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    factors = [3.0, 10.0, 30.0, 100.0]
    named = [*((1 / f, f"1/{f:g}") for f in reversed(factors)), (1.0, "best"), *((f, f"x{f:g}") for f in factors)]
    named = [(place, name) for place, name in named if low <= place <= high]
    places, names = zip(*named, strict=True)
    room = ticks.inches(ax) / math.log10(high / low)
    ticks.name_ticks(ax.xaxis, places, ticks.apart([math.log10(place) * room for place in places], names))
    for factor in (1 / 3, 3.0):
        ax.axvline(factor, color=INK, linestyle=MISSED, linewidth=0.9, zorder=2)
    ax.axhspan(-0.03, 0.05, color=style.GOOD, linewidth=0, zorder=0)
    ax.axhline(1.0, color=GREY, linestyle=legend.UNTRAINED, linewidth=1.0, zorder=1)
    ticks.value_axis(ax, ticks.value_scale(0.0, 1.0, log=False), low=-0.03, high=1.2)
    style.note(ax, "above 1: worse than untrained", (low, 1.2), (4, -9), size=7, color=GREY)
