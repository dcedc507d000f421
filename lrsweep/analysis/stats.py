"""Medians, bootstrap over seeds, percentiles and paired intervals that are safe with +inf and missing values.

In every array of costs nan means "no result" (a failed run) and is left out; +inf means "diverged" and counts.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lrsweep.analysis.facts import Interval

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Counts: TypeAlias = npt.NDArray[np.int16]
Ranks: TypeAlias = npt.NDArray[Any]
"""Of the smallest integers that hold a number of seeds."""
Ints: TypeAlias = npt.NDArray[np.intp]

ENUMERATED = 6
"""Up to this many seeds all n^n bootstrap draws are taken, beyond it `DRAWS` of a generator with a fixed seed."""
DRAWS, LEAST_DRAWS = 10_000, 1000
MANY_SETTINGS = 500
"""A sweep of more settings takes fewer draws for each, so that together they take no longer, down to LEAST_DRAWS: an
end of an interval of S then differs by 1 % of its width at the median, and by up to 16 % (10 seeds, simulated)."""
AT_ONCE = 1 << 20
"""Numbers that are drawn at once: of thousands of seeds all draws together would take gigabytes."""
LEVELS = (2.5, 97.5)


def medians(values: Floats) -> Floats:
    """Median over the last axis, nan left out; nan where nothing is left. Half or more at +inf give +inf."""
    width = values.shape[-1]
    if not width:
        return np.full(values.shape[:-1], np.nan)
    missing = np.isnan(values)
    if not missing.any():
        middle = ((width - 1) // 2, width // 2)
        ordered = np.partition(values, sorted(set(middle)), axis=-1)
        return halfway(ordered[..., middle[0]], ordered[..., middle[1]])
    ordered = np.sort(values, axis=-1)
    count = (~missing).sum(axis=-1)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None] // 2, axis=-1)[..., 0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, width - 1)[..., None], axis=-1)[..., 0]
    return np.where(count > 0, halfway(low, high), np.nan)


def halfway(low: Floats, high: Floats) -> Floats:
    """(low + high) / 2 without overflow; an infinite side wins."""
    return np.where(low == high, low, low * 0.5 + high * 0.5)


def distinct(masks: Bools) -> Bools:
    """The different rows of `masks` (B, R); most often there is one."""
    return masks[:1] if (masks == masks[:1]).all() else np.unique(masks, axis=0)


def weighted_median(values: Floats, weights: Floats) -> float:
    """The value (R,) at which half of the weight lies on either side, nan left out; between two values their middle.

    Equal weights give the plain median. nan if nothing is left.
    """
    known = ~np.isnan(values)
    if not known.any():
        return math.nan
    order = np.argsort(values[known], kind="stable")
    ranked, upto = values[known][order], np.cumsum(weights[known][order])
    half = upto[-1] / 2
    slack = 1e-9 * upto[-1]
    low = int(np.argmax(upto >= half - slack))
    high = int(np.argmax(upto > half + slack))
    return float(halfway(ranked[low], ranked[high]))


def draws_for(settings: int) -> int:
    """How many bootstrap draws are taken for each of so many settings of more than ENUMERATED seeds."""
    return DRAWS if settings <= MANY_SETTINGS else max(DRAWS * MANY_SETTINGS // settings, LEAST_DRAWS)


@functools.cache
def resamples(n: int, draws: int = DRAWS) -> tuple[Counts, Ints]:
    """Bootstrap draws of n seeds: (how often each seed is in each draw (n, B), how often each draw counts (B,)).

    For n <= 6 the draws are the distinct multisets, with their multiplicity among the n^n ordered draws; `draws` are
    taken for more seeds.
    """
    if n > ENUMERATED:
        random, counts = np.random.Generator(np.random.PCG64(20230925)), np.empty((n, draws), dtype=np.int16)
        for first in range(0, draws, size := max(AT_ONCE // n, 1)):
            some = min(size, draws - first)
            counts[:, first : first + some] = _counts(random.integers(n, size=(some, n)), n)
        return counts, np.ones(draws, dtype=np.intp)
    every = list(itertools.combinations_with_replacement(range(n), n))
    orders = [math.factorial(n) // math.prod(math.factorial(k) for k in Counter(draw).values()) for draw in every]
    return _counts(np.array(every, dtype=np.intp).reshape(len(every), n), n), np.array(orders, dtype=np.intp)


def _counts(index: Ints, n: int) -> Counts:
    """(n, B): how often each of n seeds is in each draw of `index` (B, n)."""
    flat = index + n * np.arange(len(index))[:, None]
    return np.bincount(flat.ravel(), minlength=n * len(index)).reshape(len(index), n).T.astype(np.int16)


def resampled_medians(values: Floats, draws: int = DRAWS) -> Floats:
    """Median of every row in every draw of seeds, the same draw for all rows: (R, S) -> (B, R).

    A row is ranked once; its medians are found by counting up to the middle of each draw.
    """
    seeds = values.shape[1]
    counts, weight = resamples(seeds, draws)
    if not values.size:
        return np.full((len(weight), len(values)), np.nan)
    kind = next(kind for kind in (np.int8, np.int16, np.int32) if seeds <= np.iinfo(kind).max)
    counts = counts.astype(kind)  # the smaller the numbers, the more of them are added at once
    order = np.argsort(values, axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    known = ~np.isnan(ranked)
    gaps = not known.all()
    drawn: Ranks = np.array(seeds, dtype=kind)
    if gaps:
        there = known.sum(axis=1)
        drawn = np.stack([counts[of[:n]].sum(axis=0, dtype=kind) for of, n in zip(order, there, strict=True)])
    before, middle = np.maximum(drawn - 1, 0) // 2, drawn // 2
    upto, low, high = (np.zeros((len(values), len(weight)), dtype=kind) for _ in range(3))
    for place in range(seeds):
        times = counts[order[:, place]]
        if gaps:
            times[~known[:, place]] = 0
        upto += times
        low += upto <= before
        high += upto <= middle
    if not gaps:
        return np.ascontiguousarray(_between(ranked, low, high).T)
    last = np.maximum(there - 1, 0).astype(kind)[:, None]  # where a draw has nothing of a row, they count on to the end
    found = _between(ranked, np.minimum(low, last), np.minimum(high, last))
    return np.ascontiguousarray(np.where(drawn > 0, found, np.nan).T)


def _between(ranked: Floats, low: Ranks, high: Ranks) -> Floats:
    """(R, B): half way between the entries number `low` and `high` (R, B) of each row of `ranked` (R, S)."""
    rows, seeds = ranked.shape
    if seeds * seeds > low.shape[1]:
        return halfway(*(np.take_along_axis(ranked, at.astype(np.intp), axis=1) for at in (low, high)))
    pairs = halfway(ranked[:, :, None], ranked[:, None, :])  # fewer than there are draws
    first = np.arange(rows)[:, None] * seeds
    found: Floats = np.take(pairs, (first + low) * seeds + high)
    return found


def interval(values: Floats, counts: Ints) -> tuple[float, float]:
    """2.5 and 97.5 percentiles of `values`, each taken `counts` times; nan values are left out, (nan, nan) if all."""
    known = ~np.isnan(values)
    spread = np.sort(np.repeat(values[known], counts[known]))
    return percentile(spread, LEVELS[0]), percentile(spread, LEVELS[1])


def percentile(ordered: Floats, q: float) -> float:
    """Percentile of sorted values by linear interpolation; nan if empty, infinite as soon as it touches infinity."""
    if not len(ordered):
        return math.nan
    at = q / 100 * (len(ordered) - 1)
    low, high = float(ordered[math.floor(at)]), float(ordered[math.ceil(at)])
    share = at - math.floor(at)
    if low == high or share == 0:
        return low
    if not math.isfinite(low) or not math.isfinite(high):
        return high if math.isfinite(low) else low
    return low + share * (high - low)


def bootstrapped(value: float, values: Floats, seeds: int) -> Interval:
    """`value` with the percentile interval of its bootstrap `values` (one per draw of `resamples(seeds)`)."""
    if seeds < 2 or not len(values):
        return Interval(value=value, low=math.nan, high=math.nan, n=seeds)
    low, high = interval(values, resamples(seeds, len(values))[1])
    return Interval(value=value, low=low, high=high, n=seeds)


@functools.cache
def t_quantile(df: int) -> float:
    """0.975 quantile of Student's t for whole `df` >= 1 (closed-form distribution, Abramowitz and Stegun 26.7.3-4)."""
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_two_sided(middle, df) < 0.95 else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(df)


def _t_two_sided(angle: float, df: int) -> float:
    """P(|t| < tan(angle) sqrt(df))."""
    cosine = math.cos(angle)
    odd = df % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1 + odd, df, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    shape = math.sin(angle) * total
    return 2 / math.pi * (angle + shape) if odd else shape


def paired(differences: Floats) -> Interval:
    """Mean of paired differences with its 95 % t interval; nan interval for fewer than two, nan for none."""
    n = len(differences)
    if not n:
        return Interval(value=math.nan, low=math.nan, high=math.nan, n=0)
    # Losses of 1e200 have squares that are no numbers; a power of two takes no digit from any.
    scale = math.ldexp(1.0, math.frexp(float(np.abs(differences).max()))[1] - 1)
    mean = scale * float((differences / scale).mean())
    if n == 1:
        return Interval(value=mean, low=math.nan, high=math.nan, n=1)
    half = t_quantile(n - 1) * scale * float((differences / scale).std(ddof=1)) / math.sqrt(n)
    return Interval(value=mean, low=mean - half, high=mean + half, n=n)
