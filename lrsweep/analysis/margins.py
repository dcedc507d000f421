"""How far the best rate is from divergence, and what the optimizer's default rate costs."""

from __future__ import annotations

import math

import numpy as np

from lrsweep.analysis.facts import AtDefault, Margins
from lrsweep.analysis.stats import Floats
from lrsweep.objective import Mode, uncost

SAME = 1e-6
"""Two rates that differ by less, relatively, are the same rate (grids are rounded to 6 digits)."""


def margins(lrs: Floats, m: Floats, counts: tuple[Floats, Floats], l0: float, best: int | None) -> Margins:
    """`counts` are the numbers of diverged and of not failed seeds per rate."""
    nan = math.nan
    if best is None:
        return Margins(diverges_from=nan, margin=nan, censored=False, largest_safe_lr=nan, bengio_factor=nan)
    diverged, alive = counts
    tried = alive > 0
    half = tried & (2 * diverged >= alive)
    beyond = np.flatnonzero(half & (np.arange(len(lrs)) > best))
    top = int(beyond[0]) if len(beyond) else len(lrs)
    below = np.flatnonzero(tried & (np.arange(len(lrs)) < top))
    safe = [i for i in below if diverged[i] == 0 and m[i] < l0]
    best_lr, last = float(lrs[best]), float(lrs[below[-1]])
    return Margins(
        diverges_from=float(lrs[top]) if len(beyond) else nan,
        margin=math.log10(float(lrs[top]) / best_lr) if len(beyond) else math.log10(last / best_lr),
        censored=not len(beyond),
        largest_safe_lr=float(lrs[safe[-1]]) if safe else nan,
        bengio_factor=last / best_lr,
    )


def at_default(lrs: Floats, m: Floats, default_lr: float, best: int | None, mode: Mode) -> AtDefault:
    """The median cost at the default rate and its regret m(default) - l*."""
    value, interpolated = read_at(lrs, m, default_lr)
    regret = math.nan if best is None else value - float(m[best])
    return AtDefault(
        lr=default_lr, objective=uncost(value, mode), regret=max(regret, 0.0) if not math.isnan(regret) else math.nan,
        interpolated=interpolated,
    )  # fmt: skip


def read_at(lrs: Floats, values: Floats, rate: float) -> tuple[float, bool]:
    """The value at `rate`, and whether it had to be interpolated (linearly in log lr, between finite neighbours).

    Between two diverged neighbours it is +inf; nan outside the grid and between a finite and a diverged one.
    """
    kept = ~np.isnan(values)
    rates, known = lrs[kept], values[kept]
    if not rate > 0 or not math.isfinite(rate) or not len(rates):
        return math.nan, False
    same = np.flatnonzero(np.abs(rates - rate) <= SAME * rate)
    if len(same):
        return float(known[same[0]]), False
    right = int(np.searchsorted(rates, rate))
    if right in (0, len(rates)):
        return math.nan, False
    low, high = float(known[right - 1]), float(known[right])
    if low == high:
        return low, True
    if not math.isfinite(low) or not math.isfinite(high):
        return math.nan, True
    share = math.log(rate / float(rates[right - 1])) / math.log(float(rates[right]) / float(rates[right - 1]))
    return low + share * (high - low), True
