"""Time to target beside the final objective on one rate axis, and its performance profile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis.facts import SweepFacts
from lrsweep.plot import legend, style
from lrsweep.plot.style import INK, Look
from lrsweep.plot.u_curves import RAIL, draw_overlay, overlay_key, rail_label, rate_range, value_range
from lrsweep.wording import words

TARGET = (0, (3, 1, 1, 1))


def time_to_target(facts: SweepFacts, looks: Sequence[Look], setting: str = "") -> Figure:
    """Three panels: final objective by rate, updates to the target by rate, share of the grid within tau times the
    least time (Asi and Duchi 2019)."""
    limits = value_range(facts.rows, facts.mode)
    key = [*legend.curves(facts.rows, looks), *overlay_key(facts, limits)]
    shown = math.isfinite(facts.target) and not limits.beyond(facts.target)
    if shown:
        key.append(legend.line("target", color=INK, linestyle=TARGET, linewidth=0.9))
    goal = f"target: {facts.metric} {'≤' if facts.mode == 'min' else '≥'} {words.number_text(facts.target, 4)}"
    page = style.page(
        3, f"{facts.name}: time to target", f"{words.budget_line(facts, setting)} · {goal}",
        columns=3, panel=(3.6, 2.9), legend=key, left=0.7, gap=(0.75, 0.4),
    )  # fmt: skip
    end, times, profile = page.panels
    draw_overlay(end, facts, looks, limits)
    if shown:
        end.axhline(facts.target, color=INK, linewidth=0.9, linestyle=TARGET)
    end.set_ylabel(words.objective_axis_label(facts))
    rail_label(end, limits)
    _times(times, facts, looks)
    _profile(profile, facts, looks)
    for ax in (end, times):
        style.rate_axis(ax, *rate_range(facts.rows))
    style.panel_title(end, "final objective", "medians over seeds")
    style.panel_title(times, "steps to target", ("median over seeds; top edge: half of the seeds never reach it"))
    style.panel_title(profile, "performance profile", "fraction of the grid within tau times the shortest time")
    return page.figure


def _times(ax: Axes, facts: SweepFacts, looks: Sequence[Look]) -> None:
    reached = [point.time for row in facts.rows for point in row.rates if math.isfinite(point.time) and point.time > 0]
    low, high = (min(reached) / 1.3, max(reached) * 1.3) if reached else (1.0, 10.0)
    top = low * (high / low) ** (1 / (1 - RAIL))
    style.value_axis(ax, low, top, log=True, show=(low, high))
    ax.axhspan(high, top, color="#F1F1F1", linewidth=0, zorder=0)
    for row, one in zip(facts.rows, looks, strict=True):
        x = np.array([point.lr for point in row.rates])
        y = np.array([point.time for point in row.rates], dtype=float)
        shown = np.where(np.isfinite(y) & (y > 0), y, np.nan)
        ax.plot(x, shown, **one.of_line, markersize=4, linewidth=1.5, zorder=4)
        never = x[np.isinf(y)]
        place = 1 - RAIL * (0.25 + 0.5 * (looks.index(one) + 0.5) / len(looks))
        blend = ax.get_xaxis_transform()
        ax.plot(never, [place] * len(never), **one.of_marks, markersize=2.4, transform=blend, zorder=4)
    style.note(ax, "never", (0, 1 - RAIL / 2), (-5, 0), xycoords="axes fraction", size=7, ha="right", va="center")


def _profile(ax: Axes, facts: SweepFacts, looks: Sequence[Look]) -> None:
    last = max((tau for row in facts.rows for tau, _ in row.targets.profile), default=1.0)
    end = max(2.0, last * 1.2)
    for row, one in zip(facts.rows, looks, strict=True):
        if row.targets.profile:
            tau, share = zip(*row.targets.profile, strict=True)
            ax.step([*tau, end], [*share, share[-1]], where="post", color=one.color, linestyle=one.line, linewidth=1.6)
            ax.plot(tau, share, **one.of_marks, markersize=4)
    ax.set_xscale("log")
    ax.set_xlim(0.95, end)
    ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 1000, 10000) if tick <= end]
    style.name_ticks(ax.xaxis, ticks, [f"{tick:g}" for tick in ticks])
    style.value_axis(ax, 0.0, 1.02, log=False, show=(0.0, 1.0))
    ax.set_xlabel("tau: time / shortest time of that optimizer")
    ax.set_ylabel("fraction of learning rates")
