"""Learning-rate sensitivity S (Wortsman et al. 2023, arXiv:2309.14322, section 2.2 and appendix B).

S = mean over the grid's rates of min(m, l0) - l*, with m the median cost of a rate, l0 the cost of the untrained model
and l* the least m. The paper's mean is an expectation over a log-uniform rate: a plain mean where the grid is even, and
where it is not, each rate weighs by the length of log rate that it stands for. A diverged rate counts as l0 through the
clamp.
"""

from __future__ import annotations

import math

import numpy as np

from lrsweep.analysis.facts import Sensitivity
from lrsweep.analysis.stats import Bools, Floats, bootstrapped

DECADES = 3.0
SLACK = 1e-3
"""Decades by which two listed rates may miss a distance of three (3.16e-4 and 0.316228)."""
UNEVEN = 1.2
"""Ratio of the widest to the narrowest spacing up to which a grid counts as even: rates that are written with one digit
(3e-4, 1e-3, 3e-3, as in the paper) differ by 9 %."""


def weights(lrs: Floats) -> Floats:
    """(R,): the length of log rate that each of the rising `lrs` stands for, up to a common factor.

    Half the distance to each neighbor; at an end the distance to its one neighbor, half of it on each side. All 1 on an
    even grid.
    """
    if is_even(lrs):
        return np.ones(len(lrs))
    gaps: Floats = np.diff(np.log10(lrs))
    return np.asarray((np.append(gaps[0], gaps) + np.append(gaps, gaps[-1])) / 2)


def _weights_of(lrs: Floats, known: Bools) -> Floats:
    """Weights (..., R) where some rates have no result: 0 for those, and the others stand for their share too."""
    if known.all():
        return np.broadcast_to(weights(lrs), known.shape)
    masks, which = np.unique(known.reshape(-1, len(lrs)), axis=0, return_inverse=True)
    each = np.zeros(masks.shape)
    for row, mask in zip(each, masks, strict=True):
        row[mask] = weights(lrs[mask])
    return each[which.reshape(-1)].reshape(known.shape)


def sensitivity(lrs: Floats, m: Floats, l0: Floats | float) -> Floats:
    """S along the last axis of `m` (..., R), the costs at `lrs` (R,), with `l0` (...); nan entries of m are left out.

    Where nothing got below l0 the clamp leaves 0. nan where l0 is not finite or no rate is left.
    """
    start = np.asarray(l0, dtype=np.float64)[..., None]
    clamped = np.where(np.isnan(m), np.nan, np.minimum(m, start))
    weight = _weights_of(lrs, ~np.isnan(clamped))
    total = weight.sum(axis=-1)
    least = np.min(np.where(np.isnan(clamped), np.inf, clamped), axis=-1, initial=np.inf)
    sound = (total > 0) & np.isfinite(start[..., 0])
    least = np.where(sound, least, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        excess = np.where(np.isnan(clamped), 0.0, clamped - least[..., None])
        return np.where(sound, (weight * excess).sum(axis=-1) / np.where(sound, total, 1.0), np.nan)


def normed(s: Floats, m: Floats, l0: Floats | float) -> Floats:
    """S over l0 - l*, in [0, 1] and free of units; nan where nothing got below l0."""
    start = np.asarray(l0, dtype=np.float64)
    least = np.min(np.where(np.isnan(m), np.inf, m), axis=-1, initial=np.inf)
    trained = np.isfinite(start) & (least < start)
    gain = np.where(trained, start, 1.0) - np.where(trained, least, 0.0)
    return np.where(trained, s / gain, np.nan)


def window(lrs: Floats, m: Floats, l0: float, best: int) -> tuple[float, float, float]:
    """Least S over windows of exactly three decades of grid rates that contain rate number `best`, and its ends.

    A window without the best rate could lie on the flat, untrained part and give 0. Where the optimum sits depends on
    the range; appendix B of the paper re-centres for the same reason. nan if the grid has no such window.
    """
    log = np.log10(lrs)
    found = (math.nan, math.nan, math.nan)
    for first in range(best + 1):
        for last in range(best, len(lrs)):
            if abs(log[last] - log[first] - DECADES) <= SLACK:
                value = float(sensitivity(lrs[first : last + 1], m[first : last + 1], l0))
                if not found[0] <= value:
                    found = (value, float(lrs[first]), float(lrs[last]))
    return found


def is_even(lrs: Floats) -> bool:
    """True if no log spacing of the grid is over 20 % wider than another."""
    spacing = np.diff(np.log10(lrs))
    return len(spacing) < 2 or bool(spacing.max() <= UNEVEN * spacing.min())


def sensitivity_facts(
    lrs: Floats, m: Floats, l0: float, best: int | None, draws: tuple[Floats, Floats], seeds: int,
    kept: Bools | None = None,
) -> Sensitivity:  # fmt: skip
    """`draws` are the bootstrap medians (B, R) and their l0 (B,); S is over the rates in `kept` (R,), by
    default all, its windows are of all; rates without a result count for neither. All nan if nothing trained (`best` is
    None) and for a lone rate."""
    known = ~np.isnan(m)
    kept = known if kept is None else kept & known
    inside = lrs[kept]
    ends = (float(inside[0]), float(inside[-1])) if len(inside) else (math.nan, math.nan)
    if best is None or len(inside) < 2:
        none = bootstrapped(math.nan, np.empty(0), 0)
        return Sensitivity(
            whole=none, norm=none, range_low=ends[0], range_high=ends[1],
            window=math.nan, window_low=math.nan, window_high=math.nan, window_interval=none,
        )  # fmt: skip
    medians, (drawn, starts) = m[kept], draws
    whole = sensitivity(inside, medians, l0)
    resampled = sensitivity(inside, drawn[:, kept], starts)
    least, low, high = window(lrs[known], m[known], l0, int(known[:best].sum()))
    near = (lrs >= low) & (lrs <= high) & known  # none where there is no window
    in_window = sensitivity(lrs[near], drawn[:, near], starts) if near.any() else np.empty(0)
    return Sensitivity(
        whole=bootstrapped(float(whole), resampled, seeds),
        norm=bootstrapped(float(normed(whole, medians, l0)), normed(resampled, drawn[:, kept], starts), seeds),
        range_low=ends[0],
        range_high=ends[1],
        window=least,
        window_low=low,
        window_high=high,
        window_interval=bootstrapped(least, in_window, seeds),
    )
