"""All optimizers in one pair of axes: on the rate itself, and on the rate over each one's best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis.facts import AgainstAdam, OptimizerFacts, SweepFacts
from lrsweep.plot import legend, rail, style, tags, ticks
from lrsweep.plot.facets import color_axis, looks_of
from lrsweep.plot.rail import Range, value_range
from lrsweep.plot.style import GREY, INK, LINES, MARKERS, SCREEN, Head, Look, Sheet
from lrsweep.plot.text import fit
from lrsweep.plot.u_curves import (
    DOTTED,
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

PANEL, FACET = (6.4, 4.0), (4.0, 2.9)
"""Inches of the one panel, and of one among others."""
ROW = 0.26
"""Inches of a row beyond the axis."""
MISSED: tuple[int, tuple[int, ...]] = (0, (2, 2))
GONE = 1.17
"""Where the aligned overlay marks rates at which half or more of the seeds diverged."""
REACH = 300.0
"""The factor from the best rate beyond which the aligned overlay is cut."""


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The panels with what their curves share, the rows in each and their looks; what says which curve is which."""

    heads: list[Head]
    rows: list[list[OptimizerFacts]]
    looks: list[list[Look]]
    key: list[Artist]

    @property
    def columns(self) -> int:
        return style.columns_for(len(self.heads), widest=3)

    @property
    def panel(self) -> tuple[float, float]:
        return PANEL if len(self.heads) == 1 else FACET


def _layout(facts: SweepFacts, looks: Sequence[Look], rows: Sequence[OptimizerFacts]) -> _Layout:
    """One panel with a look per row of `looks`. With two axes or more it would be crowded: then a panel per value of
    the others, a color per value of one, and a line and marker per optimizer."""
    several = [axis for axis in facts.axes if len({row.axes[axis] for row in facts.rows}) > 1]
    crossed = len(several) > 1 and len({row.optimizer for row in facts.rows}) < len(facts.rows)
    if not crossed:
        own = dict(zip(map(id, facts.rows), looks, strict=True))
        kept = [own[id(row)] for row in rows]
        return _Layout(heads=[Head(title="")], rows=[list(rows)], looks=[kept], key=legend.curves(rows, kept))
    axis = color_axis(facts)
    values = list(dict.fromkeys(row.axes[axis] for row in facts.rows))
    colors = dict(zip(values, looks_of(values), strict=True))
    labels = list(dict.fromkeys(row.optimizer for row in facts.rows))
    shapes = {
        label: Look(color=GREY, line=LINES[number % len(LINES)], marker=MARKERS[number % len(MARKERS)])
        for number, label in enumerate(labels)
    }
    panels: dict[str, list[OptimizerFacts]] = {}
    for row in rows:
        held = {name: value for name, value in row.axes.items() if name != axis and name in several}
        panels.setdefault(words.axes_text(held), []).append(row)
    key: list[Artist] = [
        legend.line(words.axes_text({axis: value}), color=colors[value].color, linewidth=1.6) for value in values
    ]
    key += [
        legend.line(fit(label, 5.0, 8), **one.of_line, markersize=4.5, linewidth=1.6) for label, one in shapes.items()
    ]
    found = [
        [replace(shapes[row.optimizer], color=colors[row.axes[axis]].color) for row in some] for some in panels.values()
    ]
    return _Layout(heads=[Head(title=held) for held in panels], rows=list(panels.values()), looks=found, key=key)


def overlay(facts: SweepFacts, looks: Sequence[Look], sheet: Sheet = SCREEN) -> Figure:
    """Median U-curves on one rate axis, with Adam at its default rate as the line to beat; with two axes, in a panel
    for each value of one."""
    rows = facts.rows
    limits = overlay_range(rows, facts.mode)
    against = line_to_beat(facts, limits)
    layout = _layout(facts, looks, rows)
    key = [*layout.key, *overlay_key(rows, limits), *([legend.adam(facts.adam, against)] if against else [])]
    name = limits.scale.label(words.objective_axis_label(facts))
    page = style.page(
        layout.heads, f"{facts.name}: {words.objective_text(facts)}, all curves",
        words.budget_line(facts, sheet.setting), sheet, columns=layout.columns, panel=layout.panel, legend=key,
        left=left_room(limits, name), gap=(0.22, 0.36),
    )  # fmt: skip
    limits = rail.with_rows(limits, limits.rows, page.size[1], ROW)
    for index, ax in enumerate(page.panels):
        rail.open_axes(ax, limits)
        ticks.rate_axis(ax, *rate_range(rows), label="learning rate" if page.bottom_row(index) else None)
        ticks.mark_traditional(ax)
        draw_overlay(ax, layout.rows[index], layout.looks[index], limits)
        draw_line_to_beat(ax, against)
        name_values(page, index, limits, name)
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
    ax.yaxis.label.set_parse_math(False)  # labels and metrics are text, `$` too
    legend.beside(ax, key)


def aligned(facts: SweepFacts, looks: Sequence[Look], sheet: Sheet = SCREEN) -> Figure:
    """Share of the gain that is lost by missing the best rate by a factor; who forgives a factor of 3 shows at the two
    vertical lines. 0 is the best of the grid, 1 the untrained model."""
    shown = [row for row in facts.rows if row.trained]
    layout = _layout(facts, looks, shown)
    key = [*layout.key, *legend.untrained(shown)]
    key.append(legend.good_range())
    if any(math.isinf(point.objective) and point.n_diverged for row in shown for point in row.rates):
        key.append(legend.mark("x", "half or more of the seeds diverged"))
    key.append(legend.line("a factor of 3 from the best lr", color=INK, linestyle=MISSED, linewidth=0.9))
    left_out = [words.title(row) for row in facts.rows if not row.trained]
    note = f" · not shown (nothing trained): {', '.join(left_out)}" if left_out else ""
    name = "fraction of the improvement lost"
    page = style.page(
        layout.heads, f"{facts.name}: cost of a wrong lr, by {words.objective_axis_label(facts)}",
        words.budget_line(facts, sheet.setting) + note, sheet, columns=layout.columns, panel=layout.panel, legend=key,
        left=style.left_room(0.3, name), gap=(0.22, 0.36),
    )  # fmt: skip
    factors = [point.lr / row.best_lr.value for row in shown for point in row.rates]
    low, high = max(min(1 / 3, *factors), 1 / REACH) / 1.25, min(max(3.0, *factors), REACH) * 1.25
    for index, (ax, rows, some) in enumerate(zip(page.panels, layout.rows, layout.looks, strict=True)):
        for row, one in tags.each(ax, zip(rows, some, strict=True)):
            _draw_aligned(ax, row, one)
        _aligned_axes(ax, low, high)
        if page.bottom_row(index):
            ax.set_xlabel("lr / best lr")
        if page.left_column(index):
            style.y_label(ax, name, page.size[1])
        else:
            ax.tick_params(labelleft=False)
    return page.figure


def _draw_aligned(ax: Axes, row: OptimizerFacts, look: Look) -> None:
    """Where every run failed the line has a gap; where half or more of the seeds diverged a dotted line leads to a
    cross at the top."""
    points = [point for point in row.rates if point.n_runs > point.n_failed]
    x = np.array([point.lr / row.best_lr.value for point in points])
    lost = np.array([row.lost_share(point.objective) for point in points])
    y = np.where(np.isfinite(lost), np.clip(lost, None, 1.3), GONE)
    for i, j in itertools.pairwise(range(len(points))):
        if any(points[i].lr < lr < points[j].lr for lr in row.failed_lrs):
            continue
        line = look.line if np.isfinite(lost[[i, j]]).all() else DOTTED
        if np.isfinite(lost[[i, j]]).any():
            ax.plot(x[[i, j]], y[[i, j]], color=look.color, linestyle=line, linewidth=1.6, zorder=4)
    inside, gone = lost <= 1.2, np.isinf(lost)
    ax.plot(x[inside], y[inside], **look.of_marks, markersize=4.5, zorder=5)
    ax.plot(x[gone], y[gone], color=look.color, marker="x", markersize=5, linestyle="", zorder=5)


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
