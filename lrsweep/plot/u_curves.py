"""The U-curve: objective against learning rate, a panel per optimizer and one with all medians (more in overlays.py;
sweeps with axes in facets.py).

Nothing is dropped, and nothing sets the limits but what can be compared: see rail.py for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from lrsweep.analysis.facts import AgainstAdam, OptimizerFacts, RatePoint, SweepFacts
from lrsweep.plot import legend as keys
from lrsweep.plot import rail, style, tags, ticks
from lrsweep.plot.rail import Range, value_range
from lrsweep.plot.style import GREY, INK, SCREEN, Head, Look, Page, Sheet
from lrsweep.wording import advice, words

KEY = 0.13
"""Share of the width of a panel that the key in its title takes."""
LARGE, SMALL = (5.6, 3.4), (3.3, 2.35)
"""Inches of a panel that is alone, and of one among others."""
DOTTED = (0, (1, 1.5))
MOST_DOTS = 1000
"""More dots than this in a panel are one image in an SVG or a PDF, whose size grows with every dot otherwise."""


def rate_range(rows: Iterable[OptimizerFacts]) -> tuple[float, float]:
    """The lowest and the highest rate of all rows."""
    rates = [point.lr for row in rows for point in row.rates] or [1e-6, 1.0]
    return min(rates), max(rates)


# --- one curve ----------------------------------------------------------------------------------------------------


def draw_median(ax: Axes, row: OptimizerFacts, looks: Look, limits: Range, *, size: float = 4) -> None:
    """The median line. To a rate that diverged a dotted arm goes to the rail; to one whose median is finite but off
    the scale the line itself goes on."""
    x, y = np.array([point.lr for point in row.rates]), np.array([point.objective for point in row.rates])
    inside = np.array([limits.inside(value) for value in y], dtype=bool)
    (median,) = ax.plot(x, np.where(inside, y, np.nan), **looks.of_line, markersize=size, linewidth=1.6, zorder=4)
    tags.rates(median, row, x[inside].tolist())
    for i in range(len(x) - 1):
        if inside[i] != inside[i + 1] and not (np.isnan(y[i]) or np.isnan(y[i + 1])):
            finite = limits.beyond(y[i + 1] if inside[i] else y[i])
            name = rail.OFF if finite else rail.DIVERGED
            (end,) = rail.data_y(ax, limits.place(name)) if name in limits.rows else (limits.edge,)
            ends = (y[i], end) if inside[i] else (end, y[i + 1])
            how: Any = looks.line if finite else DOTTED
            ax.plot(x[i : i + 2], ends, color=looks.color, linestyle=how, linewidth=1.6 if finite else 1.3, zorder=3)


def draw_spread(ax: Axes, row: OptimizerFacts, color: str, limits: Range) -> None:
    """The range over a few seeds as a thin line at each rate, or the band between the quartiles of many. A diverged
    seed takes it to the end of the axis."""
    if row.n_seeds <= keys.FEW_SEEDS:
        low, high = zip(*(extremes(point, limits) for point in row.rates), strict=True)
        ax.vlines([point.lr for point in row.rates], low, high, color=color, linewidth=1.0, alpha=0.8, zorder=3)
        return
    low, high = zip(*(quartiles(row, point, limits) for point in row.rates), strict=True)
    known = np.isfinite(low) & np.isfinite(high)
    rates = [point.lr for point in row.rates]
    ax.fill_between(rates, low, high, where=known, color=color, alpha=0.2, linewidth=0, zorder=2)


def extremes(point: RatePoint, limits: Range) -> tuple[float, float]:
    best = limits.edge if limits.beyond(point.best) else point.best
    worst = limits.edge if point.n_diverged or limits.beyond(point.worst) else point.worst
    return best, worst


def quartiles(row: OptimizerFacts, point: RatePoint, limits: Range) -> tuple[float, float]:
    """The second best and the second worst quarter begin here: values that were seen, none between two of them."""
    found = [run.objective for run in row.runs if run.lr == point.lr and run.status == "ok"]
    found = [limits.edge if limits.beyond(value) or not math.isfinite(value) else value for value in found]
    found += [limits.edge] * point.n_diverged
    if not found:
        return math.nan, math.nan
    low, high = np.quantile(found, (0.25, 0.75), method="inverted_cdf")
    return float(low), float(high)


def draw_row(ax: Axes, row: OptimizerFacts, looks: Look, limits: Range) -> None:
    """One optimizer: dots, median, spread, rail, good range, and the rates that matter. The rate axis is there."""
    tags.panel(ax, row.title)
    bottom, top = (0.0, 1 - limits.rail) if limits.worse_up else (limits.rail, 1.0)
    if row.trained and math.isfinite(row.good_range.low):
        ends = row.good_range.low, row.good_range.high
        ax.axvspan(*ends, bottom, top, color=style.GOOD, linewidth=0, zorder=0)
        if ends[0] == ends[1]:  # of no width
            ax.axvline(ends[0], bottom, top, color=style.GOOD, linewidth=4, zorder=0)
    if math.isfinite(row.initial_objective):
        ax.axhline(row.initial_objective, color=GREY, linestyle=keys.UNTRAINED, linewidth=1.0, zorder=1)
    if default_shown(row):
        ax.axvline(row.default.lr, bottom, top, color=INK, linestyle=keys.DEFAULT, linewidth=0.9, zorder=1)
    if row.n_seeds > 1:
        draw_spread(ax, row, looks.color, limits)
    dots = [run for run in row.runs if run.status == "ok" and limits.inside(run.objective)]
    size = 11 if len(row.runs) <= 300 else 5
    x, y = [run.lr for run in dots], [run.objective for run in dots]
    crowded = len(dots) > MOST_DOTS
    marks = ax.scatter(x, y, s=size, color=looks.color, alpha=0.55, linewidth=0, zorder=3, rasterized=crowded)
    tags.runs(marks, row, [run.run_id for run in dots])
    draw_median(ax, row, looks, limits, size=3.6 if len(row.rates) <= 30 else 2)
    rail.draw(ax, row, limits)
    _marks(ax, row, looks, limits)


def default_shown(row: OptimizerFacts) -> bool:
    return len(row.rates) > 1 and row.rates[0].lr / 1.5 <= row.default.lr <= row.rates[-1].lr * 1.5


def _marks(ax: Axes, row: OptimizerFacts, looks: Look, limits: Range) -> None:
    """A star at the best rate, a ring around the recommended one."""
    at = {point.lr: point.objective for point in row.rates}
    chosen = at.get(row.recommended_lr, math.nan)
    if row.trained and limits.inside(chosen):
        ax.scatter(
            [row.recommended_lr], [chosen], s=130, marker="o", facecolor="none", edgecolor=INK, linewidth=1.2, zorder=7
        )
    if row.trained and limits.inside(row.best_objective):
        draw_star(ax, row, looks.color)


def draw_star(ax: Axes, row: OptimizerFacts, color: str) -> None:
    """At the best rate."""
    at = [row.best_lr.value], [row.best_objective]
    ax.scatter(*at, s=95, marker="*", color=color, edgecolor=INK, linewidth=0.7, zorder=8)


def title_key(page: Page, index: int, looks: Look) -> None:
    """Line and marker of the curve at the right end of the panel's title, so that the overlay needs no legend of its
    own."""
    ax = page.panels[index]
    lift = ScaledTranslation(0, page.title_height(index) / 72, page.figure.dpi_scale_trans)
    ax.plot(
        [1 - KEY, 1 - KEY / 2, 1.0], [1.0] * 3, **looks.of_line, linewidth=1.6, markersize=4.5, markevery=[1],
        transform=ax.transAxes + lift, clip_on=False,
    )  # fmt: skip


# --- figures ------------------------------------------------------------------------------------------------------


def scales_differ(rows: Sequence[OptimizerFacts]) -> bool:
    """Rows whose untrained losses lie apart (an axis that changes the task) get their own objective axes."""
    start = [row.initial_objective for row in rows if math.isfinite(row.initial_objective)]
    best = [row.best_objective for row in rows if math.isfinite(row.best_objective)]
    if not start or not best:
        return False
    return abs(max(start) - min(start)) > 0.5 * min(abs(s - min(best)) or 1.0 for s in start)


def u_curve(facts: SweepFacts, looks: Sequence[Look], sheet: Sheet = SCREEN) -> Figure:
    """A panel per row of the summary, and last the overlay of all."""
    rows = facts.rows
    several = len(rows) > 1
    count = len(rows) + several
    columns, panel = style.columns_for(count), SMALL if several else LARGE
    common = value_range(rows, facts.mode)
    common = rail.with_rows(common, rail.statuses(rows, common), panel[1])
    against = line_to_beat(facts, common) if several else None
    legend = keys.of_runs(rows, common, default=any(map(default_shown, rows)))
    legend += [keys.adam(facts.adam, against)] if against else []
    reserved = KEY * panel[0] + 0.2 if several else 0.0
    heads = [
        Head(
            title=row.optimizer, facts=keys.below_title(row, words.facts_line(row)), warning=advice.warning_line(row),
            reserved=reserved,
        )
        for row in rows
    ]  # fmt: skip
    heads += [Head(title="all optimizers", facts="medians over seeds")] * several
    name = common.scale.label(words.objective_axis_label(facts))
    page = style.page(
        heads, f"{facts.name}: {words.objective_text(facts)} by learning rate", words.budget_line(facts, sheet.setting),
        sheet, columns=columns, panel=panel, legend=legend, left=left_room(common, name), gap=(0.22, 0.36),
    )  # fmt: skip
    common = rail.with_rows(common, common.rows, page.size[1])
    for index, ax in enumerate(page.panels):
        rail.open_axes(ax, common)
        ticks.rate_axis(ax, *rate_range(rows), label="learning rate" if page.bottom_row(index) else None)
        ticks.mark_traditional(ax)
        if index < len(rows):
            draw_row(ax, rows[index], looks[index], common)
            if several:
                title_key(page, index, looks[index])
        else:
            draw_overlay(ax, rows, looks, common)
            draw_line_to_beat(ax, against)
        name_values(page, index, common, name)
    return page.figure


def left_room(limits: Range, name: str) -> float:
    """Inches left of a panel for the numbers at its ticks, the rows of its rail, and its name."""
    return style.left_room(max(limits.scale.width, limits.names_width), name)


def name_values(page: Page, index: int, limits: Range, name: str) -> None:
    """What a panel at the left shows along y; the others share its axis."""
    ax = page.panels[index]
    if page.left_column(index):
        style.y_label(ax, name, page.size[1], beyond=limits.names_width - limits.scale.width)
        rail.name_rows(ax, limits)
    else:
        ax.tick_params(labelleft=False)


def draw_overlay(ax: Axes, rows: Sequence[OptimizerFacts], looks: Sequence[Look], limits: Range) -> None:
    """The median curves of all rows; `overlay_key` says what its marks mean. The axes are there."""
    for row, one, number in tags.each(ax, zip(rows, looks, range(1, len(rows) + 1), strict=True)):
        draw_median(ax, row, one, limits, size=4)
        # Crosses stand at the curve's own height on the rail.
        _overlay_marks(ax, row, one, limits, number / (len(looks) + 1))
    if _start_alike(rows):
        draw_untrained(ax, rows)
    else:
        for row, one in zip(rows, looks, strict=True):
            draw_untrained(ax, [row], one.color)


def _overlay_marks(ax: Axes, row: OptimizerFacts, looks: Look, limits: Range, share: float) -> None:
    """A cross per rate at which half or more of the seeds diverged, a triangle per rate whose median is off scale."""
    diverged = [point.lr for point in row.rates if rail.half_diverged(point)]
    if diverged:
        y = limits.place(rail.DIVERGED, share)
        rail.at_height(ax, diverged, y, s=14, marker="x", color=looks.color, linewidth=1.1)
    beyond = [point.lr for point in row.rates if limits.beyond(point.objective)]
    if beyond:
        how = {"marker": rail.marker(limits), "facecolor": "white", "edgecolor": looks.color}
        rail.at_height(ax, beyond, limits.place(rail.OFF), s=20, **how)


def untrained(rows: Sequence[OptimizerFacts]) -> float:
    """The untrained model's objective, NaN if none is finite."""
    start = [row.initial_objective for row in rows if math.isfinite(row.initial_objective)]
    return float(np.median(start)) if start else math.nan


def _start_alike(rows: Sequence[OptimizerFacts]) -> bool:
    """Is one line for their untrained models no more than a tenth off for any?"""
    start = [row.initial_objective for row in rows if math.isfinite(row.initial_objective)]
    return not start or max(start) - min(start) <= 0.1 * max(map(abs, start))


def draw_untrained(ax: Axes, rows: Sequence[OptimizerFacts], color: Any = GREY) -> None:
    """A line at the untrained model's objective."""
    start = untrained(rows)
    if math.isfinite(start):
        ax.axhline(start, color=color, linestyle=keys.UNTRAINED, linewidth=1.0, zorder=1)


def overlay_key(rows: Sequence[OptimizerFacts], limits: Range) -> list[Artist]:
    """What the marks of `draw_overlay` and its rate axis mean, those that are there."""
    found = keys.untrained(rows)
    there = rail.of_medians(rows, limits)
    if rail.DIVERGED in there:
        found.append(keys.mark("x", "half or more of the seeds diverged"))
    if rail.OFF in there:
        found.append(keys.beyond(worse_up=limits.worse_up))
    return found + keys.tries(*rate_range(rows))


def line_to_beat(facts: SweepFacts, limits: Range) -> AgainstAdam | None:
    """Adam at its default rate, if that lies on the axis and all rows have one setting, which is its setting too."""
    settings = [row.axes for row in facts.rows]
    same = [one for one in facts.against_adam if all(one.axes == setting for setting in settings)]
    return next((one for one in same if limits.inside(one.adam_objective)), None)


def draw_line_to_beat(ax: Axes, against: AgainstAdam | None) -> None:
    if against:
        ax.axhline(against.adam_objective, color=INK, linestyle=keys.ADAM, linewidth=1.1, zorder=1)
