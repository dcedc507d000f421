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

from lrsweep.plot import legend, loss_curves, style
from lrsweep.plot.loss_curves import Exit, Window
from lrsweep.plot.style import COLORS, GREY, INK
from lrsweep.plot.u_curves import value_range
from lrsweep.wording import words

if TYPE_CHECKING:
    from lrsweep.analysis.facts import SweepFacts
    from lrsweep.sweep.lr_finder import Line, RangeTest

RULES = {
    "steepest": (COLORS[1], "v"),
    "minimum_over_10": (COLORS[2], "s"),
    "valley": (COLORS[3], "D"),
    "slide": (COLORS[4], "^"),
    "per_unit": (GREY, "x"),
}


def range_test(found: RangeTest) -> Figure:
    """A panel per optimizer: raw and smoothed ramp, the U-curve's medians, and where each rule points."""
    gone = [_exits(line, found) for line in found.lines]
    key = _key(found, leaving=any(map(any, gone)))
    beside = 0.65 if found.facts is not None and not _is_loss(found.facts) else 0.0  # the room of a second axis
    subtitle = f"one ramp of {found.steps} updates per optimizer, seed {found.seed}"
    if found.facts is not None:
        subtitle += f"; the thick line is the sweep's median {words.objective_text(found.facts)}"
    if found.axes:
        subtitle += f"\nat {', '.join(f'{one.axis}={one.value}' for one in found.axes)}"
    page = style.page(
        len(found.lines), f"{found.name}: what one ramp suggests", subtitle,
        columns=style.columns_for(len(found.lines)), panel=(3.3, 2.5), legend=key, left=0.75,
        right=0.2 + beside, gap=(0.55 + beside, 0.36), top=0.78 if found.axes else 0.62,
    )  # fmt: skip
    for index, (ax, line, exits) in enumerate(zip(page.panels, found.lines, gone, strict=True)):
        _panel(ax, line, found, exits)
        if page.left_column(index):
            ax.set_ylabel(_values_text(found.facts))
    return page.figure


def _is_loss(facts: SweepFacts) -> bool:
    """The objective has the unit of the ramp's training loss."""
    return facts.mode == "min" and facts.metric in ("train_loss", "val_loss")


def _values_text(facts: SweepFacts | None) -> str:
    """What stands along y at the left."""
    if facts is None or facts.metric == "train_loss" or not _is_loss(facts):
        return "train_loss of a batch"
    return f"train_loss of a batch; {words.axis_text(facts)}"


def _key(found: RangeTest, *, leaving: bool) -> list[Artist]:
    key: list[Artist] = [
        Line2D([], [], color=COLORS[5], linewidth=0.8, label="ramp, raw loss"),
        Line2D([], [], color=COLORS[0], linewidth=1.4, label="ramp, smoothed"),
    ]
    if found.has_sweep:
        key.append(Line2D([], [], color=INK, linewidth=2.0, marker="o", markersize=3.5, label="sweep, median"))
    for rule, (_, marker) in RULES.items():
        inks = {_ink(rule, line) for line in found.lines if math.isfinite(_suggested(line, rule))}
        if inks:  # in its colour where any panel shows it so
            label = "per_unit (a warning)" if rule == "per_unit" else rule
            color = min(inks, key=lambda ink: ink == GREY)
            key.append(Line2D([], [], color=color, marker=marker, linestyle="", markersize=6, label=label))
    key += [legend.tries(), *([legend.leaves(up=True)] if leaving else [])]
    if any(line.unmoved for line in found.lines):
        key.append(Line2D([], [], linestyle="", label="grey: the loss has not fallen by then"))
    return key


def _suggested(line: Line, rule: str) -> float:
    return next((rate for name, rate, _ in line.rules if name == rule), math.nan)


def _ink(rule: str, line: Line) -> str:
    return GREY if rule in line.unmoved else RULES[rule][0]


def _median(line: Line) -> list[tuple[float, float]]:
    """The finite points of the sweep's U-curve."""
    rates = line.row.rates if line.row is not None else ()
    return [(point.lr, point.objective) for point in rates if math.isfinite(point.objective)]


def _view(line: Line, found: RangeTest) -> Window:
    low, high = _limits(line, found.facts)
    return Window(left=found.low, right=found.high, low=low, high=high, log=False)


def _median_view(line: Line, found: RangeTest) -> Window:
    """What the sweep's median is drawn in: the ramp's axis if both are losses, else its own."""
    if found.facts is None or line.row is None or _is_loss(found.facts):
        return _view(line, found)
    own = value_range([line.row], found.facts.mode)
    return Window(left=found.low, right=found.high, low=own.low, high=own.high, log=own.log)


def _exits(line: Line, found: RangeTest) -> list[Exit | None]:
    """Where the raw ramp, the smoothed one and the sweep's median first leave the panel."""
    lrs, view = line.ramp.lrs, _view(line, found)
    ramps = [(zip(lrs, losses, strict=True), view) for losses in (line.ramp.losses, line.smooth)]
    out: list[Exit | None] = []
    for points, view in (*ramps, (_median(line), _median_view(line, found))):
        kept = [(math.log10(lr), y) for lr, y in points if math.isfinite(y) and view.left <= lr <= view.right]
        end = loss_curves.exit_of(np.array(kept).reshape(-1, 2), view)
        out.append(None if end is None else (10.0 ** end[0], end[1]))
    return out


def _panel(ax: Axes, line: Line, found: RangeTest, exits: list[Exit | None]) -> None:
    lrs, raw, view = line.ramp.lrs, np.asarray(line.ramp.losses), _view(line, found)
    low, high = view.low, view.high
    ax.plot(lrs, np.where(np.isfinite(raw), raw, np.nan), color=COLORS[5], linewidth=0.8, zorder=2)
    ax.plot(lrs, line.smooth, color=COLORS[0], linewidth=1.4, zorder=3)
    for rule, rate, _ in line.rules:
        if math.isfinite(rate):
            color, marker = _ink(rule, line), RULES[rule][1]
            ax.axvline(rate, color=color, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
            ax.plot([rate], [high - 0.06 * (high - low)], color=color, marker=marker, markersize=6, zorder=6)
    style.rate_axis(ax, found.low, found.high)
    style.value_axis(ax, low, high, log=False)
    style.light_grid(ax)
    loss_curves.mark_exits(ax, exits[:2], (COLORS[5], COLORS[0]), view)
    if shown := _median(line):
        _draw_median(ax, shown, line, found, exits[2])
    left = loss_curves.exits_text(exits)
    best = f"sweep's best {words.compact(line.best_lr)}; " if math.isfinite(line.best_lr) else ""
    style.panel_title(ax, line.label, f"{best}rules {line.spread:.2g} decades apart", aside=left)


def _draw_median(
    ax: Axes, shown: Sequence[tuple[float, float]], line: Line, found: RangeTest, end: Exit | None
) -> None:
    """The sweep's median, on an axis of its own at the right where it is no loss."""
    view = _median_view(line, found)
    if found.facts is not None and not _is_loss(found.facts):
        ax = ax.twinx()
        ax.spines["right"].set_visible(True)
        style.value_axis(ax, view.low, view.high, log=view.log)
        ax.set_ylabel(f"sweep: {words.axis_text(found.facts)}")
    ax.plot(*zip(*shown, strict=True), color=INK, linewidth=2.0, marker="o", markersize=3.5, zorder=4)
    loss_curves.mark_exits(ax, [end], [INK], view)


def _limits(line: Line, facts: SweepFacts | None) -> tuple[float, float]:
    """From the least loss to a little above the start, whatever the ramp rose to."""
    values = [value for value in line.smooth if math.isfinite(value)]
    if facts is None or _is_loss(facts):
        values += [y for _, y in _median(line)]
    if not values:
        return 0.0, 1.0
    least, start = min(values), line.smooth[0] if math.isfinite(line.smooth[0]) else max(values)
    span = max(start - least, 1e-12 * max(abs(start), 1.0))
    return least - 0.08 * span, start + 0.5 * span
