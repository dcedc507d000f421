"""From the tables of a sweep to frozen facts: the row of each optimizer, then what holds for all of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lrsweep.analysis.baseline import adam_label, against_adam
from lrsweep.analysis.cells import AnalysisConfig, Cell, Frames, Track, cells_of, config_of, tracks_of
from lrsweep.analysis.drift import along_axes, axis_drift, best_lrs, budget_drift, rate_ratios
from lrsweep.analysis.facts import (
    AgainstAdam,
    Drift,
    EdgeSide,
    GoodRange,
    OptimizerFacts,
    RatePoint,
    RateRatio,
    RecommendedBy,
    SweepFacts,
)
from lrsweep.analysis.good_range import SHARE, STRICT, good_range, recommended, unusable_rate, usable, widths
from lrsweep.analysis.margins import SAME, at_default, margins
from lrsweep.analysis.sensitivity import sensitivity_facts, weights
from lrsweep.analysis.stats import (
    Bools,
    Floats,
    Ints,
    bootstrapped,
    draws_for,
    medians,
    resampled_medians,
    weighted_median,
)
from lrsweep.analysis.targets import arrived, expected_bests, target_facts, target_of, times
from lrsweep.analysis.tied import best_lr_interval, tied_rates
from lrsweep.analysis.trained import Middle, middle_of
from lrsweep.objective import Mode, is_best_possible, uncost
from lrsweep.system.machine import available_cores
from lrsweep.system.parallel import in_processes
from lrsweep.system.process import few_collections

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

LEAST_SHARED = 40
"""Settings whose analysis is shared out among processes: fewer are done before another process is of use."""


def analyse(
    runs: pd.DataFrame, curves: Frames, spec: Any, default_lrs: Mapping[str, float],
    *, metric: str | None = None, at: str | None = None,
) -> SweepFacts:  # fmt: skip
    """Everything a sweep shows.

    `runs` has the columns of runs.csv, `curves` those of curves.csv: one frame or frames in any cut, of which only the
    objective's metric is kept, or None (then times to target, budget drift and the start of metrics other than losses
    are not known). `default_lrs` gives torch's default rate by label or optimizer name. `metric` and `at` look at
    another objective than the spec's, read off the curves.
    """
    config = config_of(spec, default_lrs, metric, at)
    tracks = tracks_of(curves, config.metric)
    if (config.metric, config.at) != (spec.objective.metric, spec.objective.at):
        runs = runs.drop(columns="objective")
    return facts_of(runs, tracks, config)


@np.errstate(over="ignore")  # of two values near the largest float: inf, which compares as it should
def facts_of(runs: pd.DataFrame, tracks: Mapping[str, Track], config: AnalysisConfig) -> SweepFacts:
    """`analyse` after its inputs were read."""
    cells = cells_of(runs, tracks, config)
    middles = [middle_of(cell, tracks) for cell in cells]
    learned = [cell for cell, middle in zip(cells, middles, strict=True) if middle.trained]
    target = target_of([middle.start for middle in middles], [middle.least for middle in middles if middle.trained])
    draws = draws_for(len(cells))
    places: dict[tuple[str, ...], list[int]] = {}
    for number, cell in enumerate(cells):
        places.setdefault(tuple(cell.axes.values()), []).append(number)
    compared = _shared_out(
        [
            partial(_compared, [cells[k] for k in at], [middles[k] for k in at], tracks, target, config, draws)
            for at in places.values()
        ],
        len(cells),
    )
    along = _shared_out(
        [partial(axis_drift, axis, some, draws) for axis, some in along_axes(learned, tuple(config.axes))], len(cells)
    )
    keys = [(cell.optimizer, tuple(cell.axes.values())) for cell in cells]
    rows = {(row.optimizer, tuple(row.axes.values())): row for one in compared for row in one.rows}
    gains = {(gain.optimizer, tuple(gain.axes.values())): gain for one in compared for gain in one.against_adam}
    drifts = {(drift.optimizer, tuple(drift.fixed.values())): drift for one in compared for drift in one.drifts}
    return SweepFacts(
        name=config.name,
        metric=config.metric,
        at=config.at,
        mode=config.mode,
        budget=config.budget,
        axes=tuple(config.axes),
        n_runs=len(runs),
        n_diverged=int((runs["status"] == "diverged").sum()),
        n_failed=int((runs["status"] == "failed").sum()),
        seeds=tuple(int(seed) for seed in np.unique(runs["seed"].to_numpy(dtype=np.int64))),
        target=uncost(target, config.mode),
        rows=tuple(replace(rows[key], runs=cell.runs) for key, cell in zip(keys, cells, strict=True)),
        drifts=(*(drifts[key] for key in keys if key in drifts), *(drift for drift in along if drift is not None)),
        adam=adam_label(config),
        against_adam=tuple(gains[key] for key in keys if key in gains),
        ratios=tuple(ratio for one in compared for ratio in one.ratios),
        coupled_decay=config.decay,
        plateau_metrics=config.watched,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Compared:
    """What is found of the cells at one set of axis values: their rows, without the runs, and what compares them."""

    rows: list[OptimizerFacts]
    drifts: list[Drift]
    against_adam: tuple[AgainstAdam, ...]
    ratios: list[RateRatio]


def _compared(
    cells: Sequence[Cell], middles: Sequence[Middle], tracks: Mapping[str, Track], target: float,
    config: AnalysisConfig, draws: int,
) -> _Compared:  # fmt: skip
    drawn = [resampled_medians(cell.cost, draws) for cell in cells]
    rows = [
        row_of(cell, middle, medians_BR, times(cell, tracks, target, config.mode), target, config, draws)
        for cell, middle, medians_BR in zip(cells, middles, drawn, strict=True)
    ]
    learned = [cell for cell, middle in zip(cells, middles, strict=True) if middle.trained]
    return _Compared(
        rows=[replace(row, runs=()) for row in rows],  # which need not go from process to process
        drifts=[drift for cell in learned if (drift := budget_drift(cell, tracks, config, draws)) is not None],
        against_adam=against_adam(cells, drawn, config),
        ratios=rate_ratios(cells, [best_lrs(cell.lrs, one) for cell, one in zip(cells, drawn, strict=True)], draws),
    )


def _shared_out(calls: Sequence[Callable[[], T]], settings: int) -> list[T]:
    """Their results, made on all cores where there are so many settings that it pays."""
    with few_collections():
        return in_processes(calls, available_cores() if settings >= LEAST_SHARED else 1)


def row_of(
    cell: Cell, middle: Middle, drawn: Floats, time: Floats, target: float, config: AnalysisConfig, draws: int
) -> OptimizerFacts:
    """`drawn` (B, R) are the medians of all `draws`, `time` (R, S) is the time to `target` (a cost)."""
    starts = resampled_medians(cell.initial[None], draws)[:, 0]
    seeds, m, l0, best, mode = len(cell.seeds), middle.m, middle.start, middle.best, config.mode
    learned, start = middle.trained_best, l0 if middle.trained else math.nan
    stable: Bools = ~np.any(cell.diverged, axis=1)
    found, strict = (good_range(cell.lrs, m, start, mode, share, clean=stable) for share in (SHARE, STRICT))
    wide = widths(cell.lrs, drawn, starts, stable) if middle.trained else np.empty(0)
    clean = usable(cell.cost, cell.diverged, m, l0, learned) if learned is not None else None
    first_unusable = unusable_rate(m, l0, learned) if learned is not None else None
    counts = cell.diverged.sum(axis=1), (~np.isnan(cell.cost)).sum(axis=1)
    limits = margins(cell.lrs, m, counts, best, first_unusable, clean)
    tied = tuple(cell.lrs[tied_rates(cell.cost, best, l0)].tolist())
    edge = edge_side(m, best)
    best_lr = best_lr_interval(cell.lrs, best, best_lrs(cell.lrs, drawn), seeds)
    choice = _recommended(cell, found, (clean, limits.unusable_from), counts[1], best_lr.value)
    kept = _of_spec(cell.lrs, config.grids.get(cell.optimizer), learned)
    known = kept & ~np.isnan(m)
    statuses = Counter(run.status for run in cell.runs)
    return OptimizerFacts(
        optimizer=cell.optimizer,
        name=cell.name,
        axes=dict(cell.axes),
        momentum=config.momentum_of(cell.optimizer, cell.axes),
        n_rates=len(cell.lrs),
        n_seeds=seeds,
        n_runs=len(cell.runs),
        n_ok=statuses["ok"],
        n_diverged=statuses["diverged"],
        n_failed=statuses["failed"],
        rates=_rate_points(cell, middle, time, (found.rates, tied), mode),
        runs=cell.runs,
        initial_objective=uncost(l0, mode),
        trained=middle.trained,
        rates_too_small=middle.too_small,
        best_lr=best_lr,
        best_objective=uncost(middle.least, mode),
        at_edge=edge != "",
        edge_side=edge,
        recommended_lr=choice[0],
        recommended_by=choice[1],
        sensitivity=sensitivity_facts(cell.lrs, m, l0, learned, (drawn, starts), seeds, kept),
        good_range=found,
        good_range_1pct=strict,
        good_range_decades=bootstrapped(found.decades, wide, seeds),
        margins=limits,
        default=at_default(cell.lrs, m, config.default_lrs.get(cell.optimizer, math.nan), best, mode),
        test_at_recommended=_test_at(cell, choice[0]),
        tied_lrs=tied,
        targets=target_facts(cell.lrs, time, target, mode),
        expected_best=expected_bests(cell.lrs[kept], m[kept], l0, mode),
        median_objective=uncost(weighted_median(m[known], weights(cell.lrs[known])), mode),
        worst_objective=uncost(float(m[known].max()), mode) if known.any() else math.nan,
        cannot_improve=is_best_possible(config.metric, uncost(middle.least, mode)),
        diagnoses=tuple(Counter(run.diagnosis for run in cell.runs if run.diagnosis).most_common()),
    )


def _of_spec(lrs: Floats, ends: tuple[float, float] | None, best: int | None) -> Bools:
    """(R,): the rates between the `ends` of the grid that the spec asks for. What --refine added beyond them would make
    S, which depends on its range, another number, and change the order of optimizers. All, where the best lies there.
    """
    every: Bools = np.ones(len(lrs), dtype=bool)
    if ends is None:
        return every
    inside: Bools = (lrs >= ends[0] * (1 - SAME)) & (lrs <= ends[1] * (1 + SAME))
    return inside if inside.any() and (best is None or inside[best]) else every


def _test_at(cell: Cell, lr: float) -> float:
    """The median over seeds of the metric on the test split at one rate of the grid; nan without either."""
    at = np.flatnonzero(cell.lrs == lr)
    return float(medians(cell.test[at[0]])) if len(at) else math.nan


def _recommended(
    cell: Cell, found: GoodRange, limits: tuple[Bools | None, float], alive: Ints, best_lr: float
) -> tuple[float, RecommendedBy]:
    """The recommended rate of a row and why. `limits`: the usable rates (R,), None where nothing trained, and the first
    rate above the best that is not; `alive` (R,) counts the runs that did not fail."""
    clean, unusable_from = limits
    if math.isnan(cell.start) and not math.isnan(best_lr):
        return best_lr, "no_start"
    if clean is None:
        return math.nan, "nothing"
    if (found.censored_low and not alive[0]) or (found.censored_high and not alive[-1]):
        return best_lr, "failed_edge"
    return recommended(found, cell.lrs, clean, best_lr, unusable_from)


def edge_side(m: Floats, best: int | None) -> EdgeSide:
    """Which edge the best rate lies on, among the rates with a result."""
    known = np.flatnonzero(~np.isnan(m))
    if best is None:
        return ""
    low, high = best == known[0], best == known[-1]
    return "both" if low and high else "low" if low else "high" if high else ""


def _rate_points(
    cell: Cell, middle: Middle, time: Floats, marks: tuple[Sequence[float], Sequence[float]], mode: Mode
) -> tuple[RatePoint, ...]:
    """`marks` are the rates in the good range and the tied ones."""
    typical, share = medians(time), arrived(time)
    worse = (~cell.diverged & (cell.cost > cell.initial + middle.tolerance)).sum(axis=1)
    states = Counter((run.lr, run.status) for run in cell.runs)
    out = []
    for r, lr in enumerate(cell.lrs.tolist()):
        finite = cell.cost[r][np.isfinite(cell.cost[r])]
        ok, diverged, failed = (states[lr, status] for status in ("ok", "diverged", "failed"))
        out.append(
            RatePoint(
                lr=lr,
                objective=uncost(float(middle.m[r]), mode),
                best=uncost(float(finite.min()), mode) if len(finite) else math.nan,
                worst=uncost(float(finite.max()), mode) if len(finite) else math.nan,
                n_runs=ok + diverged + failed,
                n_ok=ok,
                n_diverged=diverged,
                n_failed=failed,
                n_worse=int(worse[r]),
                in_good_range=lr in marks[0],
                tied=lr in marks[1],
                time=float(typical[r]),
                arrived=float(share[r]),
            )
        )
    return tuple(out)
