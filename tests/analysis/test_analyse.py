"""Published formulas and worked examples, to 1e-12; oracles that are written another way; random tables."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from lrsweep.analysis.analyse import analyse
from lrsweep.analysis.baseline import paired_gain, verdict
from lrsweep.analysis.drift import refined, slope
from lrsweep.analysis.good_range import good_range, recommended, unusable_rate, usable, widths
from lrsweep.analysis.margins import at_default, margins, read_at
from lrsweep.analysis.sensitivity import is_even, normed, sensitivity, sensitivity_facts, weights, window
from lrsweep.analysis.stats import (
    draws_for,
    interval,
    medians,
    paired,
    percentile,
    resampled_medians,
    resamples,
    t_quantile,
    weighted_median,
)
from lrsweep.analysis.targets import expected_best, profile
from lrsweep.analysis.tied import is_tied, tied_rates
from lrsweep.system.parallel import in_processes
from tests.support import planted_tables
from tests.support import tables as fabricate
from tests.support.tables import summary_frame

INF, NAN = math.inf, math.nan
DECADES = np.array([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])
HALVES = 10 ** np.linspace(-4, 0, 9)
PAPER = np.array([3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1])
SHIFTS = [0.0, -10.0]


def near(value: float) -> Any:
    return pytest.approx(value, abs=1e-12, rel=1e-12)


def rounded(value: float) -> Any:
    """Against a worked example that is printed with seven digits."""
    return pytest.approx(value, rel=1e-6)


# ---------------------------------------------------------------------- sensitivity


@pytest.mark.parametrize("c", SHIFTS)
def test_sensitivity_of_one_seed(c: float) -> None:
    m = medians(np.array([[3.0, 2.5, 2.2, 2.0, 2.4, INF, INF]]).T) + c
    s = sensitivity(PAPER, m, 3.5 + c)
    assert float(s) == near(5.1 / 7)
    assert float(normed(s, m, 3.5 + c)) == near(3.4 / 7)


def seeds_example(c: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    cost = np.array([[1.8, 1.0, 0.5, INF], [1.7, 1.2, 0.6, 1.8], [1.9, 0.9, 0.4, INF]]).T
    return cost + c, np.array([2.0, 2.1, 1.9]) + c


@pytest.mark.parametrize("c", SHIFTS)
def test_sensitivity_over_seeds_with_its_interval(c: float) -> None:
    cost, start = seeds_example(c)
    m = medians(cost)
    assert m.tolist() == pytest.approx([1.8 + c, 1.0 + c, 0.5 + c, INF])
    drawn = resampled_medians(cost), resampled_medians(start[None])[:, 0]
    facts = sensitivity_facts(np.array([1e-3, 1e-2, 1e-1, 1.0]), m, float(medians(start)), 2, drawn, 3)
    assert facts.whole.value == near(0.825)
    assert (facts.whole.low, facts.whole.high) == (near(0.725), near(0.875))
    assert facts.norm.value == near(0.55)
    assert facts.whole.n == 3


def test_window_of_three_decades() -> None:
    m = np.array([1.0, 0.6, 0.5, 0.49, 0.48, 0.47, 0.5, 2.0, INF])
    s = sensitivity(HALVES, m, 2.0)
    assert float(s) == near(3.81 / 9)
    assert float(normed(s, m, 2.0)) == rounded(0.2766885)
    value, low, high = window(HALVES, m, 2.0, 5)
    assert (value, low, high) == (near(0.75 / 7), near(1e-4), near(1e-1))


def test_window_needs_exactly_three_decades_around_the_best_rate() -> None:
    flat = np.array([2.0, 2.0, 2.0, 2.0, 2.0, 1.0])
    value, low, _ = window(DECADES, flat, 2.0, 5)
    assert (value, low) == (near(0.75), 1e-3), "the dead flat part on the left would give 0"
    assert math.isnan(window(DECADES[:3], flat[:3], 2.0, 1)[0])
    assert math.isnan(window(10 ** np.arange(0, 4, 0.4), np.ones(10), 2.0, 1)[0])
    written = np.array([3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1])
    assert window(written, np.arange(7.0), 7.0, 0)[1:] == (3e-4, 3e-1)


@pytest.mark.parametrize("m", [[2.0, 3.0, INF], [2.5, 2.5, 2.5], [INF, INF, INF]])
def test_sensitivity_without_training_is_zero_and_has_no_norm(m: list[float]) -> None:
    s = sensitivity(DECADES[:3], np.array(m), 2.0)
    assert float(s) == 0
    assert math.isnan(float(normed(s, np.array(m), 2.0)))


@pytest.mark.parametrize("l0", [NAN, INF, -INF])
def test_sensitivity_needs_a_start(l0: float) -> None:
    assert math.isnan(float(sensitivity(DECADES[:2], np.array([1.0, 2.0]), l0)))


def test_rates_without_results_are_left_out_of_the_mean() -> None:
    assert float(sensitivity(DECADES[:3], np.array([1.0, NAN, 1.5]), 2.0)) == 0.25
    assert math.isnan(float(sensitivity(DECADES[:1], np.array([NAN]), 2.0)))


@pytest.mark.parametrize(
    ("rates", "even"),
    [
        (planted_tables.HALF_DECADES, True),
        ([3e-4, 1e-3, 3e-3, 1e-2, 3e-2], True),
        ([1e-3, 1e-2, 3e-2, 1e-1], False),
        ([1e-3], True),
        ([1e-3, 1.0], True),
    ],
)
def test_even_grids(rates: list[float], even: bool) -> None:
    assert is_even(np.array(rates)) is even


def test_on_an_uneven_grid_a_rate_weighs_what_it_stands_for() -> None:
    lrs = np.array([1e-4, 1e-3, 1e-2, 3.16228e-2, 1e-1, 1.0])
    m = np.array([2.0, 1.0, 0.4, 0.3, 0.4, 2.0])
    assert weights(lrs) == pytest.approx([1, 1, 0.75, 0.5, 0.75, 1], abs=1e-6)
    assert float(sensitivity(lrs, m, 2.0)) == pytest.approx(0.85, abs=1e-6)
    drawn = np.array([m, m, np.where(lrs == 1e-2, NAN, m)])
    lacking = np.delete(lrs, 2), np.delete(m, 2)
    assert sensitivity(lrs, drawn, np.full(3, 2.0)) == pytest.approx([0.85, 0.85, float(sensitivity(*lacking, 2.0))])


@pytest.mark.parametrize("lrs", [np.array(planted_tables.HALF_DECADES), PAPER, DECADES])
def test_on_an_even_grid_s_is_the_plain_mean_to_the_bit(lrs: np.ndarray) -> None:
    m = np.random.default_rng(len(lrs)).uniform(0, 3, size=len(lrs))
    clamped = np.minimum(m, 2.0)
    assert float(sensitivity(lrs, m, 2.0)) == (clamped - clamped.min()).sum() / len(lrs)
    assert weighted_median(m, weights(lrs)) == float(np.median(m))
    assert expected_best(m, 1, weights(lrs)) == near(float(m.mean()))


def test_median_over_an_uneven_grid() -> None:
    values, doubled = np.array([1.0, 2.0, 3.0, INF]), np.array([1.0, 2.0, 3.0, 3.0, INF, INF])
    assert weighted_median(values, np.array([1.0, 1.0, 2.0, 2.0])) == float(medians(doubled))
    assert weighted_median(values, np.array([1.0, 1.0, 1.0, 4.0])) == INF
    assert weighted_median(np.array([5.0, 1.0, NAN]), np.array([1.0, 3.0, 9.0])) == 1
    assert math.isnan(weighted_median(np.array([NAN]), np.ones(1)))


@given(st.floats(-4.0, -2.0), st.floats(0.05, 0.25), st.floats(2.0, 4.0))
@settings(deadline=None, max_examples=25)
def test_adding_the_rates_of_refine_refines_s_and_does_not_move_it(place: float, depth: float, power: float) -> None:
    """Smooth valleys with flat sides; the plain mean moved by up to a fifth, which reversed rankings."""

    def look(lrs: list[float]) -> Any:
        m = 2.0 - 1.5 * np.exp(-depth * np.abs(np.log10(lrs) - place) ** power)
        rows = planted_tables.table("adam", lrs, m[:, None] + np.array([0, 1e-3, -1e-3]))
        return analyse(planted_tables.frame(rows), None, planted_tables.spec("adam"), {})

    lrs = list(planted_tables.HALF_DECADES)
    before = look(lrs)
    (row,) = before.rows
    inside = [lr for lr in lrs if row.good_range.low / 4 < lr < row.good_range.high * 4]
    middles = [float(f"{math.sqrt(low * high):.6g}") for low, high in itertools.pairwise(inside)]
    (after,) = look(sorted({*lrs, *middles})).rows
    for read in (lambda one: one.sensitivity.whole.value, lambda one: one.sensitivity.norm.value):
        assert read(after) == pytest.approx(read(row), rel=0.05)
    assert after.expected_best[0] == pytest.approx(row.expected_best[0], rel=0.05)


@pytest.mark.parametrize(("best", "moved"), [(0.3, False), (0.1, True)])
def test_rates_that_refine_added_beyond_the_grid_are_not_part_of_s(best: float, moved: bool) -> None:
    """Unless the best rate is one of them: S over rates that are all far from it says nothing."""
    asked = DECADES[:4].tolist()

    def look(m: list[float]) -> Any:
        rows = planted_tables.table(
            "adam", DECADES[: len(m)].tolist(), np.array(m)[:, None] + np.array([0, 1e-3, -1e-3])
        )
        return analyse(planted_tables.frame(rows), None, planted_tables.spec("adam", rates=asked), {}).rows[0]

    before, after = look([1.8, 1.0, 0.3, 0.2]), look([1.8, 1.0, 0.3, 0.2, best, 1.9])
    assert before.sensitivity.whole.value == pytest.approx(0.625)
    if moved:
        assert after.sensitivity.whole.value == pytest.approx((1.7 + 0.9 + 0.2 + 0.1 + 0 + 1.8) / 6)
        assert after.sensitivity.range_high == DECADES[5]
    else:
        for part in ("whole", "norm", "range_low", "range_high"):
            assert getattr(after.sensitivity, part) == getattr(before.sensitivity, part)
        assert (after.expected_best, after.median_objective) == (before.expected_best, before.median_objective)


# ---------------------------------------------------------------------- good range


@pytest.mark.parametrize("c", SHIFTS)
@pytest.mark.parametrize(
    ("m", "low", "high", "decades", "sides"),
    [
        ([2.3, 2.0, 1.0, 0.5, 0.6, INF], 6.606934e-3, 7.943282e-2, 1.08, (False, False)),
        ([2.3, 2.0, 1.0, 0.5, 0.55, INF], 6.606934e-3, 0.1, 1.18, (False, False)),
        ([2.3, 2.0, 1.0, 0.5, 0.55], 6.606934e-3, 0.1, 1.18, (False, True)),
    ],
)
def test_basin_edges(
    m: list[float], low: float, high: float, decades: float, sides: tuple[bool, bool], c: float
) -> None:
    found = good_range(DECADES[: len(m)], np.array(m) + c, 2.3 + c)
    assert (found.low, found.high) == (rounded(low), rounded(high))
    assert found.decades == near(decades)
    assert (found.censored_low, found.censored_high) == sides


def test_recommended_is_the_rate_nearest_to_the_middle_of_the_basin() -> None:
    clean = np.isfinite(np.array([2.3, 2.0, 1.0, 0.5, 0.6, INF]))
    found = good_range(DECADES, np.array([2.3, 2.0, 1.0, 0.5, 0.6, INF]), 2.3)
    assert recommended(found, DECADES, clean, 1e-2)[0] == 1e-2
    m = np.array([1.0, 0.6, 0.5, 0.49, 0.48, 0.47, 0.5, 2.0, INF])
    wide = good_range(HALVES, m, 2.0)
    assert (wide.low, wide.high, wide.decades) == (rounded(5.854639e-4), rounded(0.1036335), near(2.248))
    assert math.sqrt(wide.low * wide.high) == pytest.approx(7.79e-3, rel=1e-3)
    assert recommended(wide, HALVES, np.isfinite(m), float(HALVES[5]))[0] == near(1e-2)


def test_recommended_shuns_rates_where_a_seed_diverged_and_prefers_the_smaller_on_a_tie() -> None:
    m = np.array([2.0, 0.5, 0.5, 2.0])
    found = good_range(DECADES[:4], m, 2.0)
    assert recommended(found, DECADES[:4], np.ones(4, dtype=bool), 1e-4)[0] == 1e-4
    assert recommended(found, DECADES[:4], np.array([True, False, True, True]), 1e-4)[0] == 1e-3
    outside = np.array([True, False, False, True])
    assert recommended(found, DECADES[:4], outside, 1e-4)[0] == 1e-4


def test_a_censored_basin_recommends_the_best_rate() -> None:
    found = good_range(DECADES[:5], np.array([2.3, 2.0, 1.0, 0.55, 0.5]), 2.3)
    lr, why = recommended(found, DECADES[:5], np.ones(5, dtype=bool), 0.1)
    assert lr == 0.1
    assert why == "edge"


@pytest.mark.parametrize("m", [[3.0, 2.0, 2.5], [INF, INF, INF], [NAN, NAN, NAN]])
def test_no_basin_where_nothing_trained(m: list[float]) -> None:
    found = good_range(DECADES[:3], np.array(m), 2.0)
    assert (found.rates, found.censored) == ((), False)
    assert math.isnan(found.low)
    assert math.isnan(found.decades)
    lr, why = recommended(found, DECADES[:3], np.ones(3, dtype=bool), 1e-4)
    assert math.isnan(lr)
    assert why == "nothing"


def test_a_second_valley_is_not_part_of_the_basin() -> None:
    found = good_range(DECADES, np.array([2.0, 0.51, 1.5, 0.5, 1.5, 0.5]), 2.0)
    assert found.rates == (1e-2,)


def test_one_outlier_does_not_end_the_good_range() -> None:
    """One noisy point of 60 rates cut a good range from 1.2 to 0.3 decades."""
    lrs = 10 ** np.linspace(-3, -1, 9)
    m = np.array([2.0, 0.55, 0.5, 0.52, 0.7, 0.53, 0.52, 0.9, 2.0])
    found = good_range(lrs, m, 2.0)
    assert found.rates == tuple(lrs[1:7].tolist())
    assert good_range(lrs, m, 2.0, clean=np.arange(9) != 4).rates == tuple(lrs[1:4].tolist()), "a seed diverged there"
    assert good_range(lrs, np.where(m == 0.7, 1.3, m), 2.0).rates == tuple(lrs[1:4].tolist()), (
        "half of the gain is lost"
    )
    assert good_range(lrs, np.where(m == 0.53, 0.71, m), 2.0).rates == tuple(lrs[1:4].tolist()), "two are no outlier"
    assert good_range(lrs, np.where(m == 0.7, INF, m), 2.0).rates == tuple(lrs[1:4].tolist())


def test_the_widths_of_many_draws_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(5)
    m = rng.uniform(0.4, 1.0, size=(200, 8))
    m[:, [0, 7]] = 3.0
    m[rng.random(m.shape) < 0.1] = INF
    m[rng.random(m.shape) < 0.05] = NAN
    l0 = rng.choice([0.3, 2.0, 8.0, NAN], size=200)
    lrs, clean = HALVES[:8], np.arange(8) != 3
    alone = [good_range(lrs, row, float(start), clean=clean).decades for row, start in zip(m, l0, strict=True)]
    assert widths(lrs, m, l0, clean) == pytest.approx(alone, nan_ok=True)


def test_no_rate_is_recommended_at_which_a_seed_lost_half_of_the_gain() -> None:
    values = [[2.0] * 3, [0.55, 0.5, 0.6], [0.5, 0.5, 1.9], [0.55, 0.5, 0.52], [2.0] * 3]
    runs = planted_tables.frame(planted_tables.table("adam", DECADES[:5].tolist(), values))
    (row,) = analyse(runs, None, planted_tables.spec("adam"), {}).rows
    assert row.good_range.rates == (1e-4, 1e-3, 1e-2)
    assert (row.recommended_lr, row.recommended_by) == (1e-2, "centre")
    (alone,) = analyse(runs[runs["lr"] != 1e-2], None, planted_tables.spec("adam"), {}).rows
    assert alone.recommended_lr == 1e-4


def test_the_recommended_rate_keeps_a_factor_of_two_below_the_first_unusable_one() -> None:
    lrs = np.array([1e-3, 1e-2, 1.5e-2, 2e-2, 3e-2])
    m = np.array([0.9, 0.5, 0.5, 0.5, INF])
    found = good_range(lrs, m, 2.0)
    assert recommended(found, lrs, np.isfinite(m), 1e-2, 3e-2)[0] == 1e-2
    near_cliff = found.rates[1:]
    clean = np.isin(lrs, near_cliff[1:])
    assert recommended(found, lrs, clean, 1e-2, 3e-2)[0] == 2e-2, "where the good range holds none, the nearest"


def test_an_immaterial_gain_is_no_training() -> None:
    spec = planted_tables.spec("adam")
    spec.train.dtype = "float32"
    rates = DECADES[:3].tolist()

    def look(best: float, noise: float = 0.0) -> Any:
        runs = planted_tables.frame(planted_tables.table("adam", rates, [[2.0], [best], [2.1]]))
        rows = planted_tables.curves(runs, lambda lr, t: t)
        jitter = np.where(np.arange(len(rows)) % 2, noise, -noise)
        rows["val_loss"] += np.where(rows["step"] > 0, jitter, 0)
        return analyse(runs, rows, spec, {}).rows[0]

    assert not look(2.0 - 2e-5).trained, "100 eps of 2.0 are 2.4e-5"
    assert look(2.0 - 3e-5).trained
    spec.train.dtype = "float64"
    assert look(2.0 - 2e-5).trained
    assert not look(1.5, noise=0.5).trained, "the evaluations jump by more than what is gained"
    assert look(1.5, noise=0.01).trained


def test_a_difference_of_one_ulp_is_not_worse_than_untrained() -> None:
    up = [float(np.nextafter(2.0, 3.0))] * 3
    runs = planted_tables.frame(
        planted_tables.table("adam", DECADES[:4].tolist(), [up, [2.0] * 3, [0.5] * 3, [3.0] * 3])
    )
    (row,) = analyse(runs, None, planted_tables.spec("adam"), {}).rows
    assert [point.n_worse for point in row.rates] == [0, 0, 0, 3]


# ---------------------------------------------------------------------- margins and defaults


def test_margins_to_the_cliff() -> None:
    m = np.array([2.0, 1.0, 0.5, 0.6, INF, INF])
    gone, alive = np.array([0, 0, 0, 1, 2, 3]), np.full(6, 3)
    clean = np.array([False, False, True, False, False, False])
    found = margins(DECADES, m, (gone, alive), 2, unusable_rate(m, 2.0, 2), clean)
    assert (found.diverges_from, found.unusable_from) == (1e-1, 1e-1)
    assert (found.margin, found.censored) == (near(2.0), False)
    assert found.largest_safe_lr == 1e-3
    assert found.bengio_factor == near(10.0)


def test_a_rate_that_ends_finite_and_bad_is_unusable_though_nothing_diverged() -> None:
    """rmsprop that ends at 49,285 was "0 diverged, margin >= 3 decades"."""
    cost = np.array([[2.0, 2.0], [1.0, 1.1], [0.5, 0.5], [0.6, 0.7], [0.5, 2.0], [49285.0, 5e4]])
    m, none = medians(cost), np.zeros(cost.shape, dtype=bool)
    clean = usable(cost, none, m, 2.0, 2)
    assert clean.tolist() == [False, True, True, True, False, False], "half of the gain is lost from 1.25 up"
    found = margins(DECADES, m, (none.sum(axis=1), np.full(6, 2)), 2, unusable_rate(m, 2.0, 2), clean)
    assert math.isnan(found.diverges_from)
    assert (found.unusable_from, found.margin, found.censored) == (0.1, near(2.0), False)
    assert found.largest_safe_lr == 1e-2, "at 0.1 one seed is lost, and the median is 1.25"


def test_margins_without_a_cliff_are_censored() -> None:
    m = np.array([2.0, 1.0, 0.5, 0.6, 0.7, 1.2])
    none = np.zeros(6, dtype=np.intp)
    found = margins(DECADES, m, (none, none + 3), 2, unusable_rate(m, 2.0, 2), m < 1.25)
    assert math.isnan(found.diverges_from)
    assert math.isnan(found.unusable_from)
    assert (found.margin, found.censored, found.largest_safe_lr) == (near(3.0), True, 1.0)


def test_margins_are_unknown_where_nothing_trained() -> None:
    none = np.zeros(3, dtype=np.intp)
    found = margins(DECADES[:3], np.array([2.0, 2.1, 2.2]), (none, none + 3), 0)
    assert math.isnan(found.margin)
    assert not found.censored
    assert math.isnan(found.largest_safe_lr)


def test_divergence_below_the_best_rate_is_no_cliff() -> None:
    m = np.array([INF, 1.0, 0.5, INF])
    found = margins(DECADES[:4], m, (np.array([3, 0, 0, 2]), np.array([3, 3, 3, 4])), 2)
    assert found.diverges_from == 1e-2


def test_default_regret() -> None:
    m = np.array([2.0, 1.0, 0.5, 0.9, INF])
    assert at_default(DECADES[:5], m, 1e-2, 2, "min").regret == near(0.4)
    assert at_default(DECADES[:5], m, 0.1, 2, "min").regret == INF
    between = at_default(DECADES[:5], m, 10**-2.75, 2, "min")
    assert (between.regret, between.interpolated) == (near(0.1), True)
    assert math.isnan(at_default(DECADES[:5], m, 1.0, 2, "min").regret)
    assert math.isnan(at_default(DECADES[:5], m, 0.05, 2, "min").regret)
    assert math.isnan(at_default(DECADES[:5], m, NAN, 2, "min").regret)


def test_nadam_default_between_two_rates() -> None:
    value, interpolated = read_at(np.array([1e-3, 1e-2]), np.array([1.0, 2.0]), 2e-3)
    assert (value, interpolated) == (near(1 + math.log10(2)), True)


# ---------------------------------------------------------------------- seeds


def test_tied_examples() -> None:
    tied = paired(np.array([0.02, 0.05, -0.01]))
    assert tied.low == pytest.approx(-0.0545, abs=5e-5)
    assert is_tied(np.array([0.02, 0.05, -0.01]))
    apart = paired(np.array([0.30, 0.34, 0.28]))
    assert apart.low == pytest.approx(0.2308, abs=5e-5)
    assert not is_tied(np.array([0.30, 0.34, 0.28]))


def test_tied_set() -> None:
    cost = np.array([[1.0, 2.0, 3.0], [1.02, 2.05, 2.99], [1.3, 2.34, 3.28], [0.9, 2.1, INF], [NAN, 2.1, 3.1]])
    assert tied_rates(cost, 0).tolist() == [True, True, False, False, False]
    assert tied_rates(cost[:, :1], 0).tolist() == [True, False, False, False, False]
    assert tied_rates(cost, None).tolist() == [False] * 5


@pytest.mark.parametrize("c", SHIFTS)
def test_a_rate_that_blew_up_is_not_tied_however_wide_its_spread(c: float) -> None:
    """Losses of 3 to 90000 have a t interval that reaches below any best loss; clamped at l0 they have not."""
    cost = np.array([[0.08, 0.09, 0.10], [3.0, 49290.0, 90000.0], [0.5, 49290.0, 2.31], [0.07, 0.11, 9e4]]) + c
    assert is_tied(cost[1] - cost[0])
    assert tied_rates(cost, 0, 2.3 + c).tolist() == [True, False, False, True]
    assert tied_rates(cost[:2], 0).tolist() == [True, True], "without l0 there is nothing to clamp at"


def test_one_seed_that_blew_up_does_not_tie_a_rate_that_every_seed_finds_worse() -> None:
    cost = np.array([[0.08, 0.09, 0.10, 0.09, 0.08], [0.9, 1.0, 1.1, 2.0, 49290.0]])
    assert is_tied(cost[1] - cost[0])
    assert tied_rates(cost, 0, 2.3).tolist() == [True, False]


def test_a_rate_that_is_not_better_than_untrained_is_never_tied() -> None:
    cost = np.array([[2.29, 2.0, 2.2], [2.3, 2.4, 2.2]])
    assert is_tied(np.minimum(cost[1], 2.3) - cost[0])
    assert tied_rates(cost, 0, 2.3).tolist() == [True, False]


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 9, 10, 29, 30, 120])
def test_t_quantile_against_scipy(df: int) -> None:
    assert t_quantile(df) == pytest.approx(oracle.t.ppf(0.975, df), rel=1e-10)  # scipy before 1.17 has no more digits


def test_rates_and_losses_near_the_largest_numbers_are_counted_without_a_warning() -> None:
    assert read_at(np.array([1e-3, 1e308]), np.array([1.0, 2.0]), 1e-3) == (1.0, False)
    small, large = paired(np.array([1.0, 2.0, 4.0])), paired(np.array([1e300, 2e300, 4e300]))
    for moment in ("value", "low", "high"):
        assert getattr(large, moment) == pytest.approx(1e300 * getattr(small, moment), rel=1e-12)


def test_paired_interval_against_scipy() -> None:
    d = np.random.default_rng(0).normal(size=7)
    low, high = oracle.t.interval(0.95, 6, loc=d.mean(), scale=oracle.sem(d))
    assert (paired(d).low, paired(d).high) == (near(low), near(high))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_bootstrap_enumerates_every_ordered_draw(n: int) -> None:
    rng = np.random.default_rng(n)
    cost = rng.normal(size=(4, n))
    cost[0, 0], cost[1, -1], cost[2] = INF, NAN, NAN
    counts = resamples(n)[1]
    assert counts.sum() == n**n
    drawn = resampled_medians(cost)
    for rate in range(4):
        every = [medians(cost[rate, list(draw)]) for draw in itertools.product(range(n), repeat=n)]
        assert np.array_equal(np.sort(np.repeat(drawn[:, rate], counts)), np.sort(every), equal_nan=True)


def test_many_seeds_use_the_same_ten_thousand_draws_each_time() -> None:
    cost = np.random.default_rng(0).normal(size=(1, 9))
    drawn = resampled_medians(cost)
    assert drawn.shape == (10_000, 1)
    resamples.cache_clear()
    assert np.array_equal(drawn, resampled_medians(cost))


@pytest.mark.parametrize("draws", [30, 2000])
def test_medians_of_draws_are_those_of_the_seeds_drawn(draws: int) -> None:
    rng = np.random.default_rng(1)
    cost = rng.normal(size=(5, 9))
    cost[0, :2], cost[1, 3], cost[2], cost[3] = NAN, INF, NAN, np.round(cost[3])
    counts, weight = resamples(9, draws)
    assert (counts.shape, weight.sum()) == ((9, draws), draws)
    wanted = [[medians(np.repeat(row, drawn)) for row in cost] for drawn in counts.T]
    assert np.array_equal(resampled_medians(cost, draws), wanted, equal_nan=True)


def test_medians_of_draws_of_very_many_seeds() -> None:
    cost = np.random.default_rng(1).normal(size=(1, 33_000))
    wanted = [[medians(np.repeat(cost[0], drawn))] for drawn in resamples(33_000, 5)[0].T]
    assert resampled_medians(cost, 5).tolist() == wanted


def test_many_settings_are_analysed_by_several_processes_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("lrsweep.analysis.analyse")
    axes = {"train.batch_size": [16, 64], "task.n": [100, 200]}
    labels, rates = ("sgd", "adam", "rmsprop"), [1e-4, 1e-3, 1e-2, 1e-1]
    runs, curves = fabricate.frames(labels, rates, 3, rows=8, axes=axes, failed=(0, 17, 40))
    alone = fabricate.facts_of(runs, curves, labels, rows=8, axes=axes)
    made: list[int] = []

    def each(calls: list[Any], processes: int) -> list[Any]:
        made.append(len(calls))
        assert processes == 2
        return in_processes(calls, processes)

    with monkeypatch.context() as patched:
        patched.setattr(module, "LEAST_SHARED", 12)
        patched.setattr(module, "available_cores", lambda: 2)
        patched.setattr(module, "in_processes", each)
        assert repr(fabricate.facts_of(runs, curves, labels, rows=8, axes=axes)) == repr(alone)
    assert made == [4, 12]  # places; optimizers along each axis at each value of the other
    rows = [(row.optimizer, row.axes) for row in alone.rows]
    assert [label for label, _ in rows] == [label for label in labels for _ in range(4)]
    by_budget = [(drift.optimizer, drift.fixed) for drift in alone.drifts if drift.from_rows]
    assert len(by_budget) > 2
    assert by_budget == [row for row in rows if row in by_budget]
    against = [(gain.optimizer, gain.axes) for gain in alone.against_adam]
    assert against == [row for row in rows if row in against]
    assert len(alone.against_adam) == len(alone.ratios) == 8
    assert {drift.against for drift in alone.drifts} == {"budget", *axes}


@pytest.mark.parametrize(
    ("settings", "draws"), [(1, 10_000), (500, 10_000), (1000, 5_000), (4000, 1250), (10**6, 1000)]
)
def test_sweeps_of_many_settings_take_fewer_draws_for_each(settings: int, draws: int) -> None:
    assert draws_for(settings) == draws


def test_percentiles_against_numpy() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=27))
    assert [percentile(values, q) for q in (2.5, 50, 97.5)] == pytest.approx(np.percentile(values, [2.5, 50, 97.5]))
    counts = np.arange(1, 28)
    assert interval(values, counts) == pytest.approx(np.percentile(np.repeat(values, counts), [2.5, 97.5]))
    assert percentile(np.array([1.0, INF]), 2.5) == INF
    assert math.isnan(percentile(np.array([]), 2.5))


@given(st.lists(st.floats(-1e6, 1e6) | st.just(INF) | st.just(NAN), min_size=1, max_size=9))
@settings(deadline=None)
def test_medians_leave_failed_runs_out_and_count_diverged_ones(values: list[float]) -> None:
    known = [value for value in values if not math.isnan(value)]
    found = float(medians(np.array(values)))
    if not known:
        assert math.isnan(found)
    elif sum(map(math.isinf, known)) * 2 >= len(known):
        assert found == INF
    else:
        assert found == pytest.approx(float(np.median(known)))


# ---------------------------------------------------------------------- tries, profile and drift


@pytest.mark.parametrize(("k", "expected"), [(1, 1.28), (2, 0.88), (3, 0.704), (5, 0.574208)])
def test_expected_best_of_k_tries(k: int, expected: float) -> None:
    values = np.array([2.3, 0.5, 2.0, 0.6, 1.0])
    assert expected_best(values, k, np.ones(5)) == near(expected)


def test_expected_best_against_all_draws() -> None:
    values = np.array([0.5, 0.5, 1.0, 3.0])
    brute = np.mean([min(draw) for draw in itertools.product(values, repeat=3)])
    assert expected_best(values, 3, np.ones(4)) == near(float(brute))


def test_profile_is_a_share_of_the_whole_grid() -> None:
    assert profile(np.array([10.0, 20.0, INF, 10.0, NAN])) == ((1.0, 0.5), (2.0, 0.75))
    assert profile(np.array([INF, INF])) == ()
    assert profile(np.array([0.0, 10.0])) == ((1.0, 0.5),)


def test_drift_slope() -> None:
    assert float(slope(np.array([100.0, 1000.0, 10_000.0]), np.array([0.1, 0.0316228, 0.01]))) == pytest.approx(-0.5)
    assert float(slope(np.array([3.0, 6.0, 12.0, 18.0]), np.full(4, 0.1))) == 0


@pytest.mark.parametrize("place", [-1.3, -2.0, -1.51])
@pytest.mark.parametrize("rates", [[1e-3, 1e-2, 1e-1, 1.0], [1e-3, 2e-2, 7e-2, 1.0]])
def test_parabola_finds_the_bottom_of_a_parabola(rates: list[float], place: float) -> None:
    lrs = np.array(rates)
    assert float(refined(lrs, 3 * (np.log10(lrs) - place) ** 2 - 7)) == pytest.approx(10**place)


def test_parabola_keeps_to_the_grid_without_finite_neighbours() -> None:
    lrs = DECADES[:4]
    rows = [[3.0, 2.0, 1.0, INF], [1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 2.0, 1.0], [INF] * 4, [2.0, 1.0, NAN, 3.0]]
    drawn = np.array(rows)
    assert refined(lrs, drawn) == pytest.approx([1e-3, 1e-5, 1e-2, NAN, 1e-4], nan_ok=True)


def test_gain_where_one_side_diverged_has_no_interval() -> None:
    found = paired_gain(np.array([1.0, INF, INF]), np.array([1.0, 0.5, 0.7]))
    assert found.value == INF
    assert verdict(found) == "better"
    assert verdict(paired_gain(np.array([1.0]), np.array([0.5]))) == "unknown"
    assert verdict(paired_gain(np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.51, 2.49]))) == "better"
    assert verdict(paired_gain(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.51, 3.49]))) == "worse"
    assert verdict(paired_gain(np.array([1.0, 2.0, 3.0]), np.array([1.5, 1.51, 3.0]))) == "tied"


# ---------------------------------------------------------------------- random tables

LOSSES = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([NAN, INF, -INF, -1e30, 1e30, 0.0, 2.0]), st.none())


@st.composite
def sweeps(draw: Any) -> pd.DataFrame:
    rates = draw(st.integers(1, 6))
    seeds = draw(st.integers(1, 4))
    start = draw(st.lists(st.floats(-1e6, 1e6) | st.sampled_from([NAN, INF]), min_size=seeds, max_size=seeds))
    tables = []
    for label in ("adam", "sgd"):
        values = [[draw(LOSSES) for _ in range(seeds)] for _ in range(rates)]
        tables.append(planted_tables.table(label, DECADES[:rates].tolist(), values, start))
    frame = planted_tables.frame(*tables)
    lost = (frame["status"] == "ok") & draw(st.booleans())
    frame.loc[lost & (frame["seed"] == 1), "status"] = "diverged"  # diverged with a finite, even a fine last loss
    return frame


@given(sweeps(), st.sampled_from(["min", "max"]))
@settings(max_examples=60, deadline=None)
def test_no_bad_run_is_ever_good(runs: pd.DataFrame, mode: str) -> None:
    facts = analyse(runs, None, planted_tables.spec("adam", "sgd", mode=mode), {"adam": 1e-3, "sgd": 3e-3})
    for row in facts.rows:
        fine = runs[(runs["optimizer"] == row.optimizer) & (runs["status"] == "ok")]
        fine = fine[np.isfinite(fine["objective"])]
        if math.isnan(row.best_lr.value):
            assert math.isnan(row.best_objective)
            assert not row.trained
        else:
            at_best = fine[fine["lr"] == row.best_lr.value]["objective"]
            assert at_best.min() <= row.best_objective <= at_best.max()
        if row.trained:
            sign = 1 if mode == "min" else -1
            assert sign * row.best_objective < sign * row.initial_objective
            assert row.good_range.low <= row.best_lr.value * (1 + 1e-12)
            assert row.good_range.high >= row.best_lr.value * (1 - 1e-12)
            assert row.recommended_lr in row.good_range.rates
            assert not row.margins.unusable_from <= row.best_lr.value
            assert not row.margins.largest_safe_lr >= row.margins.unusable_from
            if sum(point.n_runs > point.n_failed for point in row.rates) > 1:
                assert 0 <= row.sensitivity.norm.value <= 1 + 1e-12
            else:  # one rate is not sensitive to anything
                assert math.isnan(row.sensitivity.whole.value)
        assert not row.sensitivity.whole.value < 0
        assert not row.default.regret < 0
        assert row.best_lr.value in row.tied_lrs or not row.tied_lrs
        assert not row.margins.diverges_from <= row.best_lr.value
    summary_frame(facts)


@given(sweeps(), st.integers(-8, 8), st.integers(-4096, 4096))
@settings(max_examples=40, deadline=None)
def test_answers_do_not_depend_on_the_zero_and_the_unit_of_the_loss(runs: pd.DataFrame, power: int, shift: int) -> None:
    """Numbers on a grid of 1/64 and a a power of two, so that a*y + c is exact."""
    losses = ["objective", "initial_val_loss"]
    exact = runs.copy()
    for column in losses:
        exact[column] = np.round(exact[column].clip(-4096, 4096) * 64) / 64
    moved = exact.copy()
    for column in losses:
        moved[column] = exact[column] * 2.0**power + shift
    spec = planted_tables.spec("adam", "sgd")
    one, other = (summary_frame(analyse(frame, None, spec, {"adam": 1e-3, "sgd": 3e-3})) for frame in (exact, moved))
    assume(not one["rates_too_small"].any())
    same = ["best_lr", "recommended_lr", "at_edge", "edge_side", "diverges_from", "largest_safe_lr", "n_tied",
            "unusable_from", "trained", "margin_decades", "bengio_factor", "best_lr_low", "best_lr_high"]  # fmt: skip
    pd.testing.assert_frame_equal(one[same], other[same])
    close = ["basin_low", "basin_high", "basin_decades", "sensitivity_norm"]
    pd.testing.assert_frame_equal(one[close], other[close], rtol=1e-9, atol=1e-9)
    scaled = ["sensitivity", "sensitivity_low", "sensitivity_high", "default_regret"]
    pd.testing.assert_frame_equal(one[scaled] * 2.0**power, other[scaled], rtol=1e-9, atol=1e-9)


@given(sweeps())
@settings(max_examples=15, deadline=None)
def test_order_of_the_rows_does_not_matter(runs: pd.DataFrame) -> None:
    spec = planted_tables.spec("adam", "sgd")
    one = analyse(runs, None, spec, {"adam": 1e-3})
    other = analyse(runs.sample(frac=1, random_state=0), None, spec, {"adam": 1e-3})
    assert repr(one) == repr(other)


# ---------------------------------------------------------------------- shape


def two() -> pd.DataFrame:
    values = planted_tables.valley(planted_tables.HALF_DECADES, 1e-2)[:, None] + np.array([0, 0.1, -0.1])
    return planted_tables.frame(
        *(planted_tables.table(label, planted_tables.HALF_DECADES, values) for label in ("adam", "sgd"))
    )


def test_summary_starts_with_the_columns_people_look_for() -> None:
    runs = planted_tables.frame(
        *(planted_tables.table("adam", [0.1, 0.2], [[1.0], [0.5]], **{"train.batch_size": size}) for size in (16, 64))
    )
    facts = analyse(runs, None, planted_tables.spec("adam", axes={"train.batch_size": [16, 64]}), {})
    frame = summary_frame(facts)
    assert list(frame.columns[:18]) == [
        "optimizer", "train.batch_size", "best_lr", "best_objective", "at_edge", "recommended_lr", "basin_low",
        "basin_high", "basin_decades", "sensitivity", "sensitivity_low", "sensitivity_high", "diverges_from",
        "default_lr", "default_regret", "n_runs", "n_diverged", "n_failed",
    ]  # fmt: skip
    assert frame["train.batch_size"].tolist() == ["16", "64"]
    assert frame["at_edge"].tolist() == [True, True]


def test_rows_follow_the_order_of_the_spec() -> None:
    facts = analyse(two().iloc[::-1], None, planted_tables.spec("adam", "sgd"), {})
    assert [row.optimizer for row in facts.rows] == ["adam", "sgd"]


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_curves_may_come_in_pieces(cut: int) -> None:
    runs = two()
    whole = planted_tables.curves(runs, lambda lr, t: t)
    pieces = (whole.iloc[at : at + cut] for at in range(0, min(len(whole), 80 * cut), cut))
    seen = whole.iloc[: 80 * cut]
    spec = planted_tables.spec("adam", "sgd")
    assert repr(analyse(runs, pieces, spec, {})) == repr(analyse(runs, seen, spec, {}))


def test_another_objective_is_read_off_the_curves() -> None:
    runs = two()
    curves = planted_tables.curves(runs, lambda lr, t: t)
    curves["val_accuracy"] = 1 / (1 + curves["val_loss"])
    facts = analyse(runs, curves, planted_tables.spec("adam", "sgd"), {}, metric="val_accuracy", at="best")
    assert (facts.metric, facts.at, facts.mode) == ("val_accuracy", "best", "max")
    assert facts.row("adam").best_lr.value == 1e-2
    assert facts.row("adam").best_objective == pytest.approx(1 / 1.5)
    assert facts.row("adam").initial_objective == pytest.approx(1 / 3)


def test_an_empty_sweep_has_no_rows() -> None:
    runs = two().iloc[:0]
    facts = analyse(runs, None, planted_tables.spec("adam", "sgd"), {})
    assert facts.rows == ()
    assert not facts.trained
    assert summary_frame(facts).empty
    assert "No run" in planted_tables.opening(facts)


def test_facts_are_frozen() -> None:
    facts = analyse(two(), None, planted_tables.spec("adam", "sgd"), {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        facts.name = "other"  # type: ignore[misc]
    assert json.dumps(dataclasses.asdict(facts))
