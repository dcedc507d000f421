"""What a training curve says: diverged or not, and a word for how it went.

Two rules over the `train_loss` rows y_0..y_n of a run (row 0 is the untrained model). Both are made of differences of
losses only, so that y and a*y + c (a > 0) get the same answer. `finite_divergence` looks at one run alone and decides
its status; `diagnose` compares a run with what its optimizer and seed reached at any rate.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

Label = Literal[
    "", "failed", "diverged", "worse_than_start", "oscillating", "too_slow", "improving", "stuck", "recovered_spike",
    "converged",
]  # fmt: skip

FEW_ROWS = 8
"""Below this many rows after row 0 there are no quarters to compare and no diagnosis."""

LONG_TAIL = 256
"""A slope is fitted to at most this many rows, evenly spread over the tail: its cost grows with their square."""

MEANINGS: dict[str, str] = {
    "failed": "an exception ended the run",
    "diverged": "non-finite loss or weights, or a loss that ends above its start and keeps rising",
    "worse_than_start": "training error went up and stayed",
    "oscillating": "goes up as often as down, or drifts up",
    "too_slow": "little or no change, still crawling",
    "improving": "not finished: more epochs would help",
    "stuck": "stopped high",
    "recovered_spike": "blew up, came back, arrived",
    "converged": "arrived and flat",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One run of a group: its rate, seed, status and `train_loss` rows, row 0 first."""

    lr: float
    seed: int
    status: str
    train_loss: Sequence[float]


def finite_divergence(steps: Sequence[int], train_loss: Sequence[float]) -> int | None:
    """Step at which a run that stayed finite counts as diverged, or None.

    `steps` and `train_loss` are the rows of one run, row 0 first; n is the number of rows after it.

    - n >= 8: every row of the last quarter lies above y_0, the medians of quarters 2, 3, 4 rise, and the rise from
      quarter 2 to 4 is more than 4 times the noise of the second half.
    - 3 <= n < 8: the last three rows lie above y_0 and strictly rise.

    The step is that of the first row from which y stays above y_0. A series that holds a non-finite value gives the
    step of the first one.
    """
    y = np.asarray(train_loss, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(y))
    if len(bad):
        return int(steps[int(bad[0])])
    n = len(y) - 1
    if n < 3:
        return None
    y = _shrunk(y)
    if not (_rises(y) if n >= FEW_ROWS else _rises_briefly(y)):
        return None
    below = np.flatnonzero(y <= y[0])
    return int(steps[int(below[-1]) + 1])


def noise(values: Floats) -> float:
    """Standard deviation of the row-to-row noise: robust, blind to any straight trend; 0 for fewer than 3 values."""
    if len(values) < 3:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.diff(values, n=2))) / math.sqrt(6))


def _shrunk(y: Floats) -> Floats:
    """The same shape at a size where no difference overflows (an exact power of two, and only where it is needed)."""
    return y * 2.0**-8 if len(y) and np.abs(y).max() > 1e300 else y


def _quarters(y: Floats) -> list[Floats]:
    n = len(y) - 1
    cuts = [1 + k * n // 4 for k in range(5)]
    return [y[a:b] for a, b in itertools.pairwise(cuts)]


def _rises(y: Floats) -> bool:
    quarters = _quarters(y)
    _, q2, q3, q4 = (float(np.median(quarter)) for quarter in quarters)
    second_half = np.concatenate(quarters[2:])
    return bool((quarters[3] > y[0]).all() and q2 < q3 < q4 and q4 - q2 > 4 * noise(second_half))


def _rises_briefly(y: Floats) -> bool:
    last = y[-3:]
    return bool((last > y[0]).all() and (np.diff(last) > 0).all())


def diagnose(curves: Sequence[Curve]) -> list[Label]:
    """A label per run, in the order given. `curves` are all runs of one optimizer at one set of axis values.

    level(y) = median of the last ceil(n/10) rows; R_s = y_0 - least level that seed s reached at any rate;
    R = the smaller of R_s and its median over seeds; best rate = the one with the least median level. See `label_of`.
    Runs with fewer than 8 rows after row 0 get "", unless they failed or diverged.
    """
    series = [np.asarray(curve.train_loss, dtype=np.float64) for curve in curves]
    sound = [curve.status == "ok" and _is_sound(y) for curve, y in zip(curves, series, strict=True)]
    levels = [level(y) if good else math.inf for y, good in zip(series, sound, strict=True)]
    least: dict[int, float] = {}
    start: dict[int, float] = {}
    for curve, y, good, value in zip(curves, series, sound, levels, strict=True):
        if good:
            least[curve.seed] = min(least.get(curve.seed, math.inf), value)
            start.setdefault(curve.seed, float(y[0]))
    reach = {seed: start[seed] - least[seed] for seed in least}
    typical = float(np.median(list(reach.values()))) if reach else math.nan
    best = _best_rate(curves, levels)
    labels: list[Label] = []
    for curve, y, good in zip(curves, series, sound, strict=True):
        if good:
            labels.append(label_of(y, reach=reach[curve.seed], typical_reach=typical, above_best=curve.lr > best))
        elif curve.status == "ok":
            labels.append("diverged" if len(y) and not np.isfinite(y).all() else "")
        else:
            labels.append("failed" if curve.status == "failed" else "diverged")
    return labels


def label_of(train_loss: Sequence[float] | Floats, *, reach: float, typical_reach: float, above_best: bool) -> Label:
    """The label of a run with status ok and finite rows; the first rule that matches wins.

    `reach` is R_s, `typical_reach` its median over seeds, R the smaller of the two. p = (y_0 - level) / R_s. Over the
    tail (last max(6, ceil(n/3)) rows): g = further fall that another equal budget would bring, from the Theil-Sen
    slope, / R; s = noise / R; r = share of rises. rise = largest climb above the running minimum, / R.
    """
    y = np.asarray(train_loss, dtype=np.float64)
    n = len(y) - 1
    if n < FEW_ROWS:
        return ""
    with np.errstate(over="ignore", invalid="ignore"):
        scale = min(reach, typical_reach)
        drop = float(y[0]) - level(y)
        if not scale > 8 * np.spacing(abs(float(y[0]))):  # no gain beyond rounding
            return "worse_than_start" if drop < 0 else "stuck"
        tail = y[-max(6, -(-n // 3)) :]
        p = drop / reach
        g = -_slope(tail) * n / scale
        if drop / scale < -0.05:
            return "worse_than_start"
        if (noise(tail) / scale > 0.015 and float((np.diff(tail) > 0).mean()) >= 0.3) or g < -0.1:
            return "oscillating"
        if p < 0.5:
            return _unfinished(p, g, above_best)
        if float((y - np.minimum.accumulate(y)).max()) / scale > 0.5:
            return "recovered_spike"
        if g >= 0.05:
            return "improving"
        return "converged" if p >= 0.9 else "stuck"


def _unfinished(p: float, g: float, above_best: bool) -> Label:
    """Less than half of the way: too small a rate below the best one, another matter above it."""
    if not above_best:
        return "too_slow" if p < 0.05 or g >= 0.1 * p else "stuck"
    return "improving" if p >= 0.05 and g >= 0.1 * p else "stuck"


def level(y: Floats) -> float:
    """Where a series ended: the median of its last ceil(n/10) rows."""
    return float(np.median(y[-max(1, -(-(len(y) - 1) // 10)) :]))


def _is_sound(y: Floats) -> bool:
    return len(y) > 1 and bool(np.isfinite(y).all())


def _best_rate(curves: Sequence[Curve], levels: Sequence[float]) -> float:
    """The smallest rate with the least median level over seeds; +inf if no run is sound."""
    by_rate: dict[float, list[float]] = {}
    for curve, value in zip(curves, levels, strict=True):
        if curve.status != "failed":
            by_rate.setdefault(curve.lr, []).append(value)
    medians = {lr: float(np.median(values)) for lr, values in by_rate.items()}
    finite = [lr for lr, value in medians.items() if math.isfinite(value)]
    return min(finite, key=lambda lr: (medians[lr], lr), default=math.inf)


def _slope(tail: Floats) -> float:
    """Theil-Sen: the median slope over all pairs of rows, per row (Sen 1968)."""
    at = np.arange(len(tail))
    if len(tail) > LONG_TAIL:
        at = np.linspace(0, len(tail) - 1, LONG_TAIL).round().astype(int)
    first, second = _pairs(len(at))
    return float(np.median((tail[at[second]] - tail[at[first]]) / (at[second] - at[first])))


@functools.cache
def _pairs(count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    first, second = np.triu_indices(count, k=1)
    return first, second
