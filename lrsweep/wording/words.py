"""Short texts about facts, shared by pictures, report and terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrsweep.analysis.facts import Budget, OptimizerFacts, SweepFacts, shortened

if TYPE_CHECKING:
    import pandas as pd

NOT_FALLEN = "before the ramp's loss clearly fell"
"""Of a learning rate in a range test: until there the loss fell by no more than its noise, or hardly at all."""


def plural(n: int, noun: str) -> str:
    """`1 run`, `3 runs`, `2 processes`."""
    ending = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n} {noun}{ending}"


def decades(width: float) -> str:
    """`1.2 decades`, `1 decade`."""
    text = f"{width:.2g}"
    return f"{text} decade{'' if text == '1' else 's'}"


def agree(n: int, verb: str) -> str:
    """The verb after a number: 1 `diverges`, 3 `diverge`."""
    return f"{verb}s" if n == 1 else verb


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


LEAST_SEEDS = 5
"""Below this many seeds a percentile interval of medians covers 71 to 83 %, not 95 (simulated)."""


def interval_name(seeds: int) -> str:
    """What an interval over so many seeds may be called."""
    return "95 % interval" if seeds >= LEAST_SEEDS else f"range over {plural(seeds, 'seed')}"


def duration(seconds: float) -> str:
    """`8 s`, `3 min 05 s`, `2 h 10 min`; `unknown` for nan."""
    if not math.isfinite(seconds):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def rate_text(rate: float, digits: int = 3) -> str:
    """A rate in a sentence or a table: `0.00316`, `1e-05`, as the files write it but with few digits."""
    return f"{rate:.{digits}g}"


def compact(rate: float, digits: int = 3) -> str:
    """A rate where there is little room: `1e-5`, `0.01`, `3.16e-3`."""
    if not math.isfinite(rate) or rate <= 0 or 0.01 <= rate < 1000:
        return f"{float(f'{rate:.{digits}g}'):g}"  # 180, where two digits alone are 1.8e+02
    mantissa, exponent = f"{rate:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def short_number(value: float) -> str:
    """A number with two digits where there is little room: `1.3`, `0.0021`, `1.4e9`."""
    mantissa, e, exponent = f"{value:.2g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def number_text(value: float, digits: int = 3) -> str:
    """A number with so many digits, a dash for none."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def objective_text_of(row: OptimizerFacts, value: float, digits: int = 4) -> str:
    """An objective with so many digits, and with more where these would not show half a percent of the improvement."""
    gain = abs(row.initial_objective - row.best_objective)
    size = max(abs(row.initial_objective), abs(row.best_objective))
    if 0 < gain < math.inf and size < math.inf:
        digits = min(max(digits, math.ceil(math.log10(200 * size / gain))), 17)
    return number_text(value, digits)


def good_range_ends(row: OptimizerFacts, text: Callable[[float, int], str] = rate_text) -> tuple[str, str]:
    """Both ends of the good range with two digits, or three where two would leave the best rate outside."""
    ends = row.good_range.low, row.good_range.high
    low, high = (text(end, 2) for end in ends)
    if not float(low) <= float(text(row.best_lr.value, 3)) <= float(high):
        low, high = (text(end, 3) for end in ends)
    return low, high


def decades_text(row: OptimizerFacts) -> str:
    """The width of the good range; a range is never shown as 0.0 wide, unless that is its lower bound. `~`
    marks one that holds a single grid point: both of its ends are read off lines to rates outside."""
    width = row.good_range.decades
    if row.good_range.at_least:
        return f"{width:.1f}"
    return "<0.1" if width < 0.05 else f"{'~' * (len(row.good_range.rates) == 1)}{width:.1f}"


def unusable_text(row: OptimizerFacts) -> str:
    """The lowest rate above the best from which training fails; if the grid holds none, the highest rate that did not
    fail as a bound."""
    first = row.margins.unusable_from
    return rate_text(first) if math.isfinite(first) else f"> {rate_text(highest_known(row))}"


def highest_known(row: OptimizerFacts) -> float:
    """The highest learning rate at which some run did not fail."""
    return max((point.lr for point in row.rates if point.n_runs > point.n_failed), default=row.rates[-1].lr)


def facts_line(row: OptimizerFacts) -> str:
    """Best rate, good range and sensitivity in one line."""
    if not row.trained:
        return f"{row.n_diverged} of {plural(row.n_runs, 'run')} diverged"
    if len(row.rates) == 1:
        return f"one learning rate tried, {compact(row.best_lr.value)}"
    at_least = "≥ " if row.good_range.at_least else ""
    low, high = good_range_ends(row, compact)
    parts = [
        f"best {compact(row.best_lr.value)}",
        f"good {low} to {high} ({at_least}{decades_text(row)} decades)",
        f"S {short_number(row.sensitivity.whole.value)}",
    ]
    return " · ".join(parts)


def title(row: OptimizerFacts) -> str:
    """The name of a row where there is little room: `sgd, batch_size=16` for the axis `train.batch_size`."""
    return ", ".join([shortened(row.optimizer), *([axes_text(row.axes)] if row.axes else [])])


def axes_text(axes: Mapping[str, str]) -> str:
    """Axis values, each axis by the end of its path where that tells it from the others."""
    ends = [path.rpartition(".")[2] for path in axes]
    names = ends if len(set(ends)) == len(ends) else list(axes)
    return ", ".join(f"{name}={shortened(text)}" for name, text in zip(names, axes.values(), strict=True))


def objective_text(facts: SweepFacts) -> str:
    """The objective in words: `final val_loss`, `val_loss (mean of the last 10 evaluations)`."""
    if facts.at in ("final", "best", "mean"):
        return f"{facts.at} {facts.metric}"
    return f"{facts.metric} (mean of the last {facts.at.removeprefix('last_')} evaluations)"


def objective_axis_label(facts: SweepFacts) -> str:
    """The objective as the label of an axis."""
    return f"{facts.metric} ({facts.at.replace('_', ' ')})"


def budget_text(budget: Budget | None) -> str:
    """`20 epochs`."""
    return plural(budget.amount, budget.unit.removesuffix("s")) if budget else "the budget of its axis"


def budget_line(facts: SweepFacts, setting: str = "") -> str:
    """What every number of a plot holds for, and how many runs it shows; `setting` says more than the budget."""
    failed = f", {facts.n_failed} failed" if facts.n_failed else ""
    counts = f"{plural(len(facts.seeds), 'seed')} · {plural(facts.n_runs, 'run')}, {facts.n_diverged} diverged{failed}"
    return f"{setting or budget_text(facts.budget)} · {counts}"


def made_at(place: str) -> str:
    """`; its task was made at mytask.py:29 in make`; empty for a task whose place is not known."""
    return f"; its task was made at {place}" if place else ""


def failures_by_text(failed: pd.DataFrame) -> dict[str, list[Any]]:
    """Failed runs by the first line of what they raised, in the order in which the texts come."""
    found: dict[str, list[Any]] = {}
    for row in failed.itertuples():
        found.setdefault(without_processes(str(row.error).split("\n", 1)[0]), []).append(row)
    return found


def without_processes(text: str) -> str:
    """An error's text without the numbers of processes, which are others in every run."""
    return re.sub(r"\b(pid(?:\(s\)|s)?)[ =:]*\d+(?:, *\d+)*", r"\1", text, flags=re.IGNORECASE)
