"""How far the best rate is from where training fails, and what the optimizer's default rate costs."""

from __future__ import annotations

import math

import numpy as np

from lrsweep.analysis.facts import AtDefault, Margins
from lrsweep.analysis.stats import Bools, Floats, Ints
from lrsweep.objective import Mode, uncost

SAME = 1e-6
"""Two rates that differ by less, relatively, are the same rate (grids are rounded to 6 digits)."""


def margins(
    lrs: Floats, m: Floats, counts: tuple[Ints, Ints], best: int | None, unusable: int | None = None,
    clean: Bools | None = None,
) -> Margins:  # fmt: skip
    """`counts` are the numbers of diverged and of not failed seeds per rate, `unusable` the number of the first rate
    above the best that loses half of the gain, `clean` (R,) as of `good_range.usable`; None where nothing trained."""
    nan = math.nan
    if best is None:
        return Margins(
            unusable_from=nan, diverges_from=nan, margin=nan, censored=False, largest_safe_lr=nan, bengio_factor=nan
        )
    diverged, alive = counts
    tried, number = alive > 0, np.arange(len(lrs))
    beyond = np.flatnonzero(tried & (2 * diverged >= alive) & (number > best))
    cliff = int(beyond[0]) if len(beyond) else len(lrs)
    stable = lrs[tried & (number < cliff)]
    known = clean is not None
    end = min(cliff, len(lrs) if unusable is None else unusable)
    safe = lrs[clean & (number < end)] if clean is not None else lrs[:0]
    best_lr, top = float(lrs[best]), float(lrs[np.flatnonzero(tried)[-1]] if unusable is None else lrs[unusable])
    return Margins(
        unusable_from=nan if unusable is None else float(lrs[unusable]),
        diverges_from=float(lrs[cliff]) if len(beyond) else nan,
        margin=math.log10(top / best_lr) if known else nan,
        censored=known and unusable is None,
        largest_safe_lr=float(safe[-1]) if len(safe) else nan,
        bengio_factor=float(stable[-1]) / best_lr,
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
