"""What an interval is called is what it covers: simulated sweeps whose true numbers are known.

Run with `-m slow -s` to see the table.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lrsweep.analysis.analyse import analyse
from lrsweep.analysis.baseline import against_adam
from lrsweep.analysis.cells import Cell, cells_of, config_of
from lrsweep.analysis.good_range import good_range, widths
from lrsweep.analysis.sensitivity import normed, sensitivity
from lrsweep.analysis.stats import Floats, interval, resampled_medians, resamples
from lrsweep.results.compare import Side, compare_sides, mean_difference
from tests.support.planted_tables import HALF_DECADES, frame, spec, table, valley

LRS = np.array(HALF_DECADES)
CURVE = valley(HALF_DECADES, 1.5e-3, depth=0.25)
START = 2.0
RUNS = {5: 400, 10: 200}


def seeds_of(rng: np.random.Generator, seeds: int) -> tuple[Floats, Floats]:
    """What all runs of a seed share (S,), and its untrained cost (S,)."""
    shared = rng.normal(scale=0.05, size=seeds)
    return shared, START + shared + rng.normal(scale=0.02, size=seeds)


def costs(rng: np.random.Generator, shared: Floats, spread: float) -> Floats:
    """Costs (R, S), with noise of every run."""
    return np.minimum(CURVE[:, None] + shared + rng.normal(scale=spread, size=(len(LRS), len(shared))), 4.0)


def numbers(m: Floats, l0: Floats) -> dict[str, Floats]:
    """S, S_norm and the width of the good range of medians (B, R) with their starts (B,)."""
    s = sensitivity(LRS, m, l0)
    every = np.ones(len(LRS), dtype=bool)
    return {"S": s, "S_norm": normed(s, m, l0), "good range": widths(LRS, m, l0, every)}


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.005, 0.02])
@pytest.mark.parametrize("seeds", [5, 10])
def test_what_is_called_95_percent_covers_90_to_99(seeds: int, spread: float) -> None:
    rng = np.random.default_rng([seeds, int(1000 * spread)])
    truth = {name: float(value[0]) for name, value in numbers(CURVE[None], np.array([START])).items()}
    hits = dict.fromkeys(truth, 0)
    for _ in range(RUNS[seeds]):
        shared, start = seeds_of(rng, seeds)
        cost = costs(rng, shared, spread)
        drawn = numbers(resampled_medians(cost), resampled_medians(start[None])[:, 0])
        for name, value in truth.items():
            low, high = interval(drawn[name], resamples(seeds)[1])
            hits[name] += low <= value <= high
    share = {name: count / RUNS[seeds] for name, count in hits.items()}
    print(f"\ncoverage, {seeds} seeds, noise {spread}: {share}")
    for name, covered in share.items():
        assert 0.9 <= covered <= 0.995, name


def planted(rng: np.random.Generator, best: float, shared: Floats, spread: float) -> Floats:
    """Costs (R, S) of an optimizer whose best rate is `best`, on the grid or between its rates."""
    middle = valley(HALF_DECADES, best, depth=0.25)[:, None]
    return np.asarray(middle + shared + rng.normal(scale=spread, size=(len(LRS), len(shared))))


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.005, 0.05])
@pytest.mark.parametrize("seeds", [5, 10])
def test_intervals_of_best_rates_cover_90_percent_or_more(seeds: int, spread: float) -> None:
    """Of the ratio of two best rates and of their drift along an axis. A grid's best rate is known to half a step at
    best, so these cover more than 99 % where the noise is small; less than 90 % they never may."""
    rng = np.random.default_rng([3, seeds, int(1000 * spread)])
    hits, counts = {"ratio": 0, "drift": 0}, {"ratio": 0, "drift": 0}
    sweeps, widths_of_axis = 150, (10, 100, 1000, 10_000)
    for _ in range(sweeps):
        shared, start = seeds_of(rng, seeds)
        places = 10 ** rng.uniform(-4, -2, 2)
        tables = [
            table(f"o{k}", HALF_DECADES, planted(rng, best, shared, spread), start) for k, best in enumerate(places)
        ]
        (ratio,) = analyse(frame(*tables), None, spec("o0", "o1"), {}).ratios
        counts["ratio"] += 1
        hits["ratio"] += ratio.ratio.low <= places[1] / places[0] <= ratio.ratio.high
        true, at = rng.uniform(-0.6, 0.6), 10 ** rng.uniform(-3.5, -2.5)
        tables = [
            table("o0", HALF_DECADES, planted(rng, at * (width / 316) ** true, shared, spread), start, width=width)
            for width in widths_of_axis
        ]
        (drift,) = analyse(frame(*tables), None, spec("o0", axes={"width": list(widths_of_axis)}), {}).drifts
        if not drift.stays:
            counts["drift"] += 1
            hits["drift"] += drift.slope.low <= true <= drift.slope.high
    share = {name: hits[name] / counts[name] for name in hits}
    print(f"\ncoverage, {seeds} seeds, noise {spread}: {share} of {counts}")
    assert min(share.values()) >= 0.9


AT_DEFAULT = 1e-3
CONFIG = config_of(spec("adam", "sgd"), {"adam": AT_DEFAULT})


def cell_of(label: str, cost: Floats, start: Floats) -> Cell:
    """Its seeds are 0, 1, ..."""
    (cell,) = cells_of(frame(table(label, HALF_DECADES, cost, list(start))), {}, CONFIG)
    return cell


@pytest.mark.slow
@pytest.mark.parametrize("quiet", [1.0, 0.2])
@pytest.mark.parametrize("depth", [0.25, 0.02, 0.0])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_against_adam_covers_90_to_99_percent(seeds: int, depth: float, quiet: float) -> None:
    """The other optimizer's rate is the best of those tried, chosen by the same seeds. `depth` 0: all are as good, so
    the choice is noise; `quiet`: the noise of Adam as a share of the other's."""
    rng = np.random.default_rng([17, seeds, int(100 * depth), int(10 * quiet)])
    at, hits, sweeps = int(np.argmin(np.abs(LRS - AT_DEFAULT))), 0, 500 if seeds < 10 else 200
    for _ in range(sweeps):
        shared, start = seeds_of(rng, seeds)
        adam, other = (valley(HALF_DECADES, best, depth=depth) for best in 10 ** rng.uniform(-4, -2, 2))
        noisy = [
            curve[:, None] + shared + rng.normal(scale=spread, size=(len(LRS), seeds))
            for curve, spread in ((adam, 0.05 * quiet), (other, 0.05))
        ]
        cells = [cell_of(label, cost, start) for label, cost in zip(("adam", "sgd"), noisy, strict=True)]
        (found,) = against_adam(cells, [resampled_medians(cell.cost) for cell in cells], CONFIG)
        hits += found.gain.low <= adam[at] - other.min() <= found.gain.high
    print(f"\nagainst adam, {seeds} seeds, depth {depth}, noise of Adam x{quiet}: {hits / sweeps}")
    assert 0.91 <= hits / sweeps <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("depth", [0.25, 0.02, 0.002])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_best_rate_that_stays_is_called_changed_in_at_most_5_percent(seeds: int, depth: float, paired: bool) -> None:
    """Two sweeps of one optimizer whose best rate lies anywhere between grid points; small depths make it noise."""
    rng = np.random.default_rng([13, seeds, int(1000 * depth), int(paired)])
    false, pairs = 0, 500
    for _ in range(pairs):
        curve = valley(HALF_DECADES, 10 ** rng.uniform(-4, -2), depth=depth)[:, None]
        first = seeds_of(rng, seeds)
        sides = []
        for number, (shared, start) in enumerate((first, first if paired else seeds_of(rng, seeds))):
            cost = curve + shared + rng.normal(scale=0.02, size=(len(LRS), seeds))
            cell = cell_of("adam", cost, start)
            cell = cell if paired else replace(cell, seeds=tuple(seed + 100 * number for seed in cell.seeds))
            sides.append(Side(name="made up", config=CONFIG, cells=(cell,)))
        (row,) = compare_sides(*sides).rows
        assert row.paired == seeds * paired
        false += next(change.verdict for change in row.changes if change.name == "best_lr") == "changed"
    print(
        f"\nbest_lr called changed, {seeds} seeds, depth {depth}, {'paired' if paired else 'unpaired'}: {false / pairs}"
    )
    assert false / pairs <= 0.06


def per_seed(cost: Floats, start: Floats) -> dict[str, Floats]:
    every = np.ones(len(LRS), dtype=bool)
    s = sensitivity(LRS, cost.T, start)
    return {
        "S": s,
        "S_norm": normed(s, cost.T, start),
        "good range": widths(LRS, cost.T, start, every),
        "best objective": cost.min(axis=0),
    }


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_of_two_sweeps_without_a_difference_at_most_5_percent_are_called_changed(seeds: int, paired: bool) -> None:
    """The same seeds share their start in both sweeps; 2,000 pairs leave 1 % of chance."""
    rng = np.random.default_rng([7, seeds, int(paired)])
    false: dict[str, int] = {}
    pairs = 2000
    for _ in range(pairs):
        one = seeds_of(rng, seeds)
        other = one if paired else seeds_of(rng, seeds)
        a, b = (per_seed(costs(rng, shared, 0.02), start) for shared, start in (one, other))
        for name in a:
            found = mean_difference(a[name], b[name], paired_seeds=paired)
            false[name] = false.get(name, 0) + (not found.low <= 0 <= found.high)
    share = {name: count / pairs for name, count in false.items()}
    print(f"\nfalse positives, {seeds} seeds, {'paired' if paired else 'unpaired'}: {share}")
    for name, wrong in share.items():
        assert wrong <= 0.06, name


def test_the_true_numbers_are_those_of_the_formulas() -> None:
    truth = numbers(CURVE[None], np.array([START]))
    assert float(truth["good range"][0]) == good_range(LRS, CURVE, START).decades
