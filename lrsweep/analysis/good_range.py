"""The good range: the rates around the best one that are about as good, and the rate to recommend."""

from __future__ import annotations

import math

import numpy as np

from lrsweep.analysis.facts import GoodRange, RecommendedBy
from lrsweep.analysis.stats import Bools, Floats
from lrsweep.objective import Mode, uncost

SHARE = 0.05
"""A fixed share of the gain, not seed noise: with a noise-based band, noisier runs would look more robust."""


def best_rate(m: Floats) -> int | None:
    """Number of the smallest rate with the least finite median cost; None if there is none."""
    finite = np.flatnonzero(np.isfinite(m))
    return int(finite[np.argmin(m[finite])]) if len(finite) else None


def good_range(lrs: Floats, m: Floats, l0: float, mode: Mode = "min", share: float = SHARE) -> GoodRange:
    """Walk from the best rate to each side while m <= theta = l* + share (l0 - l*).

    Between the last rate inside and the first one outside the edge is interpolated linearly in log lr; against a
    diverged rate the edge is the last rate inside; where the grid ends that side is censored. nan if nothing trained.
    """
    kept = np.flatnonzero(~np.isnan(m))
    best = best_rate(m[kept])
    if best is None or not m[kept][best] < l0:
        return GoodRange(
            share=share, threshold=math.nan, low=math.nan, high=math.nan, decades=math.nan,
            censored_low=False, censored_high=False, cliff_low=False, cliff_high=False, rates=(),
        )  # fmt: skip
    rates, costs = lrs[kept], m[kept]
    least = float(costs[best])
    theta = least + (l0 - least) / round(1 / share)  # a division is exact where the result is a float: no unit decides
    low, first = _edge(rates[best::-1], costs[best::-1], theta)
    high, last = _edge(rates[best:], costs[best:], theta)
    below, above = costs[: best - first], costs[best + last + 1 :]
    return GoodRange(
        share=share,
        threshold=uncost(theta, mode),
        low=low,
        high=high,
        decades=math.log10(high / low),
        censored_low=not len(below),
        censored_high=not len(above),
        cliff_low=len(below) > 0 and math.isinf(below[-1]),
        cliff_high=len(above) > 0 and math.isinf(above[0]),
        rates=tuple(float(rate) for rate in rates[best - first : best + last + 1]),
    )


def _edge(rates: Floats, costs: Floats, theta: float) -> tuple[float, int]:
    """Where a walk from the best rate (entry 0) outwards leaves the good range, and how many rates it passed inside."""
    outside = np.flatnonzero(~(costs <= theta))
    if not len(outside):
        return float(rates[-1]), len(rates) - 1
    j = int(outside[0])
    i = j - 1
    if not math.isfinite(costs[j]):
        return float(rates[i]), i
    share = (theta - float(costs[i])) / (float(costs[j]) - float(costs[i]))
    log = np.log10(rates)
    return float(10 ** (log[i] + share * (log[j] - log[i]))), i


def recommended(found: GoodRange, lrs: Floats, clean: Bools, best_lr: float) -> tuple[float, RecommendedBy]:
    """A robust rate and why. `clean` (R,) marks the rates where no seed diverged."""
    if not found.rates:
        return math.nan, "nothing"
    if found.censored:
        return best_lr, "edge"
    inside = [rate for rate, good in zip(lrs.tolist(), clean, strict=True) if good and rate in found.rates]
    if not inside:
        return best_lr, "no_clean_rate"
    centre = (math.log10(found.low) + math.log10(found.high)) / 2
    return min(inside, key=lambda rate: (round(abs(math.log10(rate) - centre), 9), rate)), "centre"
