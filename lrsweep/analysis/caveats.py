"""What to know before believing a row of the summary, as fixed words; `wording.advice` makes sentences from them."""

from __future__ import annotations

import math
from typing import Literal

from lrsweep.analysis.facts import OptimizerFacts
from lrsweep.analysis.suggest import ENOUGH, close_enough, open_gaps, steep_gap

Caveat = Literal[
    "failed", "broken_start", "all_diverged", "no_start", "untrained", "too_small", "mostly_diverged",
    "worse_than_untrained", "failed_edge", "edge", "censored", "crowded", "narrow", "cliff", "steep",
    "flat", "short_budget", "one_seed", "few_seeds",
]  # fmt: skip
WIDE_TIE = 0.5
"""Share of the grid: more rates than this tied with the best means that the seeds cannot tell them apart."""


def caveats_of(row: OptimizerFacts) -> tuple[Caveat, ...]:
    """The weightiest first: how the runs ended, then what the grid leaves open, then how much the evidence bears."""
    return (*_of_outcomes(row), *_of_grid(row), *_of_evidence(row))


def _of_outcomes(row: OptimizerFacts) -> list[Caveat]:
    out: list[Caveat] = ["failed"] if row.n_failed else []
    if row.n_runs == row.n_failed:
        return out
    if row.broken_start:
        return [*out, "broken_start"]
    if math.isnan(row.best_lr.value):
        out.append("all_diverged")
    elif row.rates_too_small:
        out.append("too_small")
    elif not row.trained:
        out.append("no_start" if math.isnan(row.initial_objective) else "untrained")
    if 2 * row.n_diverged > row.n_runs - row.n_failed:
        out.append("mostly_diverged")
    if _ends_badly(row):
        out.append("worse_than_untrained")
    return out


def _ends_badly(row: OptimizerFacts) -> bool:
    """Runs that end worse than the untrained model, more than above every good range: there, some always do."""
    worse = [point for point in row.rates if point.n_worse]
    top = row.good_range.rates[-1] if row.good_range.rates else math.inf
    total = sum(point.n_worse for point in worse)
    return any(point.lr <= top for point in worse) or 2 * total > row.n_runs - row.n_failed


def _of_grid(row: OptimizerFacts) -> list[Caveat]:
    out: list[Caveat] = []
    if row.holds_rate:
        return out
    if row.rates_too_small or not (row.trained or math.isnan(row.initial_objective)):
        return ["failed_edge"] if row.open_ends & row.failed_ends else []
    if row.open_ends & row.failed_ends:
        out.append("failed_edge")
    elif row.at_edge:
        out.append("edge")
    if row.open_ends - row.failed_ends and (row.open_ends & row.failed_ends or not row.at_edge):
        out.append("censored")
    if row.trained and len(row.good_range.rates) < ENOUGH:
        out.append("crowded" if close_enough(row) else "narrow")
    if open_gaps(row):
        out.append("cliff")
    if steep_gap(row):
        out.append("steep")
    return out


def _of_evidence(row: OptimizerFacts) -> list[Caveat]:
    out: list[Caveat] = []
    if row.trained and row.n_rates >= 3 and len(row.good_range.rates) == row.n_rates:
        out.append("flat")
    improving, good = row.still_improving
    if good and 2 * improving > good and not row.cannot_improve:
        out.append("short_budget")
    if row.n_seeds == 1:
        out.append("one_seed")
    elif row.trained and len(row.tied_lrs) > max(WIDE_TIE * row.n_rates, ENOUGH):
        out.append("few_seeds")
    return out
