"""Which rates are tied with (indistinguishable from) the best one, and the interval of the best rate over seeds."""

from __future__ import annotations

import math

import numpy as np

from lrsweep.analysis.facts import Interval
from lrsweep.analysis.stats import Bools, Floats, interval, medians, paired, resamples


def is_tied(differences: Floats) -> bool:
    """Paired differences of cost to the best rate: tied if the lower end of their 95 % t interval is not above 0.

    A rate with a diverged seed (+inf) is not tied; neither is one with fewer than two shared seeds.
    """
    finite = differences[np.isfinite(differences)]
    if len(finite) < 2 or bool((differences == math.inf).any()):
        return False
    return paired(finite).low <= 0


def tied_rates(cost: Floats, best: int | None, l0: float = math.nan) -> Bools:
    """(R,) marks of the rates tied with rate number `best` in `cost` (R, S); the best one is always marked.

    Costs above l0 count as l0, as in the sensitivity: seeds that blew up to wildly different losses would otherwise
    widen the interval until it holds anything. A rate whose median is not below l0 is never tied. Seeds that failed at
    either rate, or diverged at the best one, say nothing about the pair. Without a finite l0 nothing is clamped.
    """
    marks = np.zeros(len(cost), dtype=bool)
    if best is None:
        return marks
    start = l0 if math.isfinite(l0) else math.inf
    clamped = np.where(np.isinf(cost), cost, np.minimum(cost, start))
    usable = np.isfinite(cost[best])
    reference = np.where(usable, clamped[best], 0.0)
    for rate, (row, middle) in enumerate(zip(clamped, medians(cost), strict=True)):
        marks[rate] = rate == best or (middle < start and is_tied((row - reference)[usable & ~np.isnan(row)]))
    return marks


def best_lr_interval(lrs: Floats, best: int | None, drawn: Floats, seeds: int) -> Interval:
    """Best rate with its 95 % interval. `drawn` (B,) is the best grid rate of every bootstrap draw of the seeds.

    The percentile interval of a grid's best rate knows nothing of the rates between the grid's, and over few seeds it
    shrinks to one rate: for an optimum off the grid it covers as little as 5 % (3 to 10 seeds, simulated). So its ends
    are moved out to the middle, in log lr, between the rate there and the next one. That covers at least 94 % in all of
    those simulations: valleys with a rounded, a lopsided and a noisy floor, on 1, 2 and 4 rates per decade.
    """
    value = float(lrs[best]) if best is not None else math.nan
    low, high = interval(drawn, resamples(seeds, len(drawn))[1]) if seeds > 1 else (math.nan, math.nan)
    if math.isnan(low) or best is None:
        return Interval(value=value, low=math.nan, high=math.nan, n=seeds)
    first = max(int(np.searchsorted(lrs, low, side="right")) - 1, 0)
    last = min(int(np.searchsorted(lrs, high, side="left")), len(lrs) - 1)
    below, above = lrs[max(first - 1, 0)], lrs[min(last + 1, len(lrs) - 1)]
    return Interval(value=value, low=math.sqrt(lrs[first] * below), high=math.sqrt(lrs[last] * above), n=seeds)
