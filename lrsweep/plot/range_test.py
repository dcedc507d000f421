"""The one-ramp finder and its rules over the sweep's U-curve: does one ramp find what a sweep finds?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lrsweep import words
from lrsweep.plot import keys, loss_curves, style
from lrsweep.plot.loss_curves import Exit, Window
from lrsweep.plot.style import COLORS, GREY, INK

if TYPE_CHECKING:
    from lrsweep.finder import Line, RangeTest

RULES = {
    "steepest": (COLORS[1], "v"),
    "minimum_over_10": (COLORS[2], "s"),
    "valley": (COLORS[3], "D"),
    "slide": (COLORS[4], "^"),
    "per_unit": (GREY, "x"),
}


def range_test(found: RangeTest) -> Figure:
    """A panel per optimizer: raw and smoothed ramp, the U-curve's medians, and where each rule points."""
    gone = [_exits(line, _view(line, found)) for line in found.lines]
    key = _key(found, leaving=any(map(any, gone)))
    page = style.page(
        len(found.lines), columns=style.columns_for(len(found.lines)), panel=(3.3, 2.5), legend=key, left=0.75,
        top=0.78 if found.axes else 0.62,
    )  # fmt: skip
    subtitle = f"one ramp of {found.steps} updates per optimizer, seed {found.seed}"
    if found.has_sweep:
        subtitle += "; the thick line is the sweep's median at the end of each run"
    if found.axes:
        subtitle += f"\nat {', '.join(f'{one.axis}={one.value}' for one in found.axes)}"
    style.heading(page.figure, f"{found.name}: what one ramp suggests", subtitle)
    for ax, line, exits in zip(page.panels, found.lines, gone, strict=False):
        _panel(ax, line, found, exits)
    return page.figure


def _key(found: RangeTest, *, leaving: bool) -> list[Artist]:
    key: list[Artist] = [
        Line2D([], [], color=COLORS[5], linewidth=0.8, label="ramp, raw loss"),
        Line2D([], [], color=COLORS[0], linewidth=1.4, label="ramp, smoothed"),
    ]
    if found.has_sweep:
        key.append(Line2D([], [], color=INK, linewidth=2.0, marker="o", markersize=3.5, label="sweep, median"))
    for rule, (color, marker) in RULES.items():
        label = "per_unit (a warning)" if rule == "per_unit" else rule.replace("_over_", "/")
        key.append(Line2D([], [], color=color, marker=marker, linestyle="", markersize=6, label=label))
    key += [keys.tries(), *([keys.leaves(up=True)] if leaving else [])]
    if any(line.unmoved for line in found.lines):
        key.append(Line2D([], [], linestyle="", label="grey: the loss has not fallen by then"))
    return key


def _median(line: Line) -> list[tuple[float, float]]:
    """The finite points of the sweep's U-curve."""
    rates = line.row.rates if line.row is not None else ()
    return [(point.lr, point.objective) for point in rates if math.isfinite(point.objective)]


def _view(line: Line, found: RangeTest) -> Window:
    low, high = _limits(line)
    return Window(left=found.low, right=found.high, low=low, high=high, log=False)


def _exits(line: Line, view: Window) -> list[Exit | None]:
    """Where the raw ramp, the smoothed one and the sweep's median first leave the panel."""
    lrs = line.ramp.lrs
    out: list[Exit | None] = []
    for points in (zip(lrs, line.ramp.losses, strict=True), zip(lrs, line.smooth, strict=True), _median(line)):
        kept = [(math.log10(lr), y) for lr, y in points if math.isfinite(y) and view.left <= lr <= view.right]
        end = loss_curves.exit_of(np.array(kept).reshape(-1, 2), view)
        out.append(None if end is None else (10.0 ** end[0], end[1]))
    return out


def _panel(ax: Axes, line: Line, found: RangeTest, exits: list[Exit | None]) -> None:
    lrs, raw, view = line.ramp.lrs, np.asarray(line.ramp.losses), _view(line, found)
    low, high = view.low, view.high
    ax.plot(lrs, np.where(np.isfinite(raw), raw, np.nan), color=COLORS[5], linewidth=0.8, zorder=2)
    ax.plot(lrs, line.smooth, color=COLORS[0], linewidth=1.4, zorder=3)
    if shown := _median(line):
        ax.plot(*zip(*shown, strict=True), color=INK, linewidth=2.0, marker="o", markersize=3.5, zorder=4)
    for rule, rate, _ in line.rules:
        if math.isfinite(rate):
            color, marker = RULES[rule]
            color = GREY if rule in line.unmoved else color
            ax.axvline(rate, color=color, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
            ax.plot([rate], [high - 0.06 * (high - low)], color=color, marker=marker, markersize=6, zorder=6)
    style.rate_axis(ax, found.low, found.high)
    style.value_axis(ax, low, high, log=False)
    style.light_grid(ax)
    left = loss_curves.leavings(ax, exits, (COLORS[5], COLORS[0], INK), view)
    best = f"sweep's best {words.compact(line.best_lr)}; " if math.isfinite(line.best_lr) else ""
    style.panel_title(ax, line.label, f"{best}rules {line.spread:.2g} decades apart", aside=left)


def _limits(line: Line) -> tuple[float, float]:
    """From the least loss to a little above the start, whatever the ramp rose to."""
    values = [value for value in line.smooth if math.isfinite(value)]
    if line.row is not None:
        values += [y for _, y in _median(line)]
    if not values:
        return 0.0, 1.0
    least, start = min(values), line.smooth[0] if math.isfinite(line.smooth[0]) else max(values)
    span = max(start - least, 1e-12 * max(abs(start), 1.0))
    return least - 0.08 * span, start + 0.5 * span
