"""Whether an optimizer trained at all: an improvement has to be more than rounding, noise, and a first small step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrsweep.analysis.cells import Cell, Track
from lrsweep.analysis.diagnosis import noise
from lrsweep.analysis.good_range import best_rate
from lrsweep.analysis.stats import Floats, medians

ROUNDINGS = 100
NOISES = 2.0
HALF_STEP = 0.5
SMALL_STEP = 0.01
"""Where the rates are too small and the untrained losses of the seeds are equal: less than this share of the untrained
cost is no training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Middle:
    """The medians of a cell: `m` (R,) over its seeds, `start` its l0, `best` the number of the best rate.

    `tolerance` is a difference of costs that says nothing: 100 eps |l0|, or twice the row-to-row noise of the
    evaluations at the best rate (see `_calmer`). `too_small`: the rates are, see `rates_too_small`. `trained`: the gain
    is above the tolerance and, where the rates are too small, above what tells one seed's untrained model from
    another's.
    """

    m: Floats
    start: float
    best: int | None
    tolerance: float
    too_small: bool
    trained: bool

    @property
    def least(self) -> float:
        return math.nan if self.best is None else float(self.m[self.best])

    @property
    def trained_best(self) -> int | None:
        """`best` where something trained, else None."""
        return self.best if self.trained else None


def middle_of(cell: Cell, tracks: Mapping[str, Track]) -> Middle:
    """The medians of a cell and what they are worth; without `tracks` the noise of the evaluations counts as 0."""
    m, l0 = medians(cell.cost), cell.start
    best = best_rate(m)
    rounding = ROUNDINGS * cell.eps * abs(l0)
    tolerance = max(rounding, NOISES * evaluation_noise(cell, best, tracks))
    if best is not None and not l0 - float(m[best]) > tolerance:
        tolerance = _calmer(cell, m, l0, rounding, tracks) or tolerance
    gain = l0 - float(m[best]) if best is not None else math.nan
    too_small = not cell.diverged.any() and rates_too_small(cell.lrs, m, l0, tolerance, rounding)
    least = max(tolerance, _between_starts(cell)) if too_small else tolerance
    return Middle(m=m, start=l0, best=best, tolerance=tolerance, too_small=too_small, trained=gain > least)


def _calmer(cell: Cell, m: Floats, l0: float, rounding: float, tracks: Mapping[str, Track]) -> float:
    """The tolerance at the rate whose gain exceeds its own noise by most; 0 where none does.

    The best rate can be one at which the evaluations jump by more than the whole gain; that others trained is then
    known all the same.
    """
    found = [(l0 - float(m[r]), max(rounding, NOISES * evaluation_noise(cell, r, tracks))) for r in range(len(m))]
    clear = [(gain / tolerance, tolerance) for gain, tolerance in found if gain > tolerance]
    return max(clear, default=(0.0, 0.0))[1]


def evaluation_noise(cell: Cell, rate: int | None, tracks: Mapping[str, Track]) -> float:
    """Row-to-row noise of the objective's metric after row 0: the median over the runs at one rate; 0 if unknown.

    Of two second differences in the middle the smaller one counts: a few evaluations of a loss that falls steeply and
    then levels off are no noise.
    """
    if rate is None:
        return 0.0
    runs = [cell.runs[at] for at in cell.points[rate] if at >= 0]
    rows = [tracks[run.run_id].values[1:] for run in runs if run.run_id in tracks]
    found = [noise(values, lower=True) for values in rows if np.isfinite(values).all()]
    return float(np.median(found)) if found else 0.0


def rates_too_small(lrs: Floats, m: Floats, l0: float, tolerance: float, rounding: float) -> bool:
    """True if the gain still grows with the rate at the top of the grid by at least half the step between the last two
    rates (a tenfold rate: by a factor of 5.5), or if no rate makes a difference of more than `rounding`.

    Differences above that and within `tolerance`, the noise of the evaluations, say nothing about the rates.
    """
    known = ~np.isnan(m)
    gains, rates = l0 - m[known], lrs[known]
    if not len(gains) or not np.isfinite(gains).all():
        return False
    if bool((np.abs(gains) <= rounding).all()):
        return True
    if len(gains) < 2 or not gains[-1] > max(gains[:-1].max(), tolerance):
        return False
    last, before = float(gains[-1]), float(gains[-2])
    return before >= -tolerance and last - before >= HALF_STEP * float(rates[-1] / rates[-2] - 1) * before


def _between_starts(cell: Cell) -> float:
    """How far the untrained models of the seeds lie apart; where they do not, a small share of their cost."""
    starts = cell.initial[np.isfinite(cell.initial)]
    spread = float(np.ptp(starts)) if len(starts) > 1 else 0.0
    return spread or SMALL_STEP * abs(cell.start)
