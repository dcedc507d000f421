"""How the best rate moves: with the budget, with a numeric axis, and from one optimizer to the next."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrsweep.analysis.cells import AnalysisConfig, Cell, Track, value_at
from lrsweep.analysis.facts import Drift, Interval, RateRatio
from lrsweep.analysis.good_range import best_rate
from lrsweep.analysis.stats import DRAWS, Bools, Floats, bootstrapped, medians, resampled_medians
from lrsweep.objective import cost

HALVINGS = 4
"""Shorter budgets looked at: 1/2, 1/4, 1/8 and 1/16 of the run, each at the last row within it."""

LEAST_VALUES, LEAST_FOR_INTERVAL = 2, 3
"""Budgets (or axis values) with a best rate inside the grid that a slope needs, and that its interval needs."""
NO_SLOPE = Interval(value=math.nan, low=math.nan, high=math.nan, n=0)


def slope(x: Floats, y: Floats) -> Floats:
    """Least-squares slope of log10 y (..., K) on log10 x (K,): decades per decade. nan where any y is missing."""
    log = np.log10(x) - np.log10(x).mean()
    spread = float(log @ log)
    moved = np.log10(y) - np.log10(y[..., :1])  # a rate that stays has slope 0, not some rounding error
    return moved @ log / spread if spread > 0 else np.full(y.shape[:-1], np.nan)


def best_lrs(lrs: Floats, m: Floats) -> Floats:
    """Best grid rate of every draw in `m` (..., R); nan where none is finite."""
    finite = np.where(np.isfinite(m), m, np.inf)
    at = finite.argmin(axis=-1)
    return np.where(np.isfinite(m).any(axis=-1), lrs[at], np.nan)


def refined(lrs: Floats, m: Floats) -> Floats:
    """Where a parabola through the best rate and its two neighbours in log lr is least, for every draw in `m` (..., R).

    The grid's best rate itself where a neighbour is missing or not finite; nan if there is no best rate.
    """
    return _parabola(lrs, m)[0]


def is_refined(lrs: Floats, m: Floats) -> Bools:
    """Where `refined` is read off a parabola (...,): the best rate and both of its neighbours are finite."""
    return _parabola(lrs, m)[1]


def _parabola(lrs: Floats, m: Floats) -> tuple[Floats, Bools]:
    grid = best_lrs(lrs, m)
    if len(lrs) < 3:
        return grid, np.zeros(grid.shape, dtype=bool)
    finite = np.where(np.isfinite(m), m, np.inf)
    best = np.clip(finite.argmin(axis=-1), 1, len(lrs) - 2)
    log = np.log10(lrs)
    a, b, c = log[best - 1], log[best], log[best + 1]
    low, mid, high = (np.take_along_axis(finite, (best + k)[..., None], axis=-1)[..., 0] for k in (-1, 0, 1))
    sound = np.isfinite(low) & np.isfinite(mid) & np.isfinite(high) & (lrs[best] == grid)
    left = np.where(sound, (b - a) * (np.where(sound, high, 0) - np.where(sound, mid, 0)), 0)
    right = np.where(sound, (c - b) * (np.where(sound, low, 0) - np.where(sound, mid, 0)), 0)
    bottom = left + right
    bent = sound & np.isfinite(bottom) & (bottom > 0)
    shift = 0.5 * ((c - b) * right - (b - a) * left) / np.where(bent, bottom, 1)
    # Three equal costs have no bottom to find: the best of them, the smallest rate, stays.
    return np.where(bent, 10 ** (b + np.where(bent, shift, 0)), grid), np.asarray(sound & np.isfinite(bottom))


def budget_costs(cell: Cell, tracks: Mapping[str, Track], config: AnalysisConfig, budget: float) -> Floats:
    """(R, S): what the runs would have cost after `budget` updates, by their earlier rows."""
    out = np.full(cell.cost.shape, np.nan)
    for at in zip(*np.nonzero(cell.points >= 0), strict=True):
        run = cell.runs[cell.points[at]]
        if run.status == "diverged" and run.diverged_step <= budget:
            out[at] = math.inf
        elif run.run_id in tracks:
            out[at] = cost(value_at(tracks[run.run_id], config.metric, config.at, config.mode, budget), config.mode)
    return out


def budgets_of(cell: Cell, tracks: Mapping[str, Track]) -> list[float]:
    """Whole budget and its halvings, rising, each at a row of the longest run."""
    known = [tracks[run.run_id].steps for run in cell.runs if run.status != "failed" and run.run_id in tracks]
    steps = max(known, key=lambda rows: int(rows[-1]), default=np.zeros(0, dtype=np.intp))
    later = steps[steps > 0]
    if not len(later):
        return []
    wanted = [float(later[-1]) / 2**k for k in range(HALVINGS + 1)]
    rows = {float(later[later <= want][-1]) for want in wanted if (later <= want).any()}
    return sorted(rows)


def budget_drift(cell: Cell, tracks: Mapping[str, Track], config: AnalysisConfig, draws: int = DRAWS) -> Drift | None:
    """Drift with the budget from earlier rows, for optimizers whose rate is constant; None if there are no rows.

    `draws`: how often the seeds are drawn, as of `stats.resamples`.
    """
    budgets = budgets_of(cell, tracks) if config.from_rows.get(cell.optimizer, False) else []
    if len(budgets) < 2:
        return None
    tables = [(cell.lrs, budget_costs(cell, tracks, config, budget)) for budget in budgets]
    return _drift(cell, "budget", dict(cell.axes), budgets, tables, draws, from_rows=True)


def along_axes(cells: Sequence[Cell], axes: Sequence[str]) -> list[tuple[str, list[Cell]]]:
    """Every axis with the cells along it, at each setting of the other axes."""
    out = []
    for axis in axes:
        key = {id(cell): (cell.optimizer, tuple((a, v) for a, v in cell.axes.items() if a != axis)) for cell in cells}
        groups: dict[object, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(key[id(cell)], []).append(cell)
        out += [(axis, group) for group in groups.values()]
    return out


def axis_drift(axis: str, cells: Sequence[Cell], draws: int = DRAWS) -> Drift | None:
    """Drift along an axis, of one entry of `along_axes`; None without at least two positive numbers."""
    numbers = [number(cell.axes[axis]) for cell in cells]
    ranked = sorted((value, i) for i, value in enumerate(numbers) if value > 0 and math.isfinite(value))
    if len(ranked) < 2 or len(ranked) < len(cells):
        return None
    seeds = [seed for seed in cells[0].seeds if all(seed in cell.seeds for cell in cells)]
    tables = [(cells[i].lrs, costs_of(cells[i], seeds)) for _, i in ranked]
    fixed = {name: value for name, value in cells[0].axes.items() if name != axis}
    return _drift(cells[0], axis, fixed, [value for value, _ in ranked], tables, draws, from_rows=False)


def number(text: str) -> float:
    """An axis value as a number; nan if it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return math.nan
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _drift(
    cell: Cell, against: str, fixed: dict[str, str], values: Sequence[float],
    tables: Sequence[tuple[Floats, Floats]], draws: int, *, from_rows: bool,
) -> Drift:  # fmt: skip
    """`tables` holds (rates, costs (R, S)) for each of `values`, with the same seeds throughout."""
    middles = [(lrs, medians(costs)) for lrs, costs in tables]
    x, bests = np.array(values), [float(best_lrs(lrs, m)) for lrs, m in middles]
    used = [inside(lrs, m) for lrs, m in middles]
    curve = [middle for middle, kept in zip(middles, used, strict=True) if kept]
    fine = len(curve) > 0 and all(bool(is_refined(lrs, m)) for lrs, m in curve)
    fitted = [refined(lrs, m) if fine else best_lrs(lrs, m) for lrs, m in curve]
    seen = np.array(bests)[used]
    stays = len(seen) >= LEAST_VALUES and bool((seen == seen[0]).all())
    value = float(slope(x[used], np.array(fitted))) if len(curve) >= LEAST_VALUES and not stays else math.nan
    steps = np.array([grid_step(lrs, best_rate(m)) for lrs, m in middles])
    seeds = tables[0][1].shape[1]
    spread = np.empty(0)
    if seeds > 1 and len(curve) >= LEAST_FOR_INTERVAL and not stays:
        drawn = [
            (lrs, resampled_medians(costs, draws)) for (lrs, costs), kept in zip(tables, used, strict=True) if kept
        ]
        spread = slope(x[used], _fitted(drawn, fine=fine))
    rates = iter(fitted)
    return Drift(
        optimizer=cell.optimizer,
        against=against,
        fixed=fixed,
        values=tuple(float(value) for value in values),
        best_lrs=tuple(bests),
        refined_lrs=tuple(float(next(rates)) if kept else math.nan for kept in used),
        refined=fine,
        slope=_widened(value, spread, seeds, leeway(x[used], steps[used] / 2))
        if len(spread)
        else replace(NO_SLOPE, value=value, n=seeds),
        from_rows=from_rows,
        stays=stays,
        grid_step=float(steps[used].max()) if stays else math.nan,
    )


def grid_step(lrs: Floats, best: int | None) -> float:
    """Decades from rate number `best` to the farther of its neighbors in the grid; nan without a neighbor."""
    if best is None or len(lrs) < 2:
        return math.nan
    gaps = np.diff(np.log10(lrs))
    return float(gaps[max(best - 1, 0) : best + 1].max())


def leeway(x: Floats, halves: Floats) -> float:
    """By how much a slope on log10 `x` (K,) may be off where each log10 rate may be off by its entry of `halves` (K,),
    decades: a best rate is known to half a grid step at best."""
    log = np.log10(x) - np.log10(x).mean()
    return float(np.abs(log) @ halves / (log @ log))


def _widened(value: float, spread: Floats, seeds: int, by: float) -> Interval:
    found = bootstrapped(value, spread, seeds)
    return replace(found, low=found.low - by, high=found.high + by)


def _fitted(drawn: Sequence[tuple[Floats, Floats]], *, fine: bool) -> Floats:
    """(B, K): the best rates of every draw at K values: all of a draw off parabolas where it has them all, else none.

    `fine` False keeps every draw to the grid, as the slope itself is.
    """
    grid = np.stack([best_lrs(lrs, m) for lrs, m in drawn], axis=1)
    if not fine:
        return grid
    between = [_parabola(lrs, m) for lrs, m in drawn]
    sound = np.logical_and.reduce([is_fine for _, is_fine in between])
    return np.where(sound[:, None], np.stack([rates for rates, _ in between], axis=1), grid)


def inside(lrs: Floats, m: Floats) -> bool:
    """True if the best rate of `m` (R,) lies between two other rates with a result: at an edge it is censored."""
    known = np.flatnonzero(~np.isnan(m))
    best = best_rate(m)
    return best is not None and bool(known[0] < best < known[-1])


def rate_ratios(cells: Sequence[Cell], drawn: Sequence[Floats], draws: int = DRAWS) -> list[RateRatio]:
    """Best rate of every optimizer over that of the first one, on the same axis values and seeds.

    `drawn` holds the best rate (B,) of every bootstrap draw of each cell's seeds.
    """
    groups: dict[tuple[str, ...], list[tuple[Cell, Floats]]] = {}
    for cell, bests in zip(cells, drawn, strict=True):
        groups.setdefault(tuple(cell.axes.values()), []).append((cell, bests))
    return [_ratio(first, other, draws) for first, *others in groups.values() for other in others]


def _ratio(first: tuple[Cell, Floats], other: tuple[Cell, Floats], draws: int) -> RateRatio:
    """The interval is that of the bootstrap, wider by half a grid step of either: without that it covered 25 % where
    the noise is small (5 and 10 seeds, optima off the grid, simulated), with it 99 % or more."""
    (below, bests_below), (above, bests_above) = first, other
    seeds = [seed for seed in below.seeds if seed in above.seeds]
    if below.seeds != above.seeds:  # draws of the seeds they share
        bests_below, bests_above = (
            best_lrs(cell.lrs, resampled_medians(costs_of(cell, seeds), draws)) for cell in (below, above)
        )
    middles = [(cell.lrs, medians(cell.cost)) for cell in (above, below)]
    top, bottom = (float(best_lrs(lrs, m)) for lrs, m in middles)
    found = bootstrapped(top / bottom, bests_above / bests_below, len(seeds))
    off = 10 ** (sum(grid_step(lrs, best_rate(m)) for lrs, m in middles) / 2)
    ratio = replace(found, low=found.low / off, high=found.high * off)
    return RateRatio(optimizer=above.optimizer, reference=below.optimizer, axes=dict(above.axes), ratio=ratio)


def costs_of(cell: Cell, seeds: Sequence[int]) -> Floats:
    """The columns (R, len(seeds)) of a cell's costs."""
    return cell.cost[:, [cell.seeds.index(seed) for seed in seeds]]
