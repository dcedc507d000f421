"""The diagnosis of a training curve: a label for how a run went, compared with the other runs of its optimizer.

The rules read the `train_loss` rows y_0..y_n of a run (row 0 is the untrained model) and are made of differences of
losses only, so that y and a*y + c (a > 0) get the same label. Whether a run has diverged is decided while it trains
(training/divergence.py).
"""

from __future__ import annotations

import functools
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

ROUNDING = 100.0
"""Changes of the loss of up to so many rounding errors of its start are none, as in `trained`."""

FEW_ROWS = 8
"""Below this many rows after row 0 there are no quarters to compare and no diagnosis."""

LONG_TAIL = 256
"""A slope is fitted to at most this many rows, evenly spread over the tail: its cost grows with their square."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One run of a group: its rate, seed, status and `train_loss` rows, row 0 first."""

    lr: float
    seed: int
    status: str
    train_loss: Sequence[float]


def noise(values: Floats, *, lower: bool = False) -> float:
    """Standard deviation of the row-to-row noise: robust, blind to any straight trend; 0 for fewer than 3 values.

    It is read off the median of the second differences. `lower`: of two in the middle the lower one is taken, not their
    mean, so that in a handful of values the last one alone does not make the noise.
    """
    if len(values) < 3:
        return 0.0
    unit = 16.0 if float(np.max(np.abs(values))) > 1e307 else 1.0  # second differences of such values would overflow
    sizes = np.abs(np.diff(np.asarray(values) / unit, n=2))
    middle = float(np.quantile(sizes, 0.5, method="lower" if lower else "linear"))
    return 1.4826 * middle / math.sqrt(6) * unit


def diagnose(curves: Sequence[Curve], *, eps: float = 0.0) -> list[Label]:
    """A label per run, in the order given. `curves` are all runs of one optimizer at one set of axis values; `eps` is
    the rounding of their losses.

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
            labels.append(
                label_of(y, reach=reach[curve.seed], typical_reach=typical, above_best=curve.lr > best, eps=eps)
            )
        elif curve.status == "ok":
            labels.append("diverged" if len(y) and not np.isfinite(y).all() else "")
        else:
            labels.append("failed" if curve.status == "failed" else "diverged")
    return labels


def label_of(
    train_loss: Sequence[float] | Floats, *, reach: float, typical_reach: float, above_best: bool, eps: float = 0.0
) -> Label:
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
        rounding = ROUNDING * eps * abs(float(y[0]))
        if not scale > max(8 * np.spacing(abs(float(y[0]))), rounding):  # no gain beyond rounding
            return "worse_than_start" if drop < -rounding else "stuck"
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
    last = max(1, -(-(len(y) - 1) // 10))
    return float(y[-1]) if last == 1 else float(np.median(y[-last:]))


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
