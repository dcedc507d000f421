"""summary.csv: a row per optimizer and axis values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrsweep.analysis.facts import Drift, OptimizerFacts, SweepFacts

if TYPE_CHECKING:
    import pandas as pd

SHOWN_TRIES = (1, 2, 3, 5)

COLUMNS = (
    "best_lr", "best_objective", "at_edge", "recommended_lr", "basin_low", "basin_high", "basin_decades",
    "sensitivity", "sensitivity_low", "sensitivity_high", "diverges_from", "default_lr", "default_regret",
    "n_runs", "n_diverged", "n_failed", "trained", "edge_side", "n_rates", "n_seeds", "initial_objective",
    "best_lr_low", "best_lr_high", "basin_low_censored", "basin_high_censored", "basin_1pct_decades",
    "sensitivity_norm", "sensitivity_range_low", "sensitivity_range_high", "sensitivity_3dec",
    "sensitivity_3dec_low", "sensitivity_3dec_high", "margin_decades", "margin_censored", "largest_safe_lr",
    "bengio_factor", "default_objective", "default_interpolated", "n_tied", "tied_low", "tied_high",
    "median_objective", "worst_objective", "target", "time_to_target", "fastest_lr", "n_rates_arrived",
    "expected_best_of_1", "expected_best_of_2", "expected_best_of_3", "expected_best_of_5", "drift_slope",
    "drift_low", "drift_high",
)  # fmt: skip
"""After the optimizer and the axes; those that people look for first come first."""


def summary_rows(facts: SweepFacts) -> tuple[list[str], list[dict[str, Any]]]:
    """Header and rows. The header is the same when there is no row yet."""
    drifts = {(drift.optimizer, tuple(drift.fixed.items())): drift for drift in facts.drifts if drift.from_rows}
    rows = [
        {
            "optimizer": row.optimizer,
            **row.axes,
            **_first_columns(row),
            **_more_columns(row),
            **_drift_columns(drifts.get((row.optimizer, tuple(row.axes.items())))),
        }
        for row in facts.rows
    ]
    return ["optimizer", *facts.axes, *COLUMNS], rows


def summary_frame(facts: SweepFacts) -> pd.DataFrame:
    """`summary_rows` as a frame."""
    import pandas as pd

    header, rows = summary_rows(facts)
    return pd.DataFrame(rows, columns=header)


def _first_columns(row: OptimizerFacts) -> dict[str, Any]:
    s, basin = row.sensitivity.whole, row.basin
    return {
        "best_lr": row.best_lr.value,
        "best_objective": row.best_objective,
        "at_edge": row.at_edge,
        "recommended_lr": row.recommended_lr,
        "basin_low": basin.low,
        "basin_high": basin.high,
        "basin_decades": basin.decades,
        "sensitivity": s.value,
        "sensitivity_low": s.low,
        "sensitivity_high": s.high,
        "diverges_from": row.margins.diverges_from,
        "default_lr": row.default.lr,
        "default_regret": row.default.regret,
        "n_runs": row.n_runs,
        "n_diverged": row.n_diverged,
        "n_failed": row.n_failed,
    }


def _more_columns(row: OptimizerFacts) -> dict[str, Any]:
    s, basin, margin, targets = row.sensitivity, row.basin, row.margins, row.targets
    tries = {f"expected_best_of_{k}": row.expected_best[k - 1] for k in SHOWN_TRIES if k <= len(row.expected_best)}
    return {
        "trained": row.trained,
        "edge_side": row.edge_side,
        "n_rates": row.n_rates,
        "n_seeds": row.n_seeds,
        "initial_objective": row.initial_objective,
        "best_lr_low": row.best_lr.low,
        "best_lr_high": row.best_lr.high,
        "basin_low_censored": basin.censored_low,
        "basin_high_censored": basin.censored_high,
        "basin_1pct_decades": row.basin_1pct.decades,
        "sensitivity_norm": s.norm.value,
        "sensitivity_range_low": s.range_low,
        "sensitivity_range_high": s.range_high,
        "sensitivity_3dec": s.window,
        "sensitivity_3dec_low": s.window_low,
        "sensitivity_3dec_high": s.window_high,
        "margin_decades": margin.margin,
        "margin_censored": margin.censored,
        "largest_safe_lr": margin.largest_safe_lr,
        "bengio_factor": margin.bengio_factor,
        "default_objective": row.default.objective,
        "default_interpolated": row.default.interpolated,
        "n_tied": len(row.tied_lrs),
        "tied_low": min(row.tied_lrs, default=float("nan")),
        "tied_high": max(row.tied_lrs, default=float("nan")),
        "median_objective": row.median_objective,
        "worst_objective": row.worst_objective,
        "target": targets.target,
        "time_to_target": targets.least_time,
        "fastest_lr": targets.fastest_lr,
        "n_rates_arrived": len(targets.finite),
        **{f"expected_best_of_{k}": tries.get(f"expected_best_of_{k}", float("nan")) for k in SHOWN_TRIES},
    }


def _drift_columns(drift: Drift | None) -> dict[str, Any]:
    nan = float("nan")
    slope = drift.slope if drift is not None else None
    return {
        "drift_slope": slope.value if slope else nan,
        "drift_low": slope.low if slope else nan,
        "drift_high": slope.high if slope else nan,
    }
