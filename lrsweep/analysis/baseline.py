"""Adam at its default rate as the line to beat: the best of every other optimizer against it, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lrsweep.analysis.cells import AnalysisConfig, Cell
from lrsweep.analysis.facts import AgainstAdam, Interval, Standing
from lrsweep.analysis.good_range import best_rate
from lrsweep.analysis.margins import read_at
from lrsweep.analysis.stats import Floats, medians, paired, resamples
from lrsweep.objective import uncost


def adam_label(config: AnalysisConfig) -> str:
    """Label of the first `adam` of the spec, "" if there is none."""
    return next((label for label in config.labels if config.names[label] == "adam"), "")


def against_adam(cells: Sequence[Cell], drawn: Sequence[Floats], config: AnalysisConfig) -> tuple[AgainstAdam, ...]:
    """One entry per other optimizer and axis values; Adam off the grid is interpolated for every seed alone. `drawn`
    holds the medians (B, R) of every bootstrap draw of each cell's seeds."""
    label = adam_label(config)
    adams = {tuple(cell.axes.values()): cell for cell in cells if cell.optimizer == label}
    others = ((cell, draws) for cell, draws in zip(cells, drawn, strict=True) if cell.optimizer != label)
    pairs = [(adams.get(tuple(cell.axes.values())), cell, draws) for cell, draws in others]
    return tuple(_against(adam, cell, draws, config) for adam, cell, draws in pairs if adam is not None)


def _against(adam: Cell, other: Cell, drawn: Floats, config: AnalysisConfig) -> AgainstAdam:
    adam_lr = config.default_lrs[adam.optimizer]
    m = medians(other.cost)
    best = best_rate(m)
    seeds = [seed for seed in adam.seeds if seed in other.seeds]
    theirs = np.array([read_at(adam.lrs, adam.cost[:, adam.seeds.index(seed)], adam_lr)[0] for seed in seeds])
    ours = np.array([other.cost[best, other.seeds.index(seed)] if best is not None else math.nan for seed in seeds])
    gain = paired_gain(theirs, ours)
    gain = replace(gain, low=gain.low - optimism(other.cost, drawn))
    return AgainstAdam(
        optimizer=other.optimizer,
        axes=dict(other.axes),
        best_lr=float(other.lrs[best]) if best is not None else math.nan,
        best_objective=uncost(float(m[best]), config.mode) if best is not None else math.nan,
        adam_lr=adam_lr,
        adam_objective=uncost(read_at(adam.lrs, medians(adam.cost), adam_lr)[0], config.mode),
        gain=gain,
        verdict=verdict(gain),
    )


def optimism(cost: Floats, drawn: Floats) -> float:
    """How much too good the best of the rates looks because the same seeds chose it: over the bootstrap draws of
    seeds, by how much the rate that a draw chooses is better there than over all seeds, on average (Efron 1983).

    Where one rate is clearly the best this is about 0. Where many are as good, the interval of a gain covered 79 to
    94 % without it, with it 95 to 97 % (3 to 10 seeds, simulated).
    """
    known = np.isfinite(cost).all(axis=1)
    if not known.any() or not cost.shape[1]:
        return 0.0
    scale = math.ldexp(1.0, math.frexp(float(np.abs(cost[known]).max()))[1] - 1) or 1.0
    scaled = cost[known] / scale
    scaled = scaled - scaled.min()
    counts, weight = resamples(cost.shape[1], len(drawn))
    chosen = drawn[:, known].argmin(axis=1)
    there = np.take_along_axis(scaled @ counts / cost.shape[1], chosen[None], axis=0)[0]
    return scale * max(float((scaled.mean(axis=1)[chosen] - there) @ weight / weight.sum()), 0.0)


def paired_gain(before: Floats, after: Floats) -> Interval:
    """before - after over the seeds that have both, with a t interval; positive is an improvement.

    Where a seed diverged on one side only no mean exists: the difference of the medians is given, without an interval.
    """
    known = ~np.isnan(before) & ~np.isnan(after)
    before, after = before[known], after[known]
    if np.isfinite(before).all() and np.isfinite(after).all():
        return paired(before - after)
    low, high = float(medians(before)), float(medians(after))
    value = math.nan if low == high else low - high
    return Interval(value=value, low=math.nan, high=math.nan, n=len(before))


def verdict(gain: Interval) -> Standing:
    """`tied` if the interval holds 0; an infinite gain needs no interval; `unknown` without one."""
    if math.isinf(gain.value):
        return "better" if gain.value > 0 else "worse"
    if math.isnan(gain.low):
        return "unknown"
    if gain.low <= 0 <= gain.high:
        return "tied"
    return "better" if gain.low > 0 else "worse"
