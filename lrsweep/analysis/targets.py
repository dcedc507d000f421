"""Time to a target against the learning rate, and how much luck the choice of the rate needs.

Idea of the robust range: Asi and Duchi, PNAS 2019; of the profile: AlgoPerf (Dolan and More 2002).
Expected best of k tries: Dodge et al. 2019, "Show Your Work".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lrsweep.analysis.cells import Cell, Track
from lrsweep.analysis.facts import Targets
from lrsweep.analysis.sensitivity import weights
from lrsweep.analysis.stats import Floats, medians
from lrsweep.objective import Mode, uncost

SHARE = 0.9
"""The default target: this share of the way from the untrained model to the best median of the sweep."""
MOST_TRIES = 20


def target_of(starts: Sequence[float], least: Sequence[float]) -> float:
    """l0 - 0.9 (l0 - least l* of the sweep) as a cost; l0 is the median over optimizers. nan if nothing trained."""
    known = [start for start in starts if math.isfinite(start)]
    reached = [value for value in least if math.isfinite(value)]
    if not known or not reached:
        return math.nan
    l0, best = float(np.median(known)), min(reached)
    return l0 - SHARE * (l0 - best) if best < l0 else math.nan


def time_to(track: Track, target: float, mode: Mode) -> float:
    """Updates at the first row whose cost is at most `target` (rows only, no interpolation); +inf if never."""
    costs = track.values if mode == "min" else -track.values
    there = np.flatnonzero(np.isfinite(costs) & (costs <= target))
    return float(track.steps[there[0]]) if len(there) else math.inf


def times(cell: Cell, tracks: Mapping[str, Track], target: float, mode: Mode) -> Floats:
    """(R, S): time to target; +inf for a run that diverged or never arrived, nan without a run or without its rows."""
    out = np.full(cell.cost.shape, np.nan)
    if math.isnan(target):
        return out
    for at in zip(*np.nonzero(cell.points >= 0), strict=True):
        track = tracks.get(cell.runs[cell.points[at]].run_id)
        if track is not None:
            out[at] = math.inf if cell.diverged[at] else time_to(track, target, mode)
    return out


def target_facts(lrs: Floats, time: Floats, target: float, mode: Mode) -> Targets:
    """`time` (R, S) as of `times`. The profile counts the share of the grid's rates that have rows at all."""
    typical = medians(time)
    finite = np.isfinite(typical)
    objective = uncost(target, mode)
    if not finite.any():
        return Targets(
            target=objective, least_time=math.nan if np.isnan(typical).all() else math.inf, fastest_lr=math.nan,
            finite=(), within_2x=(), profile=(),
        )  # fmt: skip
    least = float(typical[finite].min())
    return Targets(
        target=objective,
        least_time=least,
        fastest_lr=float(lrs[finite & (typical == least)][0]),
        finite=tuple(lrs[finite].tolist()),
        within_2x=tuple(lrs[finite & (typical <= 2 * least)].tolist()),
        profile=profile(typical),
    )


def arrived(time: Floats) -> Floats:
    """(R,): share of the seeds that reached the target; nan where there are no rows."""
    known = (~np.isnan(time)).sum(axis=1)
    return np.where(known > 0, np.isfinite(time).sum(axis=1) / np.maximum(known, 1), np.nan)


def profile(typical: Floats) -> tuple[tuple[float, float], ...]:
    """Performance profile rho(tau): share of the rates with time <= tau times the least one, at each tau it changes."""
    known = typical[~np.isnan(typical)]
    least = known.min() if len(known) else math.inf
    if not math.isfinite(least):
        return ()
    if least > 0:
        ratios = np.sort(known[np.isfinite(known)] / least)
    else:  # the target was met before the first update: nothing later is within any multiple of zero
        ratios = np.ones(int((known == 0).sum()))
    taus, counts = np.unique(ratios, return_counts=True)
    shares = np.cumsum(counts) / len(known)
    return tuple((float(tau), float(share)) for tau, share in zip(taus, shares, strict=True))


def expected_best(values: Floats, tries: int, weight: Floats) -> float:
    """E[least of `tries` draws with replacement]: sum of v_i ((1 - F(v_i-))^k - (1 - F(v_i))^k).

    A draw takes value i of `values` (R,), which hold no nan, with a probability in proportion to `weight` (R,): that of
    a rate drawn log-uniformly.
    """
    if not len(values):
        return math.nan
    order = np.argsort(values, kind="stable")
    upto = np.append(0.0, np.cumsum(weight[order]))
    left = upto / upto[-1]
    weights = (1 - left[:-1]) ** tries - (1 - left[1:]) ** tries
    return float(values[order] @ weights)


def expected_bests(lrs: Floats, m: Floats, l0: float, mode: Mode) -> tuple[float, ...]:
    """Objective expected of the best of k = 1, 2, ... rates drawn from the grid, median costs clamped at l0."""
    if math.isnan(l0):
        return ()
    known = ~np.isnan(m)
    clamped, weight = np.minimum(m[known], l0), weights(lrs[known])
    return tuple(uncost(expected_best(clamped, k, weight), mode) for k in range(1, min(len(clamped), MOST_TRIES) + 1))
