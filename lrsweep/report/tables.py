"""The tables of the report: facts in, HTML out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from lrsweep.analysis.facts import (
    AgainstAdam,
    Drift,
    Interval,
    OptimizerFacts,
    RatePoint,
    RateRatio,
    SweepFacts,
    full_title,
)
from lrsweep.report.template import TableCell, table
from lrsweep.wording.notes import no_drift
from lrsweep.wording.words import failures_by_text, listed, number_text, objective_text_of, plural, rate_text

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
MOST_FAILURES = 50
MOST_RATES = 20
"""Of those at which runs failed with one text."""


def rate(value: float) -> TableCell:
    return TableCell("" if math.isnan(value) else rate_text(value), value)


def number(value: float, *, at_least: bool = False, note: str = "") -> TableCell:
    text = "" if math.isnan(value) else ("≥ " if at_least else "") + number_text(value, 4)
    return TableCell(text, value, note)


def objective(row: OptimizerFacts, value: float, note: str = "") -> TableCell:
    """An objective of `row`, with as many digits as its improvement needs."""
    return TableCell("" if math.isnan(value) else objective_text_of(row, value), value, note)


def with_interval(one: Interval) -> TableCell:
    """A number with its interval."""
    return number(one.value, note=_brackets(one))


def _brackets(one: Interval) -> str:
    known = math.isfinite(one.low) and math.isfinite(one.high)
    return f"[{number_text(one.low)}, {number_text(one.high)}]" if known else ""


def count(value: int) -> TableCell:
    return TableCell(str(value), float(value))


def _columns(caption: str, columns: Mapping[str, Callable[[T], TableCell | str]], rows: Iterable[T]) -> str:
    """A table with a line per row; `columns` says by its head what stands in each."""
    return table(caption, tuple(columns), ([cell(row) for cell in columns.values()] for row in rows))


def numbers(facts: SweepFacts) -> list[str]:
    """Three tables with a line per row of summary.csv; one for a sweep with one learning rate."""
    if facts.one_rate:
        return [_columns("Every setting at its learning rate", STUDY, facts.rows)]
    return [
        _columns("Best learning rate and good range", BEST, facts.rows),
        _columns("Sensitivity to the learning rate", SENSITIVE, facts.rows),
        _columns("Cost of an untuned learning rate", GRID, facts.rows),
    ]


def _edge(row: OptimizerFacts) -> str:
    """Whether the best rate is the outermost one, those whose runs failed aside."""
    beside = row.edge_side in row.failed_ends or (row.edge_side == "both" and row.failed_ends)
    return f"{EDGES[row.edge_side].removesuffix(' tried')} that did not fail" if beside else EDGES[row.edge_side]


EDGES = {"": "", "low": "lowest tried", "high": "highest tried", "both": "only one tried"}
BEST: dict[str, Callable[[OptimizerFacts], TableCell | str]] = {
    "curve": lambda row: row.title,
    "best lr": lambda row: replace(rate(row.best_lr.value), note=_edge(row)),
    "interval": lambda row: TableCell(_span(row.best_lr.low, row.best_lr.high), row.best_lr.low),
    "best objective": lambda row: objective(row, row.best_objective),
    "recommended": lambda row: rate(row.recommended_lr),
    "test there": lambda row: objective(row, row.test_at_recommended),
    "good from": lambda row: rate(row.good_range.low),
    "to": lambda row: rate(row.good_range.high),
    "decades": lambda row: number(
        round(row.good_range.decades, 3),
        at_least=row.good_range.at_least,
        note=" ".join([_brackets(row.good_range_decades), "one grid point" * (len(row.good_range.rates) == 1)]).strip(),
    ),
    "tied with the best": lambda row: count(len(row.tied_lrs)),
    "unusable from": lambda row: rate(row.margins.unusable_from),
    "diverges from": lambda row: rate(row.margins.diverges_from),
    "largest safe lr": lambda row: rate(row.margins.largest_safe_lr),
}
SENSITIVE: dict[str, Callable[[OptimizerFacts], TableCell | str]] = {
    "curve": lambda row: row.title,
    "S": lambda row: with_interval(row.sensitivity.whole),
    "over the grid": lambda row: _span(row.sensitivity.range_low, row.sensitivity.range_high),
    "S / improvement": lambda row: with_interval(row.sensitivity.norm),
    "S, three decades": lambda row: number(row.sensitivity.window),
    "window": lambda row: (
        _span(row.sensitivity.window_low, row.sensitivity.window_high) or "grid too short" * row.trained
    ),
    "1 % range, decades": lambda row: number(
        round(row.good_range_1pct.decades, 3), at_least=row.good_range_1pct.at_least
    ),
    "margin, decades": lambda row: number(round(row.margins.margin, 3), at_least=row.margins.censored),
}
GRID: dict[str, Callable[[OptimizerFacts], TableCell | str]] = {
    "curve": lambda row: row.title,
    "untrained": lambda row: objective(row, row.initial_objective),
    "best": lambda row: objective(row, row.best_objective),
    "grid median": lambda row: objective(row, row.median_objective),
    "worst over the grid": lambda row: objective(row, row.worst_objective),
    "default lr": lambda row: rate(row.default.lr),
    "at the default": lambda row: objective(row, row.default.objective, "~" * row.default.interpolated),
    "regret at default": lambda row: number(row.default.regret, note="~" * row.default.interpolated),
    "expected best of 1": lambda row: objective(row, row.best_of(1)),
    "of 3": lambda row: objective(row, row.best_of(3)),
    "of 5": lambda row: objective(row, row.best_of(5)),
    "runs": lambda row: count(row.n_runs),
    "diverged": lambda row: count(row.n_diverged),
    "failed": lambda row: count(row.n_failed),
}
STUDY: dict[str, Callable[[OptimizerFacts], TableCell | str]] = {
    "curve": lambda row: row.title,
    "lr": lambda row: rate(row.rates[0].lr),
    "untrained": lambda row: objective(row, row.initial_objective),
    "median": lambda row: objective(row, row.rates[0].objective),
    "best seed": lambda row: objective(row, row.rates[0].best),
    "worst seed": lambda row: _worst(row, row.rates[0]),
    "test": lambda row: objective(row, row.test_at_recommended),
    "steps to target": lambda row: _steps(row.rates[0]),
    "arrived": lambda row: number(row.rates[0].arrived),
    "runs": lambda row: count(row.n_runs),
    "diverged": lambda row: count(row.n_diverged),
    "failed": lambda row: count(row.n_failed),
}


def _worst(row: OptimizerFacts, point: RatePoint) -> TableCell:
    """The objective of the worst seed: a diverged one costs more than any other."""
    if not point.n_diverged:
        return objective(row, point.worst)
    return TableCell("diverged", math.copysign(math.inf, row.initial_objective - row.best_objective))


def _steps(point: RatePoint) -> TableCell:
    return TableCell("never", math.inf) if point.time == math.inf else number(point.time)


def _span(low: float, high: float) -> str:
    return f"{rate_text(low)} to {rate_text(high)}" if math.isfinite(low) else ""


def rates(row: OptimizerFacts) -> str:
    """A line per grid rate."""
    columns: dict[str, Callable[[RatePoint], TableCell | str]] = {
        "rate": lambda point: rate(point.lr),
        "median": lambda point: objective(row, point.objective),
        "best seed": lambda point: objective(row, point.best),
        "worst seed": lambda point: _worst(row, point),
        "ok": lambda point: count(point.n_ok),
        "diverged": lambda point: count(point.n_diverged),
        "failed": lambda point: count(point.n_failed),
        "good range": lambda point: "yes" * point.in_good_range,
        "tied with the best": lambda point: "yes" * point.tied,
        "steps to target": _steps,
        "arrived": lambda point: number(point.arrived),
    }
    return _columns(f"{row.title}: every learning rate", columns, row.rates)


# --- comparisons --------------------------------------------------------------------------------------------------


def against_adam(facts: SweepFacts) -> str:
    """The best of every other optimizer against Adam at its default rate."""
    columns: dict[str, Callable[[AgainstAdam], TableCell | str]] = {
        "curve": lambda one: full_title(one.optimizer, one.axes),
        "best lr": lambda one: rate(one.best_lr),
        "objective": lambda one: number(one.best_objective),
        f"{facts.adam} at": lambda one: rate(one.adam_lr),
        "objective there": lambda one: number(one.adam_objective),
        "difference": lambda one: with_interval(one.gain),
        "verdict": lambda one: (
            f"indistinguishable with {plural(one.gain.n, 'seed')}" if one.verdict == "tied" else one.verdict
        ),
    }
    caption = (
        f"Against {facts.adam} at its default learning rate (difference: how much lower the cost is, paired by seed; "
        "the interval allows for the best learning rate being chosen by the same seeds)"
    )
    return _columns(caption, columns, facts.against_adam)


def drifts(facts: SweepFacts) -> str:
    columns: dict[str, Callable[[Drift], TableCell | str]] = {
        "curve": lambda one: full_title(one.optimizer, one.fixed),
        "against": lambda one: "budget (steps)" if one.against == "budget" else one.against,
        "from": lambda one: number(one.values[0]),
        "to": lambda one: number(one.values[-1]),
        "best learning rates": lambda one: ", ".join(rate_text(value) for value in one.best_lrs),
        "slope": lambda one: TableCell(no_drift(one), math.nan) if one.stays else with_interval(one.slope),
    }
    caption = "How the best learning rate moves (slope in decades of lr per decade)"
    return _columns(caption, columns, [one for one in facts.drifts if one.values])


def ratios(facts: SweepFacts) -> str:
    columns: dict[str, Callable[[RateRatio], TableCell | str]] = {
        "curve": lambda one: full_title(one.optimizer, one.axes),
        "relative to": lambda one: one.reference,
        "ratio of best learning rates": lambda one: with_interval(one.ratio),
    }
    return _columns("Best learning rates relative to the first optimizer", columns, facts.ratios)


# --- diagnosis ----------------------------------------------------------------------------------------------------

LABELS = (
    "too_slow", "improving", "converged", "recovered_spike", "oscillating", "stuck", "worse_than_start", "diverged",
    "failed", "",
)  # fmt: skip


def diagnoses(facts: SweepFacts) -> str:
    """How many runs of each row got which label."""
    counts = [dict(row.diagnoses) for row in facts.rows]
    known = [label for label in LABELS if any(label in one for one in counts)]
    known += sorted({label for one in counts for label in one} - set(LABELS))
    rows: Iterable[list[TableCell | str]] = (
        [row.title, *(count(one.get(label, 0)) for label in known)] for row, one in zip(facts.rows, counts, strict=True)
    )
    names = ("curve", *(label or "too few evaluations" for label in known))
    return table("Runs by diagnosis (from train_loss)", names, rows)


def diagnosis_by_rate(row: OptimizerFacts) -> str:
    """What became of each rate: its labels over the seeds."""

    def line(point: RatePoint) -> list[TableCell | str]:
        labels = Counter(run.diagnosis or run.status for run in row.runs if run.lr == point.lr)
        text = ", ".join(name if n == 1 and point.n_runs == 1 else f"{name} x{n}" for name, n in labels.most_common())
        return [rate(point.lr), text]

    names = ("rate", "diagnosis of train_loss over seeds")
    return table(f"{row.title}, diagnosis by learning rate", names, map(line, row.rates))


def failures(runs: pd.DataFrame) -> str:
    """What the failed runs raised, a line for each text: how many raised it, and which."""
    failed = runs[runs["status"] == "failed"]
    by_text = failures_by_text(failed)
    few = list(by_text.items())[:MOST_FAILURES]
    lines: Iterable[list[TableCell | str]] = ([text, count(len(rows)), _which(rows)] for text, rows in few)
    more = f"; the first {MOST_FAILURES} of {len(by_text)} errors" if len(by_text) > MOST_FAILURES else ""
    return table(f"Failed runs ({len(failed)}{more})", ("error", "count", "runs"), lines)


def _which(rows: Iterable[Any]) -> str:
    """`adam 0.01 (seeds 0, 1), adam 0.1 (seed 0)`, as many as can be read."""
    seeds: dict[str, list[str]] = {}
    for row in rows:
        seeds.setdefault(f"{row.optimizer} {rate_text(row.lr)}", []).append(str(row.seed))
    texts = [
        f"{name} (seed{'s' * (len(of) > 1)} {', '.join(of)})"
        for name, of in ((name, list(dict.fromkeys(found))) for name, found in seeds.items())
    ]
    return listed(texts, MOST_RATES)
