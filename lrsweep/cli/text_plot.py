"""U-curves as text: one line per curve, one character per rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lrsweep.objective import cost
from lrsweep.wording.words import compact

if TYPE_CHECKING:
    from lrsweep.analysis.facts import OptimizerFacts, SweepFacts

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+oO#"
BEST, DIVERGED, FAILED = "*", "x", "?"
MOST_COLUMNS = 60


def u_curves(facts: SweepFacts, *, unicode: bool = True) -> str:
    """Every curve of the sweep on one rate axis, low is good: `*` is the best rate, `x` a rate that diverged.

    The heights run from the best median of the sweep to its untrained model; `unicode=False` keeps to ASCII. Empty
    without a finished run.
    """
    rates = sorted({point.lr for row in facts.rows for point in row.rates})
    if not rates:
        return ""
    columns = _columns(rates)
    low, high = _range(facts)
    width = max(len(row.title) for row in facts.rows)
    marks = BLOCKS if unicode else PLAIN
    lines = [f"{row.title:<{width}}  {_line(row, facts.mode, columns, (low, high), marks)}" for row in facts.rows]
    first, last = compact(rates[0]), compact(rates[-1])
    count = max(columns.values()) + 1
    axis = f"{first}{last:>{max(count - len(first), len(last) + 1)}}"
    legend = f"{BEST} best  {DIVERGED} diverged" + (f"  {FAILED} failed" if facts.n_failed else "")
    legend += "  low is good"
    return "\n".join([*lines, f"{'lr':<{width}}  {axis}   {legend}"])


def _columns(rates: Sequence[float]) -> dict[float, int]:
    """The column of each rate: its place in the grid, or, if there are too many, its place on a log axis."""
    if len(rates) <= MOST_COLUMNS:
        return {rate: column for column, rate in enumerate(rates)}
    start, span = math.log10(rates[0]), math.log10(rates[-1] / rates[0])
    return {rate: round((math.log10(rate) - start) / span * (MOST_COLUMNS - 1)) for rate in rates}


def _range(facts: SweepFacts) -> tuple[float, float]:
    """Costs of the best median and of the untrained model (of the worst finite median if that is not above)."""
    seen = [cost(point.objective, facts.mode) for row in facts.rows for point in row.rates]
    seen = [value for value in seen if math.isfinite(value)]
    start = [cost(row.initial_objective, facts.mode) for row in facts.rows if math.isfinite(row.initial_objective)]
    low = min(seen, default=0.0)
    high = max(start, default=low)
    return low, high if high > low else max(seen, default=low)


def _line(row: OptimizerFacts, mode: str, columns: dict[float, int], limits: tuple[float, float], marks: str) -> str:
    """The worse of two rates that share a column is not shown."""
    low, high = limits
    shown: dict[int, tuple[float, str]] = {}
    for point in row.rates:
        value = cost(point.objective, "min" if mode == "min" else "max")
        if point.lr == row.best_lr.value:
            rank, mark = -math.inf, BEST
        elif math.isfinite(value):
            share = (value - low) / (high - low) if high > low else 1.0
            rank, mark = value, marks[min(len(marks) - 1, max(0, int(share * len(marks))))]
        else:
            rank, mark = math.inf, DIVERGED if point.n_diverged else FAILED
        column = columns[point.lr]
        if column not in shown or rank < shown[column][0]:
            shown[column] = (rank, mark)
    return "".join(shown[column][1] if column in shown else " " for column in range(max(columns.values()) + 1))
