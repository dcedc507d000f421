"""The rules of the one-ramp learning-rate finder: what they suggest, and what that costs on the sweep's U-curve.

A ramp is one run whose learning rate grows at every step. The usual rules for reading it disagree, often by decades;
none is recommended here. They are facts to compare with a sweep.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lrsweep.analysis.diagnosis import noise
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.errors import UsageError

Floats: TypeAlias = npt.NDArray[np.float64]

SMOOTHING = 0.9  # weight of the past in the running mean
STOP_FROM = 10  # steps before the ramp may stop on a rising loss
SLIDE_WIDTH, SLIDE_THRESHOLD = 15, 0.005
RULES = ("steepest", "minimum_over_10", "valley", "slide", "per_unit")


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """What a ramp measured: the learning rate of each step and the loss of its batch before the step, raw.

    `stopped` says why it ended before its last learning rate; None if it did not. A non-finite last loss is kept.
    """

    lrs: Floats
    losses: Floats
    stopped: str | None


@dataclass(frozen=True, kw_only=True)
class AxisValue:
    """The value of an axis that the ramps were made at, and those that the spec lists, as texts of the tables."""

    axis: str
    value: str
    listed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RampResult:
    """The ramp of one optimizer, as the rules read it; `row` holds the sweep's facts of it, where there are any."""

    label: str
    ramp: Ramp = field(repr=False)
    row: OptimizerFacts | None = field(repr=False)

    @cached_property
    def smooth(self) -> Floats:
        return smoothed(self.ramp.losses)

    @cached_property
    def suggested(self) -> dict[str, float]:
        """The learning rate that each rule suggests; see `suggestions`."""
        return suggestions(self.ramp.lrs, self.smooth)

    @cached_property
    def unmoved(self) -> frozenset[str]:
        """The rules that point to where the loss has not fallen yet: warnings, as `per_unit` always is."""
        level = noise_of(self.ramp.losses)
        finite = {rule: lr for rule, lr in self.suggested.items() if math.isfinite(lr)}
        return frozenset(rule for rule, lr in finite.items() if not has_fallen(self.ramp.lrs, self.smooth, level, lr))

    @property
    def spread(self) -> float:
        return decades_spanned(self.suggested)

    @property
    def best_lr(self) -> float:
        """The best learning rate of the sweep; nan where there is none."""
        return math.nan if self.row is None else self.row.best_lr.value

    def regret(self, rule: str) -> float:
        """Cost of a rule's suggestion on the U-curve; nan where there is none."""
        return math.nan if self.row is None else regret(self.row, self.suggested[rule])


@dataclass(frozen=True, kw_only=True)
class RangeTest:
    """A ramp per optimizer of a spec; `facts` are those of its sweep, None where there is none to compare with.

    >>> found = lrsweep.lr_finder("sweep.yaml", low=1e-5, high=10, steps=50)
    >>> [ramp.label for ramp in found.results]
    ['sgd', 'adam']
    >>> [path.name for path in found.files]
    ['range_test.png', 'range_test.csv']
    """

    name: str
    low: float
    high: float
    steps: int
    seed: int
    axes: tuple[AxisValue, ...]
    results: tuple[RampResult, ...]
    facts: SweepFacts | None = field(repr=False)
    files: tuple[Path, ...]


def ramp_lrs(low: float, high: float, steps: int) -> Floats:
    """`steps` learning rates from `low` to `high`, evenly spaced in their logarithm.

    Raises UsageError for what cannot be a ramp.
    """
    if not (0 < low < high < math.inf):
        raise UsageError(
            f"range test: the learning rates must satisfy 0 < low < high, not low {low!r} and high {high!r}"
        )
    if steps < 2:
        raise UsageError(f"range test: a ramp needs at least 2 steps, not {steps}")
    return np.logspace(math.log10(low), math.log10(high), steps)


def smoothed(losses: Sequence[float] | Floats) -> Floats:
    """Running mean with exponential weights, corrected for its start; nan from the first nan on."""
    total = itertools.accumulate(
        losses, lambda mean, loss: SMOOTHING * mean + (1 - SMOOTHING) * float(loss), initial=0.0
    )
    weight = itertools.accumulate(losses, lambda mean, _: SMOOTHING * mean + (1 - SMOOTHING), initial=0.0)
    return np.array(list(total)[1:], dtype=np.float64) / np.array(list(weight)[1:], dtype=np.float64)


def must_stop(losses: Sequence[float]) -> str | None:
    """Why a ramp with these losses so far ends, or None: the last one is not finite, or the loss has risen far.

    Far is, from step 10 on: the running mean lies above its first value by more than 3 max(how far it had fallen,
    4 noise). Differences only, so any sign of loss will do.
    """
    if not math.isfinite(losses[-1]):
        return f"stopped at step {len(losses)}: the loss is {losses[-1]!r}"
    if len(losses) <= STOP_FROM:
        return None
    mean = smoothed(losses)
    if mean[-1] > mean[0] + 3 * max(mean[0] - mean.min(), 4 * noise_of(losses)):
        return f"stopped at step {len(losses)}: loss far above its initial value"
    return None


def noise_of(losses: Sequence[float] | Floats) -> float:
    """Step-to-step noise of the finite losses of a ramp; 0 where there are too few."""
    raw = np.asarray(losses, dtype=np.float64)
    return noise(raw[np.isfinite(raw)])


def has_fallen(lrs: Floats, smooth: Floats, noise: float, lr: float) -> bool:
    """Whether the loss had fallen when the ramp came to `lr`.

    That is, the smoothed one has been below its start by more than 5 % of the most that it ever was and 3 noise.
    """
    fallen = smooth[0] - smooth
    upto = fallen[lrs <= lr * (1 + 1e-9)]
    if not np.isfinite(smooth[0]) or not len(upto):
        return False
    return bool(np.nanmax(upto) > max(0.05 * float(np.nanmax(fallen)), 3 * noise))


def suggestions(lrs: Sequence[float] | Floats, losses: Sequence[float] | Floats) -> dict[str, float]:
    """The learning rate that each of `RULES` reads off a ramp; nan where there are too few finite losses for it.

    `lrs` must rise; smooth the losses first if they are noisy (`smoothed`). They count up to the first that is not
    finite. Adding a constant to all of them changes nothing.

    - `steepest`: steepest descent of the loss per decade, by central differences (fastai's `steep` has forward ones).
    - `minimum_over_10`: a tenth of the learning rate of the lowest loss (fastai's `minimum`).
    - `valley`: a point in the longest strictly decreasing subsequence, of length M and ending at index e (the first one
      found): index e - M + floor(M / 3) + floor(M / 6), at least 0 (fastai). It depends on where the ramp starts.
    - `slide`: two points 15 apart move left from the end while the loss's slopes per step at them differ by more than
      0.005; the left one at the last place where they did (fastai). The threshold is in units of the loss.
    - `per_unit`: steepest descent per unit of the learning rate, as in Lightning. A warning: it runs to the low edge.
    """
    x, y = np.asarray(lrs, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(y))
    end = int(bad[0]) if len(bad) else len(y)
    x, y = x[:end], y[:end]
    if end < 2:
        return dict.fromkeys(RULES, math.nan)
    return {
        "steepest": float(x[np.argmin(np.gradient(y, np.log10(x)))]),
        "minimum_over_10": float(x[np.argmin(y)]) / 10,
        "valley": _valley(x, y),
        "slide": _slide(x, y),
        "per_unit": float(x[np.argmin(np.gradient(y, x))]),
    }


def _valley(x: Floats, y: Floats) -> float:
    length = np.ones(len(y), dtype=np.int64)
    for i in range(1, len(y)):
        longer = length[:i][y[i] < y[:i]]
        length[i] = 1 + (longer.max() if len(longer) else 0)
    end = int(np.argmax(length))
    most = int(length[end])
    return float(x[max(0, end - most + most // 3 + most // 6)])


def _slide(x: Floats, y: Floats) -> float:
    if len(y) <= SLIDE_WIDTH:
        return math.nan
    slope = np.gradient(y)
    left = chosen = len(y) - 1 - SLIDE_WIDTH
    while left >= 0 and abs(slope[left + SLIDE_WIDTH] - slope[left]) > SLIDE_THRESHOLD:
        chosen = left
        left -= 1
    return float(x[chosen])


def decades_spanned(suggested: Mapping[str, float]) -> float:
    """Decades between the lowest and the highest suggestion, `per_unit` aside; nan if there is none."""
    lrs = [lr for rule, lr in suggested.items() if rule != "per_unit" and math.isfinite(lr)]
    return math.log10(max(lrs) / min(lrs)) if lrs else math.nan


def regret(row: OptimizerFacts, lr: float) -> float:
    """Cost on the U-curve at `lr`, interpolated linearly in log lr, less the best: inf beside a diverged neighbour,
    nan outside the grid or where nothing trained."""
    lrs = np.array([point.lr for point in row.rates])
    inside = math.isfinite(lr) and row.trained and lrs[0] * (1 - 1e-9) <= lr <= lrs[-1] * (1 + 1e-9)
    if not inside:
        return math.nan
    sign = -1.0 if row.best_objective > row.initial_objective else 1.0
    costs = np.array([sign * point.objective for point in row.rates])
    value = float(np.interp(math.log10(lr), np.log10(lrs), costs))
    return value - sign * row.best_objective if math.isfinite(value) else math.inf
