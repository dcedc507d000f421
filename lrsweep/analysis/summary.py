"""summary.csv: a row per optimizer and axis values."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrsweep.analysis import advice, suggest
from lrsweep.analysis.cells import AnalysisConfig, Cell
from lrsweep.analysis.drift import best_lrs
from lrsweep.analysis.facts import Drift, EdgeSide, OptimizerFacts, RatePoint, SweepFacts
from lrsweep.analysis.good_range import basin, best_rate, recommended
from lrsweep.analysis.margins import at_default, margins
from lrsweep.analysis.sensitivity import is_even, sensitivity_facts
from lrsweep.analysis.stats import Floats, medians, resampled_medians
from lrsweep.analysis.targets import arrived, expected_bests, target_facts
from lrsweep.analysis.tied import best_lr_estimate, tied_rates
from lrsweep.objective import Mode, uncost

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Middle:
    """The medians of a cell: `m` (R,) over its seeds, `start` its l0, `best` the number of the best rate."""

    m: Floats
    start: float
    best: int | None

    @property
    def least(self) -> float:
        return math.nan if self.best is None else float(self.m[self.best])


def middle_of(cell: Cell) -> Middle:
    m = medians(cell.cost)
    return Middle(m=m, start=cell.start, best=best_rate(m))


def row_of(
    cell: Cell, middle: Middle, drawn: Floats, time: Floats, target: float, setup: AnalysisConfig
) -> OptimizerFacts:
    """`drawn` (B, R) are the medians of every bootstrap draw, `time` (R, S) is the time to `target` (a cost)."""
    draft = _draft(cell, middle, drawn, time, target, setup)
    return dataclasses.replace(
        draft,
        sentence=advice.sentence(draft, setup.budget),
        warnings=advice.warnings_of(draft),
        lr_line=suggest.lr_line(draft),
    )


def _draft(
    cell: Cell, middle: Middle, drawn: Floats, time: Floats, target: float, setup: AnalysisConfig
) -> OptimizerFacts:
    """The numbers of a row, without its words."""
    starts = resampled_medians(cell.initial[None])[:, 0]
    seeds, m, l0, best, mode = len(cell.seeds), middle.m, middle.start, middle.best, setup.mode
    found = basin(cell.lrs, m, l0, mode)
    alive = (~np.isnan(cell.cost)).sum(axis=1)
    gone = cell.diverged.sum(axis=1)
    tied = tuple(cell.lrs[tied_rates(cell.cost, best, l0)].tolist())
    edge = edge_side(m, best)
    best_lr = best_lr_estimate(cell.lrs, best, best_lrs(cell.lrs, drawn), seeds)
    choice = recommended(found, cell.lrs, gone == 0, best_lr.value)
    if best is not None and math.isnan(l0):
        choice = best_lr.value, "the best of the rates tried; without the untrained model's value no range can be told"
    if found.rates and ((found.censored_low and not alive[0]) or (found.censored_high and not alive[-1])):
        choice = best_lr.value, "the best of the rates tried; the good range ends at rates whose runs failed"
    choice = _priced(choice, cell.lrs, m, best, setup)
    costs = m[~np.isnan(m)]
    statuses = Counter(run.status for run in cell.runs)
    return OptimizerFacts(
        optimizer=cell.optimizer,
        name=cell.name,
        axes=dict(cell.axes),
        title=title(cell),
        n_rates=len(cell.lrs),
        n_seeds=seeds,
        n_runs=len(cell.runs),
        n_ok=statuses["ok"],
        n_diverged=statuses["diverged"],
        n_failed=statuses["failed"],
        rates=_rate_points(cell, m, time, (found.rates, tied), mode),
        runs=cell.runs,
        initial_objective=uncost(l0, mode),
        trained=bool(middle.least < l0),
        best_lr=best_lr,
        best_objective=uncost(middle.least, mode),
        at_edge=edge != "",
        edge_side=edge,
        recommended_lr=choice[0],
        recommended_reason=choice[1],
        sensitivity=sensitivity_facts(cell.lrs, m, l0, best, (drawn, starts), seeds),
        basin=found,
        basin_1pct=basin(cell.lrs, m, l0, mode, share=0.01),
        margins=margins(cell.lrs, m, (gone, alive), l0, best),
        default=at_default(cell.lrs, m, setup.default_lrs.get(cell.optimizer, math.nan), best, mode),
        tied_lrs=tied,
        targets=target_facts(cell.lrs, time, target, mode),
        expected_best=expected_bests(m, l0, mode),
        median_objective=uncost(float(medians(costs)), mode),
        worst_objective=uncost(float(costs.max()), mode) if len(costs) else math.nan,
        diagnoses=tuple(Counter(run.diagnosis for run in cell.runs if run.diagnosis).most_common()),
        even_grid=is_even(cell.lrs),
        sentence="",
        warnings=(),
        lr_line="",
    )


def _priced(
    choice: tuple[float, str], lrs: Floats, m: Floats, best: int | None, setup: AnalysisConfig
) -> tuple[float, str]:
    """The recommended rate and its reason, with what it costs where it is not the best of the rates tried."""
    rate, reason = choice
    if best is None or math.isnan(rate) or rate == lrs[best]:
        return choice
    there, least = (uncost(float(m[at]), setup.mode) for at in (int(np.flatnonzero(lrs == rate)[0]), best))
    return rate, f"{reason}; its price: {setup.metric} {there:.4g} there, {least:.4g} at the best rate {lrs[best]:.3g}"


def edge_side(m: Floats, best: int | None) -> EdgeSide:
    """Which edge the best rate lies on, among the rates with a result."""
    known = np.flatnonzero(~np.isnan(m))
    if best is None:
        return ""
    low, high = best == known[0], best == known[-1]
    return "both" if low and high else "low" if low else "high" if high else ""


def title(cell: Cell) -> str:
    """`adam` or `adam, train.batch_size=16`."""
    return ", ".join([cell.optimizer, *(f"{axis}={value}" for axis, value in cell.axes.items())])


def _rate_points(
    cell: Cell, m: Floats, time: Floats, marks: tuple[Sequence[float], Sequence[float]], mode: Mode
) -> tuple[RatePoint, ...]:
    """`marks` are the rates in the basin and the tied ones."""
    typical, share = medians(time), arrived(time)
    worse = (~cell.diverged & (cell.cost > cell.initial)).sum(axis=1)
    states = Counter((run.lr, run.status) for run in cell.runs)
    out = []
    for r, lr in enumerate(cell.lrs.tolist()):
        finite = cell.cost[r][np.isfinite(cell.cost[r])]
        ok, diverged, failed = (states[lr, status] for status in ("ok", "diverged", "failed"))
        out.append(
            RatePoint(
                lr=lr,
                objective=uncost(float(m[r]), mode),
                best=uncost(float(finite.min()), mode) if len(finite) else math.nan,
                worst=uncost(float(finite.max()), mode) if len(finite) else math.nan,
                n_runs=ok + diverged + failed,
                n_ok=ok,
                n_diverged=diverged,
                n_failed=failed,
                n_worse=int(worse[r]),
                in_basin=lr in marks[0],
                tied=lr in marks[1],
                time=float(typical[r]),
                arrived=float(share[r]),
            )
        )
    return tuple(out)
