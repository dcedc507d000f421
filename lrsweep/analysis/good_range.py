"""The good range: the rates around the best one that are about as good, and the rate to recommend."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from lrsweep.analysis.facts import GoodRange, RecommendedBy
from lrsweep.analysis.stats import Bools, Floats, Ints, distinct
from lrsweep.objective import Mode, uncost

T = TypeVar("T", float, Floats)

SHARE = 0.05
"""A fixed share of the gain, not seed noise: with a noise-based band, noisier runs would look more robust."""
STRICT = 0.01
"""The share of a second column, beside it."""
HALF = 0.5
"""A rate, or a seed at a rate, that loses this share of the gain is not usable."""
APART = 2.0
"""A recommended rate keeps this factor below the first unusable one where the good range allows it."""
NO_RANGE = GoodRange(
    share=SHARE, threshold=math.nan, low=math.nan, high=math.nan, decades=math.nan,
    censored_low=False, censored_high=False, cliff_low=False, cliff_high=False, rates=(),
)  # fmt: skip


def best_rate(m: Floats) -> int | None:
    """Number of the smallest rate with the least finite median cost; None if there is none."""
    finite = np.flatnonzero(np.isfinite(m))
    return int(finite[np.argmin(m[finite])]) if len(finite) else None


def good_range(
    lrs: Floats, m: Floats, l0: float, mode: Mode = "min", share: float = SHARE, *, clean: Bools | None = None
) -> GoodRange:
    """Walk from the best rate to each side while m <= theta = l* + share (l0 - l*), past one outlier (see `_walk`).

    Between the last rate inside and the first one outside the edge is interpolated linearly in log lr; against a
    diverged rate the edge is the last rate inside; where the grid ends that side is censored. nan if nothing trained.
    `clean` (R,) marks the rates at which no seed diverged; by default those with a finite m.
    """
    kept = np.flatnonzero(~np.isnan(m))
    best = best_rate(m[kept])
    if best is None or not m[kept][best] < l0:
        return NO_RANGE
    rates, costs = lrs[kept], m[kept]
    sound = np.isfinite(costs) if clean is None else clean[kept]
    (below, low), (above, high) = (
        _edge(rates[way], costs[None, way], np.array([l0]), sound[way], share)
        for way in (slice(best, None, -1), slice(best, None))
    )
    first, last = best - int(below[0]), best + int(above[0])
    return GoodRange(
        share=share,
        threshold=uncost(_threshold(float(costs[best]), l0, share), mode),
        low=float(low[0]),
        high=float(high[0]),
        decades=math.log10(float(high[0]) / float(low[0])),
        censored_low=first == 0,
        censored_high=last == len(rates) - 1,
        cliff_low=first > 0 and math.isinf(costs[first - 1]),
        cliff_high=last < len(rates) - 1 and math.isinf(costs[last + 1]),
        rates=tuple(float(rate) for rate in rates[first : last + 1]),
    )


def widths(lrs: Floats, m: Floats, l0: Floats, clean: Bools, share: float = SHARE) -> Floats:
    """(B,): the decades of `good_range` for every row of `m` (B, R) with its `l0` (B,); nan where nothing trained."""
    out = np.full(len(m), np.nan)
    least = np.min(np.where(np.isfinite(m), m, np.inf), axis=1, initial=np.inf)
    trained = (least < l0) & np.isfinite(l0)
    for mask in distinct(~np.isnan(m[trained])):
        these = trained & (~np.isnan(m) == mask).all(axis=1)
        rates, sound, costs = lrs[mask], clean[mask], m[np.ix_(these, mask)]
        bests = np.where(np.isfinite(costs), costs, np.inf).argmin(axis=1)
        found = np.empty(len(costs))
        for best in np.unique(bests):
            rows = bests == best
            (_, low), (_, high) = (
                _edge(rates[way], costs[rows][:, way], l0[these][rows], sound[way], share)
                for way in (slice(best, None, -1), slice(best, None))
            )
            found[rows] = np.log10(high / low)
        out[these] = found
    return out


def _edge(rates: Floats, costs: Floats, l0: Floats, sound: Bools, share: float) -> tuple[Ints, Floats]:
    """How many rates (B,) a walk from the best rate outwards passes inside the good range, and where it ends (B,).

    `rates` (K,) and `costs` (B, K) start at the best rate. One outlier does not end the walk: a rate outside theta that
    is sound, keeps half of the gain and whose next rate outwards is inside again.
    """
    least = costs[:, 0]
    theta, half = _threshold(least, l0, share), _threshold(least, l0, HALF)
    inside = costs <= theta[:, None]
    again = np.append(inside[:, 1:], np.zeros((len(costs), 1), dtype=bool), axis=1)
    passed = inside | (again & sound & (costs < half[:, None]))
    ended = ~passed.all(axis=1)
    last = np.where(ended, passed.argmin(axis=1), len(rates)) - 1
    rows, beyond = np.arange(len(costs)), np.minimum(last + 1, len(rates) - 1)
    at, out = costs[rows, last], costs[rows, beyond]
    between = ended & np.isfinite(out)
    part = np.where(between, theta - at, 0) / np.where(between, out - at, 1)
    log = np.log10(rates)
    return last, np.where(between, 10 ** (log[last] + part * (log[beyond] - log[last])), rates[last])


def _threshold(least: T, l0: T, share: float) -> T:
    """l* + share of the gain; a division is exact where the result is a float, so that no unit decides."""
    return least + (l0 - least) / round(1 / share)


def unusable_rate(m: Floats, l0: float, best: int) -> int | None:
    """Number of the smallest rate above the best from which m loses half of the gain or more; None if there is none."""
    beyond = np.flatnonzero(m[best + 1 :] >= _threshold(float(m[best]), l0, HALF))
    return best + 1 + int(beyond[0]) if len(beyond) else None


def usable(cost: Floats, diverged: Bools, m: Floats, l0: float, best: int) -> Bools:
    """(R,): the rates with a result at which no seed of `cost` (R, S) diverged or lost half of the gain."""
    lost = diverged | (cost >= _threshold(float(m[best]), l0, HALF))
    return ~lost.any(axis=1) & ~np.isnan(m)


def recommended(
    found: GoodRange, lrs: Floats, clean: Bools, best_lr: float, unusable_from: float = math.nan
) -> tuple[float, RecommendedBy]:
    """A robust rate and why. `clean` (R,) marks the rates where no seed diverged or lost half of the gain.

    The nearest to the center of the good range (tie: the smaller) of its clean rates; of those a factor of 2 or more
    below `unusable_from` where there are any. Where the good range runs out of the grid its center is not known: the
    best rate, if it is clean.
    """
    if not found.rates:
        return math.nan, "nothing"
    inside = [rate for rate, good in zip(lrs.tolist(), clean, strict=True) if good and rate in found.rates]
    if not inside:
        return best_lr, "no_clean_rate"
    if found.censored and best_lr in inside:
        return best_lr, "edge"
    apart = [rate for rate in inside if not rate * APART > unusable_from * (1 + 1e-5)]  # rates have 6 digits
    center = (math.log10(found.low) + math.log10(found.high)) / 2
    return min(apart or inside, key=lambda rate: (round(abs(math.log10(rate) - center), 9), rate)), "centre"
