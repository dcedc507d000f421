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
from lrsweep.plot import legend, loss_curves, style, ticks
from lrsweep.plot.loss_curves import Exit, Window
from lrsweep.plot.rail import value_range
from lrsweep.plot.style import COLORS, GREY, INK, Head, Sheet
from lrsweep.wording import words

if TYPE_CHECKING:
    from lrsweep.analysis.facts import SweepFacts
    from lrsweep.analysis.lr_finder import RampResult, RangeTest

RULES = {
    "steepest": (COLORS[1], "p"),
    "minimum_over_10": (COLORS[2], "s"),
    "valley": (COLORS[3], "D"),
    "slide": (COLORS[4], "P"),
    "per_unit": (GREY, "x"),
}
IN_WORDS = {
    "steepest": "steepest fall of the loss",
    "minimum_over_10": "a tenth of the lr with the least loss",
    "valley": "middle of the longest fall",
    "slide": "last fall before the loss rises",
    "per_unit": "steepest fall per unit of lr (a warning)",
}
"""What each rule looks for; the key has the name of the option before it."""


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
    heads = [_head(result, exits) for result, exits in zip(test.results, gone, strict=True)]
    scales = [_view(result, test).scale for result in test.results]
    names = [scale.label(_values_text(test.facts)) for scale in scales]
    left = max(style.left_room(scale.width, name) for scale, name in zip(scales, names, strict=True))
    page = style.page(
        heads, f"{test.name}: LR range test", subtitle, Sheet(), columns=style.columns_for(len(test.results)),
        panel=(3.3, 2.5), legend=key, left=left, right=0.2 + beside, gap=(left + beside, 0.36),
    )  # fmt: skip
    for index, (ax, result, exits) in enumerate(zip(page.panels, test.results, gone, strict=True)):
        _panel(ax, result, test, exits)
        style.y_label(ax, names[index], page.size[1])
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
    rows = [result.row for result in test.results if result.row is not None]
    if any(row.trained and math.isfinite(row.good_range.low) for row in rows):
        key.append(legend.good_range())
    for rule, (_, marker) in RULES.items():
        inks = {_ink(rule, result) for result in test.results if math.isfinite(result.suggested[rule])}
        if inks:  # in its colour where any panel shows it so
            label = f"{rule}: {IN_WORDS[rule]}"
            color = min(inks, key=lambda ink: ink == GREY)
            key.append(Line2D([], [], color=color, marker=marker, linestyle="", markersize=6, label=label))
    key += [*legend.tries(test.low, test.high), *([legend.leaves(up=True)] if leaving else [])]
    if any(result.unmoved for result in test.results):
        key.append(legend.mark("D", f"gray: {words.NOT_FALLEN}", size=6))
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


def _head(result: RampResult, exits: list[Exit | None]) -> Head:
    best = f"sweep's best {words.compact(result.best_lr)}; " if math.isfinite(result.best_lr) else ""
    found = f"{best}rules {result.spread:.2g} decades apart"
    return Head(title=result.label, facts=found, aside=loss_curves.exits_text(exits))


def _panel(ax: Axes, result: RampResult, test: RangeTest, exits: list[Exit | None]) -> None:
    """The ramp, the good range of the sweep, and a mark per rule: on the sweep's median where it has one there, else on
    the smoothed ramp."""
    lrs, raw, view = result.ramp.lrs, np.asarray(result.ramp.losses), _view(result, test)
    ax.plot(lrs, np.where(np.isfinite(raw), raw, np.nan), color=COLORS[5], linewidth=0.8, zorder=2)
    ax.plot(lrs, result.smooth, color=COLORS[0], linewidth=1.4, zorder=3)
    if result.row is not None and result.row.trained and math.isfinite(result.row.good_range.low):
        ax.axvspan(result.row.good_range.low, result.row.good_range.high, color=style.GOOD, linewidth=0, zorder=0)
    ticks.rate_axis(ax, test.low, test.high)
    ticks.mark_traditional(ax)
    ticks.value_axis(ax, view.scale)
    style.light_grid(ax)
    loss_curves.mark_exits(ax, exits[:2], (COLORS[5], COLORS[0]), view)
    shown, on = _median(result), ax
    if shown:
        on = _draw_median(ax, shown, result, test, exits[2])
    smooth = list(zip(lrs, result.smooth, strict=True))
    for rule, rate in result.suggested.items():
        if math.isfinite(rate):
            color, marker = _ink(rule, result), RULES[rule][1]
            ax.axvline(rate, color=color, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
            within = bool(shown) and shown[0][0] <= rate <= shown[-1][0]
            seen = _median_view(result, test) if within else view
            y = min(max(_value_at(rate, shown if within else smooth), seen.low), seen.high)
            (on if within else ax).plot([rate], [y], color=color, marker=marker, markersize=6.5, zorder=7)


def _value_at(rate: float, points: Sequence[tuple[float, float]]) -> float:
    """Of a curve, between its points on the log axis."""
    known = np.array([(math.log(lr), y) for lr, y in points if math.isfinite(y)]).reshape(-1, 2)
    return float(np.interp(math.log(rate), known[:, 0], known[:, 1])) if len(known) else 0.0


def _draw_median(
    ax: Axes, shown: Sequence[tuple[float, float]], result: RampResult, test: RangeTest, end: Exit | None
) -> Axes:
    """The sweep's median, on an axis of its own at the right where it is no loss; that axis."""
    view = _median_view(result, test)
    if test.facts is not None and not _is_loss(test.facts):
        ax = ax.twinx()
        ax.spines["right"].set_visible(True)
        ticks.value_axis(ax, view.scale)
        ax.set_ylabel(f"sweep: {words.objective_axis_label(test.facts)}")
    ax.plot(*zip(*shown, strict=True), color=INK, linewidth=2.0, marker="o", markersize=3.5, zorder=4)
    loss_curves.mark_exits(ax, [end], [INK], view)
    return ax


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
