"""The one-ramp finder and its rules over the sweep's U-curve: does one ramp find what a sweep finds?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lrsweep.analysis.facts import shortened
from lrsweep.plot import legend, loss_curves, style
from lrsweep.plot.loss_curves import Exit, Window
from lrsweep.plot.style import COLORS, GREY, INK
from lrsweep.plot.u_curves import value_range
from lrsweep.wording import words

if TYPE_CHECKING:
    from lrsweep.analysis.facts import SweepFacts
    from lrsweep.analysis.lr_finder import RampResult, RangeTest

RULES = {
    "steepest": (COLORS[1], "v"),
    "minimum_over_10": (COLORS[2], "s"),
    "valley": (COLORS[3], "D"),
    "slide": (COLORS[4], "^"),
    "per_unit": (GREY, "x"),
}


def range_test(test: RangeTest) -> Figure:
    """A panel per optimizer: raw and smoothed ramp, the U-curve's medians, and where each rule points."""
    gone = [_exits(result, test) for result in test.results]
    key = _key(test, leaving=any(map(any, gone)))
    beside = 0.65 if test.facts is not None and not _is_loss(test.facts) else 0.0  # the room of a second axis
    subtitle = f"one ramp of {test.steps} steps per optimizer, seed {test.seed}"
    if test.facts is not None:
        subtitle += f"; the thick line is the sweep's median {words.objective_text(test.facts)}"
    if test.axes:
        subtitle += f"\nat {', '.join(f'{one.axis}={shortened(one.value)}' for one in test.axes)}"
    page = style.page(
        len(test.results), f"{test.name}: LR range test", subtitle,
        columns=style.columns_for(len(test.results)), panel=(3.3, 2.5), legend=key, left=0.75,
        right=0.2 + beside, gap=(0.55 + beside, 0.36), top=0.78 if test.axes else 0.62,
    )  # fmt: skip
    for index, (ax, result, exits) in enumerate(zip(page.panels, test.results, gone, strict=True)):
        _panel(ax, result, test, exits)
        if page.left_column(index):
            ax.set_ylabel(_values_text(test.facts))
    return page.figure


def _is_loss(facts: SweepFacts) -> bool:
    """The objective has the unit of the ramp's training loss."""
    return facts.mode == "min" and facts.metric in ("train_loss", "val_loss")


def _values_text(facts: SweepFacts | None) -> str:
    """What stands along y at the left."""
    if facts is None or facts.metric == "train_loss" or not _is_loss(facts):
        return "train_loss of a batch"
    return f"train_loss of a batch; {words.objective_axis_label(facts)}"


def _key(test: RangeTest, *, leaving: bool) -> list[Artist]:
    key: list[Artist] = [
        Line2D([], [], color=COLORS[5], linewidth=0.8, label="ramp, raw loss"),
        Line2D([], [], color=COLORS[0], linewidth=1.4, label="ramp, smoothed"),
    ]
    if test.facts is not None:
        key.append(Line2D([], [], color=INK, linewidth=2.0, marker="o", markersize=3.5, label="sweep, median"))
    for rule, (_, marker) in RULES.items():
        inks = {_ink(rule, result) for result in test.results if math.isfinite(result.suggested[rule])}
        if inks:  # in its colour where any panel shows it so
            label = "per_unit (a warning)" if rule == "per_unit" else rule
            color = min(inks, key=lambda ink: ink == GREY)
            key.append(Line2D([], [], color=color, marker=marker, linestyle="", markersize=6, label=label))
    key += [legend.tries(), *([legend.leaves(up=True)] if leaving else [])]
    if any(result.unmoved for result in test.results):
        key.append(Line2D([], [], linestyle="", label=f"gray: {words.NOT_FALLEN}"))
    return key


def _ink(rule: str, result: RampResult) -> str:
    return GREY if rule in result.unmoved else RULES[rule][0]


def _median(result: RampResult) -> list[tuple[float, float]]:
    """The finite points of the sweep's U-curve."""
    rates = result.row.rates if result.row is not None else ()
    return [(point.lr, point.objective) for point in rates if math.isfinite(point.objective)]


def _view(result: RampResult, test: RangeTest) -> Window:
    low, high = _limits(result, test.facts)
    return Window(left=test.low, right=test.high, low=low, high=high, log=False)


def _median_view(result: RampResult, test: RangeTest) -> Window:
    """What the sweep's median is drawn in: the ramp's axis if both are losses, else its own."""
    if test.facts is None or result.row is None or _is_loss(test.facts):
        return _view(result, test)
    own = value_range([result.row], test.facts.mode)
    return Window(left=test.low, right=test.high, low=own.low, high=own.high, log=own.log)


def _exits(result: RampResult, test: RangeTest) -> list[Exit | None]:
    """Where the raw ramp, the smoothed one and the sweep's median first leave the panel."""
    lrs, view = result.ramp.lrs, _view(result, test)
    ramps = [(zip(lrs, losses, strict=True), view) for losses in (result.ramp.losses, result.smooth)]
    out: list[Exit | None] = []
    for points, view in (*ramps, (_median(result), _median_view(result, test))):
        kept = [(math.log10(lr), y) for lr, y in points if math.isfinite(y) and view.left <= lr <= view.right]
        end = loss_curves.exit_of(np.array(kept).reshape(-1, 2), view)
        out.append(None if end is None else (10.0 ** end[0], end[1]))
    return out


def _panel(ax: Axes, result: RampResult, test: RangeTest, exits: list[Exit | None]) -> None:
    lrs, raw, view = result.ramp.lrs, np.asarray(result.ramp.losses), _view(result, test)
    low, high = view.low, view.high
    ax.plot(lrs, np.where(np.isfinite(raw), raw, np.nan), color=COLORS[5], linewidth=0.8, zorder=2)
    ax.plot(lrs, result.smooth, color=COLORS[0], linewidth=1.4, zorder=3)
    for rule, rate in result.suggested.items():
        if math.isfinite(rate):
            color, marker = _ink(rule, result), RULES[rule][1]
            ax.axvline(rate, color=color, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
            ax.plot([rate], [high - 0.06 * (high - low)], color=color, marker=marker, markersize=6, zorder=6)
    style.rate_axis(ax, test.low, test.high)
    style.value_axis(ax, low, high, log=False)
    style.light_grid(ax)
    loss_curves.mark_exits(ax, exits[:2], (COLORS[5], COLORS[0]), view)
    if shown := _median(result):
        _draw_median(ax, shown, result, test, exits[2])
    left = loss_curves.exits_text(exits)
    best = f"sweep's best {words.compact(result.best_lr)}; " if math.isfinite(result.best_lr) else ""
    style.panel_title(ax, result.label, f"{best}rules {result.spread:.2g} decades apart", aside=left)


def _draw_median(
    ax: Axes, shown: Sequence[tuple[float, float]], result: RampResult, test: RangeTest, end: Exit | None
) -> None:
    """The sweep's median, on an axis of its own at the right where it is no loss."""
    view = _median_view(result, test)
    if test.facts is not None and not _is_loss(test.facts):
        ax = ax.twinx()
        ax.spines["right"].set_visible(True)
        style.value_axis(ax, view.low, view.high, log=view.log)
        ax.set_ylabel(f"sweep: {words.objective_axis_label(test.facts)}")
    ax.plot(*zip(*shown, strict=True), color=INK, linewidth=2.0, marker="o", markersize=3.5, zorder=4)
    loss_curves.mark_exits(ax, [end], [INK], view)


def _limits(result: RampResult, facts: SweepFacts | None) -> tuple[float, float]:
    """From the least loss to a little above the start, whatever the ramp rose to."""
    values = [value for value in result.smooth if math.isfinite(value)]
    if facts is None or _is_loss(facts):
        values += [y for _, y in _median(result)]
    if not values:
        return 0.0, 1.0
    least, start = min(values), result.smooth[0] if math.isfinite(result.smooth[0]) else max(values)
    span = max(start - least, 1e-12 * max(abs(start), 1.0))
    return least - 0.08 * span, start + 0.5 * span
