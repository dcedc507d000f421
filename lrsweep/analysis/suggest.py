"""Which rates would answer what the grid left open: past an edge, or inside a good range with too few rates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.grids import generate

ENOUGH = 3
"""Fewer grid rates than this in the good range do not show its shape."""
SMALLEST, LARGEST = 1e-12, 1e3
CLOSEST = 0.05
"""No rate is added within so many decades (12 %) of one that was tried: such near neighbours differ by the noise of
their seeds."""
FINEST = 8
"""A gap between two rates is cut into at most this many."""
CLIFF_STEP, CLIFF_LEAST = 0.5, math.log10(2)
"""A gap up to a diverged rate is cut into steps of half a decade at most, unless it is a factor of 2 or less: the best
rate is often within that factor of the largest one that does not diverge (Bengio 2012)."""
COARSE = 0.5
"""The ends of a good range lie between two rates at most so many decades apart: between them a line is read."""
DOWN = 3
"""Decades to go down where every rate diverged."""
LEAST_UP, MOST_UP, BLIND_UP = 2, 6, 4
"""Decades to go up where the rates are too small: at least, at most, and where there is no gain to judge by."""
STEEP = 0.5
"""A rate above the good range that lost as much of the gain is a cliff too: a line up to it tells little of the end."""


def next_rates(row: OptimizerFacts) -> tuple[float, ...]:
    """The rates to add, rising; empty where the grid shows the whole good range with enough rates in it.

    - All rates diverged: three decades further down, a rate each. The rates are too small: decades up, see
      `decades_up`. Nothing trained: see `_where_training_may_begin`.
    - Best rate at an edge, or the good range runs out of the grid: a decade past that side.
    - Fewer than three rates in the good range: its gaps cut evenly, the coarsest cut that gives three; only rates in it
      are added. If it is too thin for any cut (a lone rate between diverged ones): the middles of the gaps beside it.
    - The rate beside the good range diverged, or the one above it lost half of the gain: the gap between the two, where
      the good range's end and maybe a better rate lie.
    - Nothing of all this: the gaps in and beside the good range that are wider than half a decade.
    - Nothing past rates whose runs failed, nothing where the untrained model is not finite, and nothing within 12 %
      of a rate that was tried.
    """
    grid = [point.lr for point in row.rates]
    if not any(point.n_runs > point.n_failed for point in row.rates) or row.broken_start:
        return ()
    if row.rates_too_small:
        return () if "high" in row.failed_ends else by_decades(grid[-1], decades_up(row))
    if math.isnan(row.best_lr.value):
        return () if "low" in row.failed_ends else by_decades(grid[0], -DOWN)
    if not row.trained:
        away = _where_training_may_begin(row) - row.failed_ends
        return extended(grid, down="low" in away, up="high" in away)
    good_range, wanted = row.good_range, row.open_ends - row.failed_ends
    added = set(extended(grid, down="low" in wanted, up="high" in wanted))
    if len(good_range.rates) < ENOUGH and not wanted:
        inside = filled(grid, good_range.low, good_range.high, len(good_range.rates))
        added |= {lr for lr in inside if not row.failed_ends or good_range.low < lr < good_range.high}
    for low, high in open_gaps(row):
        added |= set(up_to_cliff(low, high))
    for low, high in steep_gap(row):
        if not any(low < lr < high for lr in added):
            added |= set(up_to_cliff(low, high))
    if not added:
        added = {lr for gap in known_gaps(row) if _decades(gap) > COARSE + 0.02 for lr in up_to_cliff(*gap)}
    return spaced(added, grid)


def decades_up(row: OptimizerFacts) -> int:
    """How many decades up a gain that grows in proportion to the rate would be as large as the untrained cost."""
    gain, start = abs(row.initial_objective - row.best_objective), abs(row.initial_objective)
    if not gain > 0 or not start > 0:
        return BLIND_UP
    return min(max(math.ceil(math.log10(start / gain) - 0.02), LEAST_UP), MOST_UP)


def by_decades(edge: float, decades: int) -> tuple[float, ...]:
    """A rate per decade from `edge` on, upwards or (negative) downwards, rising; within the bounds of all grids."""
    way = 1 if decades > 0 else -1
    rates = (float(f"{edge * 10.0 ** (way * k):.6g}") for k in range(1, abs(decades) + 1))
    return tuple(sorted(rate for rate in rates if SMALLEST <= rate <= LARGEST))


def known_gaps(row: OptimizerFacts) -> list[tuple[float, float]]:
    """The gaps between neighboring rates in the good range and up to the ones beside it, those that failed aside."""
    tried = [point.lr for point in row.rates if point.n_runs > point.n_failed]
    inside = {point.lr for point in row.rates if point.in_good_range}
    gaps = [gap for gap in itertools.pairwise(tried) if inside & set(gap)]
    return [gap for gap in gaps if not any(gap[0] < lr < gap[1] for lr in row.failed_lrs)]


def _decades(gap: tuple[float, float]) -> float:
    return math.log10(gap[1] / gap[0])


def _where_training_may_begin(row: OptimizerFacts) -> set[str]:
    """On which side of a grid on which nothing trained: below it where runs diverged, above it where its rates make no
    difference; else on the side on which the best of them lies, both if that is the middle."""
    if row.n_diverged:
        return {"low"}
    objectives = [point.objective for point in row.rates if point.n_runs > point.n_failed]
    if len(objectives) > 1 and len(set(objectives)) == 1:
        return {"high"}
    below, above = math.log(row.best_lr.value / row.rates[0].lr), math.log(row.rates[-1].lr / row.best_lr.value)
    return {"low", "high"} if math.isclose(below, above, abs_tol=1e-6) else {"low" if below < above else "high"}


def spaced(added: Iterable[float], tried: Iterable[float]) -> tuple[float, ...]:
    """The rates of `added`, rising, that are not too close to one of `tried` or to the one kept before."""
    logs = np.log10(sorted(tried))
    kept: list[float] = []
    for lr in sorted(added):
        nearest = np.min(np.abs(np.append(logs, np.log10(kept)) - math.log10(lr)), initial=math.inf)
        if nearest >= CLOSEST - 1e-5:  # rates are rounded to 6 digits
            kept.append(lr)
    return tuple(kept)


def close_enough(row: OptimizerFacts) -> bool:
    """True if the good range holds too few rates and none is added, since those tried are close together already."""
    inside = row.good_range.rates
    if not row.trained or len(inside) >= ENOUGH or row.open_ends or row.failed_lrs:
        return False
    return not next_rates(row)


def too_high(row: OptimizerFacts) -> tuple[float, ...]:
    """The rates that a grid does better without: where more than half of the runs diverged, those at the top of it at
    which half or more of the seeds did. The first of them is kept, since it shows where divergence begins, unless there
    is nothing else."""
    if math.isnan(row.best_lr.value) and row.n_diverged and not row.broken_start:
        return tuple(point.lr for point in row.rates)
    if 2 * row.n_diverged <= row.n_runs - row.n_failed or row.broken_start:
        return ()
    tried = [point for point in row.rates if point.n_runs > point.n_failed]
    top = list(itertools.takewhile(lambda point: 2 * point.n_diverged >= point.n_runs - point.n_failed, tried[::-1]))
    return tuple(point.lr for point in top[-2::-1])


def open_gaps(row: OptimizerFacts) -> list[tuple[float, float]]:
    """The gaps between the ends of the good range and a diverged rate beside it that are wider than a factor of 2."""
    rates = row.good_range.rates
    gaps = [(row.cliff_below, rates[0]), (rates[-1], row.cliff_above)] if rates else []
    return [gap for gap in gaps if _wide(row, *gap)]


def steep_gap(row: OptimizerFacts) -> list[tuple[float, float]]:
    """The gap from the top of the good range up to a rate that lost half of the gain or more, if it is wide."""
    above = [p for p in row.rates if row.good_range.rates and p.lr > row.good_range.rates[-1] and p.n_runs > p.n_failed]
    if not above or not math.isfinite(above[0].objective):
        return []
    gap = (row.good_range.rates[-1], above[0].lr)
    return [gap] if row.lost_share(above[0].objective) >= STEEP and _wide(row, *gap) else []


def _wide(row: OptimizerFacts, low: float, high: float) -> bool:
    """More than a factor of 2, with no rate in between that failed."""
    return math.log10(high / low) > CLIFF_LEAST + 1e-6 and not any(low < lr < high for lr in row.failed_lrs)


def up_to_cliff(low: float, high: float) -> tuple[float, ...]:
    """The rates that cut the gap from `low` to `high` into equal steps in log lr, as generated grids are rounded."""
    parts = min(max(math.ceil(math.log10(high / low) / CLIFF_STEP - 0.02), 2), FINEST)
    return generate(low, high, points=parts + 1)[1:-1]


def extended(grid: Sequence[float], *, down: bool, up: bool) -> tuple[float, ...]:
    """A decade more below or above, at the spacing of the grid's outermost gap (half a decade for a lone rate)."""
    gaps = np.diff(np.log10(grid)) if len(grid) > 1 else np.array([0.5])
    out: list[float] = []
    if down and grid[0] > SMALLEST:
        out += _decade(grid[0], -1, float(gaps[0]))
    if up and grid[-1] < LARGEST:
        out += _decade(grid[-1], +1, float(gaps[-1]))
    return tuple(sorted(out))


def _decade(edge: float, sign: int, gap: float) -> list[float]:
    """A decade from `edge` on, in equal steps as near to `gap` as a whole number of them allows."""
    steps = min(max(round(1 / gap), 1), 12)
    end = float(f"{edge * 10.0**sign:.6g}")
    return [rate for rate in generate(*sorted((edge, end)), per_decade=steps) if rate != edge]


def filled(grid: Sequence[float], low: float, high: float, inside: int) -> tuple[float, ...]:
    """Rates between the grid's that lie in [low, high]: the coarsest even cut of the gaps that makes three in all."""
    near = [k for k, rate in enumerate(grid) if low <= rate * (1 + 1e-9) and rate <= high * (1 + 1e-9)]
    if not near:
        return ()
    span = grid[max(near[0] - 1, 0) : near[-1] + 2]
    found: tuple[float, ...] = ()
    for parts in range(2, FINEST + 1):
        found = tuple(rate for rate in divided(span, parts) if low < rate < high)
        if len(found) + inside >= ENOUGH:
            break
    return found or tuple(divided(span, 2))


def divided(rates: Sequence[float], parts: int) -> list[float]:
    """The rates that cut every gap into equal parts in log lr, or into as many as leave them far enough apart, to 6
    significant digits."""
    out = []
    for low, high in itertools.pairwise(rates):
        gap = math.log10(high / low)
        pieces = min(parts, max(int(gap / CLOSEST + 1e-6), 1))
        out += [float(f"{low * 10 ** (gap / pieces * k):.6g}") for k in range(1, pieces)]
    return out


def better_grid(row: OptimizerFacts) -> tuple[float, ...]:
    """The grid with the rates that it lacks and without those that are too high or too small, rising; () where it is to
    stay."""
    added, left_out = next_rates(row), too_high(row)
    if not added and (not left_out or len(left_out) == row.n_rates):
        return ()
    if row.rates_too_small:
        left_out = tuple(point.lr for point in row.rates[:-1])
    return tuple(sorted({*(point.lr for point in row.rates), *added} - set(left_out)))


ROUNDS = 5
"""How often one command looks for missing rates and trains them. A round goes a decade past an edge at most."""


def refine(facts: SweepFacts) -> dict[str, list[float]]:
    """Rates to add per optimizer label, rising; labels without any are left out.

    A grid belongs to an optimizer, so what one set of axis values asks for is added to all of them. The rule is that of
    `next_rates`; no rate is added within 12 % of another.
    """
    added: dict[str, set[float]] = {}
    known: dict[str, set[float]] = {}
    for row in facts.rows:
        known.setdefault(row.optimizer, set()).update(point.lr for point in row.rates)
        added.setdefault(row.optimizer, set()).update(next_rates(row))
    return {label: list(rates) for label in added if (rates := spaced(added[label], known[label]))}
