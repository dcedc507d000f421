"""Steps to the sweep's target against the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import legend, style, tags, ticks
from lrsweep.plot.style import SCREEN, Head, Look, Sheet
from lrsweep.plot.ticks import Scale
from lrsweep.plot.u_curves import rate_range
from lrsweep.wording import words

PANEL = (6.4, 4.0)
RING = 3.0
"""Points by which a mark is larger than the next one at the same place."""
ROW = 0.3
"""Inches of the row of those that never arrive."""


def time_to_target(facts: SweepFacts, looks: Sequence[Look], sheet: Sheet = SCREEN) -> Figure:
    """Median steps over seeds by rate; on the row at the top edge stand the rates at which half or more of the seeds
    never reach the target. Steps are counted in evaluations, so curves often meet: of marks at one place, the first
    are the largest."""
    panel = _panel(facts)
    key = legend.curves(facts.rows, looks)
    page = style.page(
        [Head(title="")], f"{facts.name}: steps to target, {goal_text(facts)}",
        f"{words.budget_line(facts, sheet.setting)}\n{_target_text(facts, never=panel.never)}", sheet,
        columns=1, panel=PANEL, legend=key,
        left=style.left_room(max(panel.scale.width, 0.35), panel.name),
    )  # fmt: skip
    (ax,) = page.panels
    _fill(ax, facts, looks, panel, page.size[1])
    style.y_label(ax, panel.name, page.size[1], beyond=0.35 - panel.scale.width)
    return page.figure


def into(ax: Axes, facts: SweepFacts, looks: Sequence[Look]) -> None:
    """The same in a panel of the user's, in the user's style."""
    panel = _panel(facts)
    _fill(ax, facts, looks, panel, ticks.inches(ax, upright=True))
    ax.set_ylabel(panel.name).set_parse_math(False)
    legend.beside(ax, legend.curves(facts.rows, looks))


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """The axis of steps, what it is called, and whether some never arrive."""

    low: float
    high: float
    scale: Scale
    name: str
    never: bool


def _panel(facts: SweepFacts) -> _Panel:
    points = [point for row in facts.rows for point in row.rates]
    reached = [point.time for point in points if math.isfinite(point.time) and point.time > 0]
    low, high = (min(reached) / 1.15, max(reached) * 1.15) if reached else (1.0, 10.0)
    return _Panel(
        low=low, high=high, scale=ticks.value_scale(low, high, log=True), name=f"steps to {goal_text(facts)}",
        never=any(math.isinf(point.time) for point in points),
    )  # fmt: skip


def _fill(ax: Axes, facts: SweepFacts, looks: Sequence[Look], panel: _Panel, height: float) -> None:
    """All of the axes, `height` inches high, but the name of their steps."""
    low, high = panel.low, panel.high
    rail = min(max(ROW, 0.07 * len(looks)) / height, 0.3) if panel.never else 0.0
    top = low * (high / low) ** (1 / (1 - rail))
    ticks.value_axis(ax, panel.scale, high=top)
    ticks.rate_axis(ax, *rate_range(facts.rows))
    if panel.never:
        ax.axhspan(high, top, color="#F3F3F3", linewidth=0, zorder=0)
        style.note(ax, "never", (0, 1 - rail / 2), (-5, 0), xycoords="axes fraction", size=7, ha="right", va="center")
    places = [_reached(row) for row in facts.rows]
    for row, one, index in tags.each(ax, zip(facts.rows, looks, range(len(looks)), strict=True)):
        x = np.array([point.lr for point in row.rates])
        y = np.array([point.time for point in row.rates], dtype=float)
        ax.plot(x, np.where(np.isfinite(y) & (y > 0), y, np.nan), color=one.color, linestyle=one.line, linewidth=1.6)
        for at in places[index]:
            over = sum(at in others for others in places[index + 1 :])
            ax.plot(*at, **one.of_marks, markersize=4.5 + RING * min(over, 3), zorder=4)
        gone = x[np.isinf(y)]
        place = 1 - rail * (index + 1) / (len(looks) + 1)
        ax.plot(gone, [place] * len(gone), **one.of_marks, markersize=3, transform=ax.get_xaxis_transform(), zorder=4)


def _reached(row: OptimizerFacts) -> dict[tuple[float, float], None]:
    """Where the marks of a curve are."""
    return {(point.lr, point.time): None for point in row.rates if math.isfinite(point.time) and point.time > 0}


def goal_text(facts: SweepFacts) -> str:
    """`val_loss ≤ 0.3011`, with as many digits as tell the target from the best of the sweep."""
    gains = [abs(row.initial_objective - row.best_objective) for row in facts.rows if row.trained]
    known = [gain for gain in gains if 0 < gain < math.inf]
    digits = 3 + max(1, math.ceil(math.log10(abs(facts.target) / max(known)))) if known and facts.target else 4
    number = words.number_text(facts.target, min(digits, 16)).replace("e+", "e").replace("e0", "e").replace("e-0", "e-")
    return f"{facts.metric} {'≤' if facts.mode == 'min' else '≥'} {number}"


def _target_text(facts: SweepFacts, *, never: bool) -> str:
    goal = (
        f"the lowest {words.objective_text(facts)}"
        if facts.mode == "min"
        else f"the highest {words.objective_text(facts)}"
    )
    edge = "; never: half or more of the seeds do not get there" if never else ""
    places = [place for row in facts.rows for place in _reached(row)]
    met = "; of marks at one place the larger ones lie below" if len({*places}) < len(places) else ""
    return f"target: 90 % of the way from the untrained model to {goal} (median over seeds){edge}{met}"
