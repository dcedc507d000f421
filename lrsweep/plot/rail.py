"""The axis of an objective, and beyond its worse end a row each for what has no place on it: finite values off its
scale, failed runs, diverged runs. Rows are there only for what there is, and what is worse lies further out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from lrsweep.analysis.facts import OptimizerFacts, RatePoint, RunPoint
from lrsweep.plot import style, tags, ticks
from lrsweep.plot.style import GREY, INK, RED
from lrsweep.plot.text import width_of
from lrsweep.wording import words

ROW = 0.17
"""Inches of a row."""
OFF, FAILED, DIVERGED = "off scale", "failed", "diverged"
ORDER = (OFF, FAILED, DIVERGED)
INKS = {OFF: GREY, FAILED: INK, DIVERGED: RED}
WIDE = 30.0
"""Losses further apart than this factor have a log axis."""
FLAT = 0.25
"""Values that would take less of an axis up to the untrained model get an axis of their own."""
SIZE = 7.0
"""Points of the names of the rows."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The comparable part of an objective axis. `worse_up`: worse values lie higher (losses). `rows` are those of the
    rail from the inside out, each `row` of the height of a panel."""

    low: float
    high: float
    log: bool
    worse_up: bool
    rows: tuple[str, ...] = ()
    row: float = 0.0

    @cached_property
    def scale(self) -> ticks.Scale:
        return ticks.value_scale(self.low, self.high, log=self.log)

    @property
    def rail(self) -> float:
        """Share of the height of a panel that all rows take."""
        return self.row * len(self.rows)

    @property
    def edge(self) -> float:
        """The worse end of the values."""
        return self.high if self.worse_up else self.low

    def beyond(self, value: float) -> bool:
        """True for a finite value past the worse end."""
        return math.isfinite(value) and (value > self.high if self.worse_up else value < self.low)

    def inside(self, value: float) -> bool:
        return math.isfinite(value) and not self.beyond(value)

    def place(self, name: str, share: float = 0.5) -> float:
        """Axes fraction of a place on a row, 0 at its inner and 1 at its outer border."""
        depth = self.row * (self.rows.index(name) + share)
        return 1 - self.rail + depth if self.worse_up else self.rail - depth

    @property
    def names_width(self) -> float:
        """Inches that the names of the rows take."""
        return max((width_of(name, SIZE) for name in self.rows), default=0.0)


def value_range(rows: Iterable[OptimizerFacts], mode: str) -> Range:
    """From the best value seen to a little past the untrained model, so that one run at 1e30 hides nothing."""
    rows = list(rows)
    seen = [run.objective for row in rows for run in row.runs if run.status == "ok" and math.isfinite(run.objective)]
    start = [row.initial_objective for row in rows if math.isfinite(row.initial_objective)]
    sign = 1.0 if mode == "min" else -1.0
    costs = np.array([sign * value for value in seen or start or [0.0, 1.0]])
    best, worst = float(costs.min()), float(costs.max())
    reference = max((sign * value for value in start), default=best)
    trained = reference > best and any(row.trained for row in rows)
    if not trained:  # all that was seen, as far as it lies together
        reference = float(np.quantile(costs, 0.9))
        best = min(best, *(sign * value for value in start)) if start else best
    if mode == "min" and trained and best > 0 and reference > WIDE * best:
        return Range(low=best / 1.25, high=reference * (reference / best) ** 0.08, log=True, worse_up=True)
    span = (reference - best) or abs(best) or 1.0
    worst = min(max(worst, reference + 0.05 * span), reference + (0.2 if trained else 2.0) * span)
    low, high = best - 0.06 * span, worst + 0.03 * span
    return (
        Range(low=low, high=high, log=False, worse_up=True)
        if sign > 0
        else Range(low=-high, high=-low, log=False, worse_up=False)
    )


def close_range(rows: Iterable[OptimizerFacts], mode: str) -> Range:
    """`value_range`, or the range of the values alone where they would be flat, far from every untrained model."""
    rows = list(rows)
    limits = value_range(rows, mode)
    sign = 1.0 if mode == "min" else -1.0
    costs = [sign * run.objective for row in rows for run in row.runs if run.status == "ok"]
    costs = [cost for cost in costs if math.isfinite(cost)]
    starts = [sign * row.initial_objective for row in rows if math.isfinite(row.initial_objective)]
    if not costs or not starts:
        return limits
    best, worst, start = min(costs), max(costs), min(starts)
    if start <= worst:
        return limits
    share = math.log(worst / best) / math.log(start / best) if limits.log else (worst - best) / (start - best)
    if share >= FLAT:
        return limits
    room = 0.25  # for a text at the worse end, as a share of the values
    if mode == "min" and best > 0 and worst > WIDE * best:
        return Range(low=best / 1.25, high=worst * (worst / best) ** room, log=True, worse_up=True)
    span = (worst - best) or 0.1 * (start - best)
    low, high = sorted(sign * end for end in (best - 0.1 * span, worst + room * span))
    return Range(low=low, high=high, log=False, worse_up=limits.worse_up)


def with_rows(limits: Range, names: Iterable[str], height: float, row: float = ROW) -> Range:
    """The same with a rail of the rows `names`, in a panel `height` inches high."""
    there = set(names)
    found = tuple(name for name in ORDER if name in there)
    return replace(limits, rows=found, row=min(row / height, 0.3 / max(len(found), 1)))


def statuses(rows: Iterable[OptimizerFacts], limits: Range) -> set[str]:
    """The rows of a rail for the runs of `rows`."""
    runs = [run for row in rows for run in row.runs]
    found = {run.status for run in runs} & {FAILED, DIVERGED}
    return found | ({OFF} if any(run.status == "ok" and limits.beyond(run.objective) for run in runs) else set())


def of_medians(rows: Iterable[OptimizerFacts], limits: Range) -> set[str]:
    """The rows of a rail for the medians of `rows`."""
    points = [point for row in rows for point in row.rates]
    found = {DIVERGED} if any(map(half_diverged, points)) else set()
    return found | ({OFF} if any(limits.beyond(point.objective) for point in points) else set())


def half_diverged(point: RatePoint) -> bool:
    return point.n_diverged > 0 and 2 * point.n_diverged >= point.n_ok + point.n_diverged


def open_axes(ax: Axes, limits: Range) -> None:
    """Set the objective axis and draw the rail at its worse end."""
    low, high = (math.log10(limits.low), math.log10(limits.high)) if limits.log else (limits.low, limits.high)
    room = (high - low) * limits.rail / (1 - limits.rail)
    low, high = (low, high + room) if limits.worse_up else (low - room, high)
    bounds = (10**low, 10**high) if limits.log else (low, high)
    ticks.value_axis(ax, limits.scale, low=bounds[0], high=bounds[1])
    for number, name in enumerate(limits.rows):
        ends = sorted((limits.place(name, 0.0), limits.place(name, 1.0)))
        color = "#F7ECEC" if name == DIVERGED else "#F3F3F3"
        ax.axhspan(*data_y(ax, *ends), color=color, linewidth=0, zorder=0)
        if not number:
            ax.axhline(data_y(ax, limits.place(name, 0.0))[0], color="#BBBBBB", linewidth=0.7, zorder=1)


def data_y(ax: Axes, *fractions: float) -> tuple[float, ...]:
    """Data coordinates of shares of the height of a panel."""
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":
        return tuple(float(low * (high / low) ** fraction) for fraction in fractions)
    return tuple(float(low + (high - low) * fraction) for fraction in fractions)


def name_rows(ax: Axes, limits: Range) -> None:
    """The names of the rows, left of the panel."""
    for name in limits.rows:
        at, where = (0, limits.place(name)), {"ha": "right", "va": "center"}
        style.note(ax, name, at, (-5, 0), xycoords="axes fraction", size=SIZE, color=INKS[name], **where)


def draw(ax: Axes, row: OptimizerFacts, limits: Range) -> None:
    """Crosses for diverged runs, hollow squares for failed ones, triangles with their value for finite ones off the
    scale."""
    size = 24 if row.n_seeds <= 5 else 10
    runs = {name: [run for run in row.runs if run.status == name] for name in (DIVERGED, FAILED)}
    far = [run for run in row.runs if run.status == "ok" and limits.beyond(run.objective)]
    marks: dict[str, tuple[list[RunPoint], dict[str, Any]]] = {
        DIVERGED: (runs[DIVERGED], {"s": size, "marker": "x", "color": RED, "linewidth": 1.2}),
        FAILED: (runs[FAILED], {"s": size * 0.6, "marker": "s", "facecolor": "none", "edgecolor": INK}),
        OFF: (far, {"s": 20, "marker": marker(limits), "facecolor": "none", "edgecolor": GREY}),
    }
    for name, (some, how) in marks.items():
        if some:
            drawn = at_height(ax, _beside(row, some), limits.place(name), **how)
            tags.runs(drawn, row, [run.run_id for run in some])
    values = {lr: sorted(run.objective for run in far if run.lr == lr) for lr in sorted({run.lr for run in far})}
    write_values(ax, {lr: some[len(some) // 2] for lr, some in values.items()}, limits)


def write_values(ax: Axes, values: dict[float, float], limits: Range) -> None:
    """What lies off the scale at these rates, right of the marks of the row, or left where the panel ends; only where
    it stands clear of the next mark and of other values."""
    places = [float(x) for x in ax.transData.transform([(lr, limits.low) for lr in values])[:, 0]] if values else []
    start, end = (float(x) for x in ax.transAxes.transform([(0, 0), (1, 0)])[:, 0])
    nexts, free = [*places[1:], end], start  # `free`: where there is nothing from, up to the next mark
    for number, (lr, value) in enumerate(values.items()):
        value = (value - limits.scale.offset) / 10.0**limits.scale.exponent  # as the numbers at the ticks
        text = words.compact(value, 2) if value > 0 else words.number_text(value, 2)
        need = (width_of(text, 6.5) + 0.2) * ax.figure.dpi
        side = 1 if nexts[number] - places[number] > need else -1
        written = side > 0 or places[number] - free > need
        free = places[number] + (need if side > 0 else 0)
        if written:
            style.note(
                ax, text, (lr, limits.place(OFF)), (side * 11, 0), xycoords=("data", "axes fraction"), size=6.5,
                color=GREY, ha="left" if side > 0 else "right", va="center_baseline",
            )  # fmt: skip


def marker(limits: Range) -> str:
    """Of what is off the scale."""
    return "^" if limits.worse_up else "v"


def at_height(ax: Axes, rates: Sequence[float], y: float, **how: Any) -> PathCollection:
    """A mark per rate, all at the same share `y` of the height of the panel."""
    return ax.scatter(rates, [y] * len(rates), transform=ax.get_xaxis_transform(), zorder=6, **how)


def _beside(row: OptimizerFacts, runs: Sequence[RunPoint]) -> list[float]:
    """Where the marks of `runs` stand: side by side at their rate, so that each seed shows, and within the panel."""
    rates = [point.lr for point in row.rates]
    seeds = sorted({run.seed for run in row.runs})
    widest = ticks.air(rates[0], rates[-1]) ** (1.0 / max(len(seeds) - 1, 1))
    step: dict[float, float] = {}
    for i, rate in enumerate(rates):
        spacing = min((b / a for a, b in pairwise(rates[max(i - 1, 0) : i + 2])), default=3.0)
        step[rate] = min(spacing ** min(0.08, 0.2 / len(seeds)), widest)
    middle = (len(seeds) - 1) / 2
    return [run.lr * step.get(run.lr, 1.0) ** (seeds.index(run.seed) - middle) for run in runs]
