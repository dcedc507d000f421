"""All optimizers in one pair of axes: on the rate itself, and on the rate over each one's best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lrsweep.analysis.facts import SweepFacts
from lrsweep.plot import legend, style
from lrsweep.plot.style import GREY, INK, Look
from lrsweep.plot.u_curves import draw_overlay, overlay_key, rail_label, rate_range, value_range
from lrsweep.wording import words

PANEL = (6.4, 4.0)
BASIN = style.COLORS[2]
MISSED: tuple[int, tuple[int, ...]] = (0, (2, 2))
REACH = 300.0
"""The factor from the best rate beyond which the aligned overlay is cut."""


def overlay(facts: SweepFacts, looks: Sequence[Look], setting: str = "") -> Figure:
    """Median U-curves on one rate axis, with Adam at its default rate as the line to beat."""
    limits = value_range(facts.rows, facts.mode)
    key = [*legend.curves(facts.rows, looks), *overlay_key(facts, limits)]
    title = f"{facts.name}: {words.objective_text(facts)}, all curves"
    subtitle = words.budget_line(facts, setting)
    page = style.page(1, title, subtitle, columns=1, panel=PANEL, legend=key, head=0.05, left=0.75)
    ax = page.panels[0]
    draw_overlay(ax, facts, looks, limits)
    style.rate_axis(ax, *rate_range(facts.rows))
    ax.set_ylabel(words.objective_axis_label(facts))
    rail_label(ax, limits)
    return page.figure


def aligned(facts: SweepFacts, looks: Sequence[Look], setting: str = "") -> Figure:
    """Share of the gain that is lost by missing the best rate by a factor; who forgives a factor of 3 shows at the two
    vertical lines. 0 is the best of the grid, 1 the untrained model."""
    shown = [(row, one) for row, one in zip(facts.rows, looks, strict=True) if row.trained]
    key = legend.curves([row for row, _ in shown], [one for _, one in shown])
    key += legend.untrained([row for row, _ in shown])
    key.append(Patch(color=BASIN, alpha=0.3, linewidth=0, label="good range: within 5 % of the improvement"))
    key.append(legend.line("a factor of 3 from the best lr", color=INK, linestyle=MISSED, linewidth=0.9))
    left_out = [words.title(row) for row in facts.rows if not row.trained]
    note = f" · not shown (nothing trained): {', '.join(left_out)}" if left_out else ""
    title = f"{facts.name}: cost of a wrong lr, by {words.objective_axis_label(facts)}"
    subtitle = words.budget_line(facts, setting) + note
    page = style.page(1, title, subtitle, columns=1, panel=PANEL, legend=key, head=0.05, left=0.75)
    ax = page.panels[0]
    low, high = 1 / 3, 3.0
    for row, one in shown:
        x = np.array([point.lr / row.best_lr.value for point in row.rates])
        y = np.array([row.lost_share(point.objective) for point in row.rates])
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        ax.plot(x, np.clip(y, None, 1.3), color=one.color, linestyle=one.line, linewidth=1.6, zorder=4)
        inside = y <= 1.2
        ax.plot(x[inside], y[inside], **one.of_marks, markersize=4.5, zorder=5)
    _aligned_axes(ax, max(low, 1 / REACH) / 1.25, min(high, REACH) * 1.25)
    return page.figure


def _aligned_axes(ax: Axes, low: float, high: float) -> None:
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    factors = [3.0, 10.0, 30.0, 100.0]
    named = [*((1 / f, f"1/{f:g}") for f in reversed(factors)), (1.0, "best"), *((f, f"x{f:g}") for f in factors)]
    named = [(place, name) for place, name in named if low <= place <= high]
    style.name_ticks(ax.xaxis, *zip(*named, strict=True))
    for factor in (1 / 3, 3.0):
        ax.axvline(factor, color=INK, linestyle=MISSED, linewidth=0.9, zorder=2)
    ax.axhspan(-0.03, 0.05, color=BASIN, alpha=0.12, linewidth=0, zorder=0)
    ax.axhline(1.0, color=GREY, linestyle=legend.UNTRAINED, linewidth=1.0, zorder=1)
    style.value_axis(ax, -0.03, 1.2, log=False, show=(0.0, 1.0))
    style.note(ax, "above 1: worse than untrained", (low, 1.2), (4, -9), size=7, color=GREY)
    ax.set_xlabel("lr / best lr")
    ax.set_ylabel("fraction of the improvement lost")
