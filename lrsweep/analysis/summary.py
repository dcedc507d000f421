"""summary.csv: a row per optimizer and axis values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts

COLUMNS: dict[str, Callable[[OptimizerFacts], Any]] = {
    "best_lr": lambda row: row.best_lr.value,
    "best_objective": lambda row: row.best_objective,
    "at_edge": lambda row: row.at_edge,
    "recommended_lr": lambda row: row.recommended_lr,
    "basin_low": lambda row: row.good_range.low,
    "basin_high": lambda row: row.good_range.high,
    "basin_decades": lambda row: row.good_range.decades,
    "sensitivity": lambda row: row.sensitivity.whole.value,
    "sensitivity_low": lambda row: row.sensitivity.whole.low,
    "sensitivity_high": lambda row: row.sensitivity.whole.high,
    "diverges_from": lambda row: row.margins.diverges_from,
    "default_lr": lambda row: row.default.lr,
    "default_regret": lambda row: row.default.regret,
    "n_runs": lambda row: row.n_runs,
    "n_diverged": lambda row: row.n_diverged,
    "n_failed": lambda row: row.n_failed,
    "trained": lambda row: row.trained,
    "edge_side": lambda row: row.edge_side,
    "n_rates": lambda row: row.n_rates,
    "n_seeds": lambda row: row.n_seeds,
    "initial_objective": lambda row: row.initial_objective,
    "best_lr_low": lambda row: row.best_lr.low,
    "best_lr_high": lambda row: row.best_lr.high,
    "basin_low_censored": lambda row: row.good_range.censored_low,
    "basin_high_censored": lambda row: row.good_range.censored_high,
    "basin_1pct_decades": lambda row: row.good_range_1pct.decades,
    "sensitivity_norm": lambda row: row.sensitivity.norm.value,
    "sensitivity_range_low": lambda row: row.sensitivity.range_low,
    "sensitivity_range_high": lambda row: row.sensitivity.range_high,
    "sensitivity_3dec": lambda row: row.sensitivity.window,
    "sensitivity_3dec_low": lambda row: row.sensitivity.window_low,
    "sensitivity_3dec_high": lambda row: row.sensitivity.window_high,
    "margin_decades": lambda row: row.margins.margin,
    "margin_censored": lambda row: row.margins.censored,
    "largest_safe_lr": lambda row: row.margins.largest_safe_lr,
    "bengio_factor": lambda row: row.margins.bengio_factor,
    "default_objective": lambda row: row.default.objective,
    "default_interpolated": lambda row: row.default.interpolated,
    "n_tied": lambda row: len(row.tied_lrs),
    "tied_low": lambda row: min(row.tied_lrs, default=math.nan),
    "tied_high": lambda row: max(row.tied_lrs, default=math.nan),
    "median_objective": lambda row: row.median_objective,
    "worst_objective": lambda row: row.worst_objective,
    "target": lambda row: row.targets.target,
    "time_to_target": lambda row: row.targets.least_time,
    "fastest_lr": lambda row: row.targets.fastest_lr,
    "n_rates_arrived": lambda row: len(row.targets.finite),
    "expected_best_of_1": lambda row: row.best_of(1),
    "expected_best_of_2": lambda row: row.best_of(2),
    "expected_best_of_3": lambda row: row.best_of(3),
    "expected_best_of_5": lambda row: row.best_of(5),
}
"""After the optimizer and the axes; those that people look for first come first."""
DRIFT_COLUMNS = {"drift_slope": "value", "drift_low": "low", "drift_high": "high"}
"""Then: the slope of the drift with the budget, where earlier rows of the same runs tell it."""
ADDED_COLUMNS: dict[str, Callable[[OptimizerFacts], Any]] = {
    "unusable_from": lambda row: row.margins.unusable_from,
    "basin_decades_low": lambda row: row.good_range_decades.low,
    "basin_decades_high": lambda row: row.good_range_decades.high,
    "test_at_recommended": lambda row: row.test_at_recommended,
    "rates_too_small": lambda row: row.rates_too_small,
}
"""Last, so that no column moved for those who read by number."""


def summary_rows(facts: SweepFacts) -> tuple[list[str], list[dict[str, Any]]]:
    """Header and rows. The header is the same when there is no row yet."""
    drifts = {(drift.optimizer, tuple(drift.fixed.items())): drift.slope for drift in facts.drifts if drift.from_rows}
    rows = []
    for row in facts.rows:
        numbers = {name: read(row) for name, read in COLUMNS.items()}
        slope = drifts.get((row.optimizer, tuple(row.axes.items())))
        drift = {name: getattr(slope, part, math.nan) for name, part in DRIFT_COLUMNS.items()}
        added = {name: read(row) for name, read in ADDED_COLUMNS.items()}
        rows.append({"optimizer": row.optimizer, **row.axes, **numbers, **drift, **added})
    return ["optimizer", *facts.axes, *COLUMNS, *DRIFT_COLUMNS, *ADDED_COLUMNS], rows
