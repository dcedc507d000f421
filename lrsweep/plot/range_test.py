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
from lrsweep.plot import style
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
    page = style.page(
        len(found.lines), columns=style.columns_for(len(found.lines)), panel=(3.3, 2.5), legend=_key(found), left=0.75,
        top=0.78 if found.axes else 0.62,
    )  # fmt: skip
    subtitle = f"one ramp of {found.steps} updates per optimizer, seed {found.seed}"
    if found.has_sweep:
        subtitle += "; the thick line is the sweep's median at the end of each run"
    if found.axes:
        subtitle += f"\nat {', '.join(f'{one.axis}={one.value}' for one in found.axes)}"
    style.heading(page.figure, f"{found.name}: what one ramp suggests", subtitle)
    for ax, line in zip(page.panels, found.lines, strict=False):
        _panel(ax, line, found)
    return page.figure


def _key(found: RangeTest) -> list[Artist]:
    key: list[Artist] = [
        Line2D([], [], color=COLORS[5], linewidth=0.8, label="ramp, raw loss"),
        Line2D([], [], color=COLORS[0], linewidth=1.4, label="ramp, smoothed"),
    ]
    if found.has_sweep:
        key.append(Line2D([], [], color=INK, linewidth=2.0, marker="o", markersize=3.5, label="sweep, median"))
    for rule, (color, marker) in RULES.items():
        label = "per_unit (a warning)" if rule == "per_unit" else rule.replace("_over_", "/")
        key.append(Line2D([], [], color=color, marker=marker, linestyle="", markersize=6, label=label))
    if any(line.unmoved for line in found.lines):
        key.append(Line2D([], [], linestyle="", label="grey: the loss has not fallen by then"))
    return key


def _panel(ax: Axes, line: Line, found: RangeTest) -> None:
    lrs, raw = line.ramp.lrs, np.asarray(line.ramp.losses)
    low, high = _limits(line)
    ax.plot(lrs, np.where(np.isfinite(raw), raw, np.nan), color=COLORS[5], linewidth=0.8, zorder=2)
    ax.plot(lrs, line.smooth, color=COLORS[0], linewidth=1.4, zorder=3)
    if line.row is not None:
        shown = [(point.lr, point.objective) for point in line.row.rates if math.isfinite(point.objective)]
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
    best = f"sweep's best {words.compact(line.best_lr)}; " if math.isfinite(line.best_lr) else ""
    style.panel_title(ax, line.label, f"{best}rules {line.spread:.2g} decades apart")


def _limits(line: Line) -> tuple[float, float]:
    """From the least loss to a little above the start, whatever the ramp rose to."""
    values = [value for value in line.smooth if math.isfinite(value)]
    if line.row is not None:
        values += [point.objective for point in line.row.rates if math.isfinite(point.objective)]
    if not values:
        return 0.0, 1.0
    least, start = min(values), line.smooth[0] if math.isfinite(line.smooth[0]) else max(values)
    span = max(start - least, 1e-12 * max(abs(start), 1.0))
    return least - 0.08 * span, start + 0.5 * span
