"""The U-curve: objective against learning rate, a panel per optimizer and one with all medians (more in overlays.py).

Diverged runs are red crosses on a rail beyond the worst end of the axis, failed ones hollow squares; finite values
beyond the axis are triangles at its end. Nothing is dropped, and nothing sets the limits but what can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from lrsweep.analysis.facts import AgainstAdam, OptimizerFacts, RatePoint, RunPoint, SweepFacts
from lrsweep.plot import colors as shades
from lrsweep.plot import legend as keys
from lrsweep.plot import style, tags
from lrsweep.plot.style import GREY, INK, RED, Look
from lrsweep.wording import advice, words

RAIL = 0.13
"""Share of an axis that the rail takes."""
AT_DIVERGED, AT_FAILED = 0.7, 0.25
"""Places of the two rows of a rail with failed runs, as of `_rail_y`."""
KEY = 0.13
"""Share of the width of a panel that the key in its title takes."""
LARGE, SMALL = (5.6, 3.4), (3.3, 2.35)
"""Inches of a panel that is alone, and of one among others."""
DOTTED = (0, (1, 1.5))


@dataclass(frozen=True, kw_only=True)
class Range:
    """The comparable part of an objective axis. `worse_up`: worse values lie higher (losses)."""

    low: float
    high: float
    log: bool
    worse_up: bool

    def beyond(self, value: float) -> bool:
        """True for a finite value past the worse end."""
        return math.isfinite(value) and (value > self.high if self.worse_up else value < self.low)


def value_range(rows: Iterable[OptimizerFacts], mode: str) -> Range:
    """From the best value seen to a little past the untrained model, so that one run at 1e30 hides nothing."""
    rows = list(rows)
    seen = [run.objective for row in rows for run in row.runs if run.status == "ok" and math.isfinite(run.objective)]
    start = [row.initial_objective for row in rows if math.isfinite(row.initial_objective)]
    sign = 1.0 if mode == "min" else -1.0
    costs = np.array([sign * value for value in seen or start or [0.0, 1.0]])
    best = float(costs.min())
    reference = max((sign * value for value in start), default=best)
    if reference <= best:
        reference = float(np.quantile(costs, 0.9))
    log = mode == "min" and best > 0 and reference > 30 * best
    if log:
        return Range(low=best / 1.25, high=reference * (reference / best) ** 0.08, log=True, worse_up=True)
    span = (reference - best) or abs(best) or 1.0
    worst = min(max(float(costs.max()), reference + 0.05 * span), reference + 0.2 * span)
    low, high = best - 0.06 * span, worst + 0.03 * span
    return (
        Range(low=low, high=high, log=False, worse_up=True)
        if sign > 0
        else Range(low=-high, high=-low, log=False, worse_up=False)
    )


def rate_range(rows: Iterable[OptimizerFacts]) -> tuple[float, float]:
    """The lowest and the highest rate of all rows."""
    rates = [point.lr for row in rows for point in row.rates] or [1e-6, 1.0]
    return min(rates), max(rates)


def open_axes(ax: Axes, limits: Range) -> None:
    """Set the objective axis and draw the rail at its worse end."""
    low, high = (math.log10(limits.low), math.log10(limits.high)) if limits.log else (limits.low, limits.high)
    room = (high - low) * RAIL / (1 - RAIL)
    low, high = (low, high + room) if limits.worse_up else (low - room, high)
    bounds = (10**low, 10**high) if limits.log else (low, high)
    style.value_axis(ax, *bounds, log=limits.log, show=(limits.low, limits.high))
    bottom, top = (1 - RAIL, 1.0) if limits.worse_up else (0.0, RAIL)
    ax.axhspan(*_data_y(ax, bottom, top), color="#F7ECEC", linewidth=0, zorder=0)
    ax.axhline(_data_y(ax, bottom, top)[0 if limits.worse_up else 1], color="#D9B8B8", linewidth=0.7, zorder=1)


def _data_y(ax: Axes, *fractions: float) -> tuple[float, ...]:
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":
        return tuple(float(low * (high / low) ** fraction) for fraction in fractions)
    return tuple(float(low + (high - low) * fraction) for fraction in fractions)


def _rail_y(limits: Range, share: float) -> float:
    """Axes fraction of a place on the rail, 0 at its inner and 1 at its outer border."""
    return 1 - RAIL + RAIL * share if limits.worse_up else RAIL - RAIL * share


def rail_label(ax: Axes, limits: Range, statuses: Container[str] = ("diverged",)) -> None:
    """Names the rail, or each of its two rows where failed runs stand on it too."""
    failed = "failed" in statuses
    names = [("failed", AT_FAILED, INK)] if failed else []
    if not failed or "diverged" in statuses:
        names.append(("diverged", AT_DIVERGED if failed else 0.5, RED))
    for name, share, color in names:
        at, where = (0, _rail_y(limits, share)), {"ha": "right", "va": "center"}
        style.note(ax, name, at, (-5, 0), xycoords="axes fraction", size=7, color=color, **where)


def _end_y(limits: Range) -> float:
    return 1 - RAIL - 0.035 if limits.worse_up else RAIL + 0.035


def _beside(row: OptimizerFacts, runs: Sequence[RunPoint]) -> list[float]:
    """Where the marks of `runs` stand: side by side at their rate, so that each seed shows, and within the panel."""
    rates = [point.lr for point in row.rates]
    seeds = sorted({run.seed for run in row.runs})
    widest = style.air(rates[0], rates[-1]) ** (1.0 / max(len(seeds) - 1, 1))
    step: dict[float, float] = {}
    for i, rate in enumerate(rates):
        spacing = min((b / a for a, b in pairwise(rates[max(i - 1, 0) : i + 2])), default=3.0)
        step[rate] = min(spacing ** min(0.08, 0.2 / len(seeds)), widest)
    middle = (len(seeds) - 1) / 2
    return [run.lr * step.get(run.lr, 1.0) ** (seeds.index(run.seed) - middle) for run in runs]


def draw_rail(ax: Axes, row: OptimizerFacts, limits: Range) -> None:
    """Crosses for diverged runs, hollow squares for failed ones, triangles for finite values beyond the axis."""
    size = 30 if row.n_seeds <= 5 else 16
    any_failed = any(run.status == "failed" for run in row.runs)
    diverged = _beside(row, _of_status(row, "diverged"))
    failed = _beside(row, _of_status(row, "failed"))
    beyond = _beside(row, _beyond(row, limits))
    if diverged:
        y = _rail_y(limits, AT_DIVERGED if any_failed else 0.5)
        marks = _at_height(ax, diverged, y, s=size, marker="x", color=RED, linewidth=1.3)
        tags.runs(marks, row, [run.run_id for run in _of_status(row, "diverged")])
    if failed:
        y = _rail_y(limits, AT_FAILED)
        marks = _at_height(ax, failed, y, s=size * 0.6, marker="s", facecolor="none", edgecolor=INK, linewidth=0.9)
        tags.runs(marks, row, [run.run_id for run in _of_status(row, "failed")])
    if beyond:
        marker = "^" if limits.worse_up else "v"
        marks = _at_height(ax, beyond, _end_y(limits), s=22, marker=marker, facecolor="none", edgecolor=GREY)
        tags.runs(marks, row, [run.run_id for run in _beyond(row, limits)])


def _of_status(row: OptimizerFacts, status: str) -> list[RunPoint]:
    return [run for run in row.runs if run.status == status]


def _at_height(ax: Axes, rates: Sequence[float], y: float, **how: Any) -> PathCollection:
    """A mark per rate, all at the same share `y` of the height of the panel."""
    return ax.scatter(rates, [y] * len(rates), transform=ax.get_xaxis_transform(), zorder=6, **how)


def draw_median(ax: Axes, row: OptimizerFacts, looks: Look, limits: Range, *, size: float = 4) -> None:
    """The median line. To a rate that diverged a dotted arm goes to the rail; to one whose median is finite but beyond
    the axis the line itself goes on, to the triangle below the rail."""
    edge = limits.high if limits.worse_up else limits.low
    (tip,) = _data_y(ax, _end_y(limits))
    x, y = np.array([point.lr for point in row.rates]), np.array([point.objective for point in row.rates])
    inside = np.isfinite(y) & ~np.array([limits.beyond(value) for value in y])
    shown = np.where(inside, y, np.nan)
    (median,) = ax.plot(x, shown, **looks.of_line, markersize=size, linewidth=1.6, zorder=4)
    tags.rates(median, row, x[inside].tolist())
    for i in range(len(x) - 1):
        if inside[i] != inside[i + 1] and not (np.isnan(y[i]) or np.isnan(y[i + 1])):
            finite = limits.beyond(y[i + 1] if inside[i] else y[i])
            end = tip if finite else edge
            ends = (y[i], end) if inside[i] else (end, y[i + 1])
            how: Any = looks.line if finite else DOTTED
            ax.plot(x[i : i + 2], ends, color=looks.color, linestyle=how, linewidth=1.6 if finite else 1.3, zorder=3)


def _band(ax: Axes, points: Sequence[RatePoint], color: str, limits: Range) -> None:
    """Range over the seeds; a diverged seed takes it to the end of the axis."""
    edge = limits.high if limits.worse_up else limits.low
    best = np.array([edge if limits.beyond(point.best) else point.best for point in points])
    worst = np.array([edge if point.n_diverged or limits.beyond(point.worst) else point.worst for point in points])
    known = np.isfinite(best) & np.isfinite(worst)
    ax.fill_between(
        [point.lr for point in points], best, worst, where=known, color=color, alpha=0.16, linewidth=0, zorder=2
    )


MOST_DOTS = 1000
"""More dots than this in a panel are one image in an SVG or a PDF, whose size grows with every dot otherwise."""


def draw_row(ax: Axes, row: OptimizerFacts, looks: Look, limits: Range) -> None:
    """One optimizer: dots, median, band, rail, good range, and the rates that matter."""
    open_axes(ax, limits)
    tags.panel(ax, row.title)
    if row.trained and math.isfinite(row.good_range.low):
        bottom, top = (0.0, 1 - RAIL) if limits.worse_up else (RAIL, 1.0)  # the rail is no part of it
        ax.axvspan(
            row.good_range.low, row.good_range.high, bottom, top, color=looks.color, alpha=0.15, linewidth=0, zorder=0
        )
    if math.isfinite(row.initial_objective):
        ax.axhline(row.initial_objective, color=GREY, linestyle=keys.UNTRAINED, linewidth=1.0, zorder=1)
    if _default_shown(row):
        ax.axvline(row.default.lr, color=INK, linestyle=keys.DEFAULT, linewidth=0.9, zorder=1)
    if row.n_seeds > 1:
        _band(ax, row.rates, looks.color, limits)
    dots = [run for run in row.runs if run.status == "ok" and math.isfinite(run.objective)]
    dots = [run for run in dots if not limits.beyond(run.objective)]
    size = 11 if len(row.runs) <= 300 else 5
    x, y = [run.lr for run in dots], [run.objective for run in dots]
    crowded = len(dots) > MOST_DOTS
    marks = ax.scatter(x, y, s=size, color=looks.color, alpha=0.55, linewidth=0, zorder=3, rasterized=crowded)
    tags.runs(marks, row, [run.run_id for run in dots])
    draw_median(ax, row, looks, limits, size=3.6 if len(row.rates) <= 30 else 2)
    draw_rail(ax, row, limits)
    _marks(ax, row, looks, limits)


def _default_shown(row: OptimizerFacts) -> bool:
    return bool(row.rates) and row.rates[0].lr / 1.5 <= row.default.lr <= row.rates[-1].lr * 1.5


def _marks(ax: Axes, row: OptimizerFacts, looks: Look, limits: Range) -> None:
    """A star at the best rate, a ring around the recommended one."""
    at = {point.lr: point.objective for point in row.rates}
    chosen = at.get(row.recommended_lr, math.nan)
    if math.isfinite(chosen) and not limits.beyond(chosen):
        ax.scatter(
            [row.recommended_lr], [chosen], s=130, marker="o", facecolor="none", edgecolor=INK, linewidth=1.2, zorder=7
        )
    if math.isfinite(row.best_objective) and math.isfinite(row.best_lr.value):
        ax.scatter(
            [row.best_lr.value], [row.best_objective], s=95, marker="*", color=looks.color, edgecolor=INK,
            linewidth=0.7, zorder=8,
        )  # fmt: skip


def _beyond(row: OptimizerFacts, limits: Range) -> list[RunPoint]:
    """The finite runs that the axis does not reach."""
    return [run for run in row.runs if run.status == "ok" and limits.beyond(run.objective)]


def title_key(ax: Axes, looks: Look, lines: int) -> None:
    """Line and marker of the curve at the right end of the panel's title, which stands `lines` lines above the panel,
    so that the overlay needs no legend of its own."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    lift = ScaledTranslation(0, (7.5 + style.LINE_POINTS * (lines - 1)) / 72, figure.dpi_scale_trans)
    ax.plot(
        [1 - KEY, 1 - KEY / 2, 1.0], [1.0] * 3, **looks.of_line, linewidth=1.6, markersize=4.5, markevery=[1],
        transform=ax.transAxes + lift, clip_on=False,
    )  # fmt: skip


def u_curve(facts: SweepFacts, looks: Sequence[Look], setting: str = "") -> Figure:
    """A panel per row of the summary, and last the overlay of all."""
    rows = facts.rows
    count = len(rows) + (len(rows) > 1)
    columns = style.columns_for(count)
    common = value_range(rows, facts.mode)
    own = _scales_differ(rows)
    limits = [value_range([row], facts.mode) if own else common for row in rows]
    legend = keys.legend(
        rows,
        worse_up=common.worse_up,
        beyond_axis=any(_beyond(row, one) for row, one in zip(rows, limits, strict=True)),
        default=any(_default_shown(row) for row in rows),
    )
    if len(rows) > 1 and (against := _line_to_beat(facts, common)):
        legend.append(keys.adam(facts.adam, against))
    panel = LARGE if count == 1 else SMALL
    page = style.page(
        count, f"{facts.name}: {words.objective_text(facts)} by learning rate", words.budget_line(facts, setting),
        columns=columns, panel=panel, legend=legend, head=keys.head(rows, 0.5),
    )  # fmt: skip
    warnings = [advice.warning_line(row) for row in rows]
    blank = " " if any(warnings) else ""  # titles of all panels stand equally high
    low, high = rate_range(rows)
    for index, (row, ax) in enumerate(zip(rows, page.panels, strict=False)):
        draw_row(ax, row, looks[index], limits[index])
        style.rate_axis(ax, low, high, label="learning rate" if page.bottom_row(index) else None)
        reserved = KEY * SMALL[0] + 0.2 if len(rows) > 1 else 0.0
        found = keys.below_title(row, words.facts_line(row))
        style.panel_title(ax, row.optimizer, found, warnings[index] or blank, reserved=reserved)
        if len(rows) > 1:
            title_key(ax, looks[index], 2 + bool(row.axes) + bool(blank))
        if page.left_column(index):
            _name_values(ax, facts, common, {run.status for one in rows for run in one.runs})
    if len(rows) > 1:
        draw_overlay(page.panels[-1], facts, looks, common)
        style.rate_axis(page.panels[-1], low, high)
        style.panel_title(page.panels[-1], "all optimizers", "medians over seeds" + "\n " * bool(facts.axes), blank)
        if page.left_column(len(rows)):
            _name_values(page.panels[-1], facts, common)
    return page.figure


def _name_values(ax: Axes, facts: SweepFacts, limits: Range, statuses: Container[str] = ("diverged",)) -> None:
    """What a panel at the left shows along y."""
    ax.set_ylabel(words.objective_axis_label(facts))
    rail_label(ax, limits, statuses)


def by_optimizer(facts: SweepFacts, setting: str = "") -> Figure:
    """A panel per optimizer with a median curve per axis value, dark to light; for sweeps with many axis values."""
    labels = list(dict.fromkeys(row.optimizer for row in facts.rows))
    facts, common = replace(facts, against_adam=()), value_range(facts.rows, facts.mode)
    page = style.page(
        len(labels),
        f"{facts.name}: {words.objective_text(facts)} by learning rate",
        words.budget_line(facts, setting),
        columns=style.columns_for(len(labels)),
        panel=LARGE if len(labels) == 1 else SMALL,
        legend=overlay_key(facts, common),
    )
    colors = shades.rate_colormap()
    for index, (label, ax) in enumerate(zip(labels, page.panels, strict=True)):
        rows = tuple(row for row in facts.rows if row.optimizer == label)
        mine = [to_hex(colors(number / max(len(rows) - 1, 1))) for number in range(len(rows))]
        looks = [
            Look(color=color, line="-", marker=style.MARKERS[n % len(style.MARKERS)]) for n, color in enumerate(mine)
        ]
        draw_overlay(ax, replace(facts, rows=rows), looks, common)
        style.rate_axis(ax, *rate_range(facts.rows), label="learning rate" if page.bottom_row(index) else None)
        first, last = (words.axes_text(row.axes) for row in (rows[0], rows[-1]))
        style.panel_title(ax, label, f"{len(rows)} median curves, dark: {first}\nlight: {last}")
        if page.left_column(index):
            _name_values(ax, facts, common)
    return page.figure


def _scales_differ(rows: Sequence[OptimizerFacts]) -> bool:
    """Rows whose untrained losses lie apart (an axis that changes the task) get their own objective axes."""
    start = [row.initial_objective for row in rows if math.isfinite(row.initial_objective)]
    best = [row.best_objective for row in rows if math.isfinite(row.best_objective)]
    if not start or not best:
        return False
    return abs(max(start) - min(start)) > 0.5 * min(abs(s - min(best)) or 1.0 for s in start)


def draw_overlay(ax: Axes, facts: SweepFacts, looks: Sequence[Look], limits: Range) -> None:
    """The median curves of all rows; `overlay_key` says what its marks mean."""
    open_axes(ax, limits)
    for index, (row, one) in enumerate(zip(facts.rows, looks, strict=True)):
        with tags.curve(ax, row.title):
            draw_median(ax, row, one, limits, size=4)
            _overlay_marks(ax, row, one, limits, _rail_y(limits, (index + 1) / (len(looks) + 1)))
    start = [row.initial_objective for row in facts.rows if math.isfinite(row.initial_objective)]
    if start:
        ax.axhline(float(np.median(start)), color=GREY, linestyle=keys.UNTRAINED, linewidth=1.0, zorder=1)
    if against := _line_to_beat(facts, limits):
        ax.axhline(against.adam_objective, color=INK, linestyle=keys.ADAM, linewidth=1.1, zorder=1)


def overlay_key(facts: SweepFacts, limits: Range) -> list[Artist]:
    """What the marks of `draw_overlay` and its rate axis mean, those that are there."""
    found = keys.untrained(facts.rows)
    if against := _line_to_beat(facts, limits):
        found.append(keys.adam(facts.adam, against))
    found.append(keys.tries())
    points = [point for row in facts.rows for point in row.rates]
    if any(_half_diverged(point) for point in points):
        found.append(keys.mark("x", "half of the seeds diverged"))
    if any(limits.beyond(point.objective) for point in points):
        found.append(keys.beyond(worse_up=limits.worse_up))
    return found


def _line_to_beat(facts: SweepFacts, limits: Range) -> AgainstAdam | None:
    """Adam at its default rate, if that lies on the axis."""
    found = next(iter(facts.against_adam), None)
    return found if found and math.isfinite(found.adam_objective) and not limits.beyond(found.adam_objective) else None


def _half_diverged(point: RatePoint) -> bool:
    return point.n_diverged > 0 and 2 * point.n_diverged >= point.n_ok + point.n_diverged


def _overlay_marks(ax: Axes, row: OptimizerFacts, looks: Look, limits: Range, y: float) -> None:
    """At the curve's own height on the rail a cross per rate at which half or more of the seeds diverged; below the
    rail a triangle per rate whose median is beyond the axis."""
    diverged = [point.lr for point in row.rates if _half_diverged(point)]
    _at_height(ax, diverged, y, s=18, marker="x", color=looks.color, linewidth=1.2)
    beyond = [point.lr for point in row.rates if limits.beyond(point.objective)]
    if beyond:
        marker = "^" if limits.worse_up else "v"
        _at_height(ax, beyond, _end_y(limits), s=22, marker=marker, facecolor="white", edgecolor=looks.color)
