"""The labels of training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsweep.analysis.diagnosis import Curve, Label, diagnose, label_of, level, noise

K = np.arange(21)
FALL = 0.1 + 2 * np.exp(-K / 2)
FORMS = [(1.0, 0.0), (1.0, -50.0), (3.0, -100.0)]
"""(a, c) of a*y + c."""

CURVES = {
    "converged": FALL,
    "improving": 2.1 - 0.08 * K,
    "oscillating": np.r_[2.1, 0.5 + 0.3 * (-1.0) ** K[1:]],
    "stuck": np.r_[2.1, 1.5, np.full(19, 1.4)],
    "worse_than_start": np.r_[2.1, np.full(20, 2.6)],
    "recovered_spike": np.r_[2.1, 1, 5, 3, FALL[4:]],
}


def labelled(y: np.ndarray, a: float, c: float, *, above: bool = False) -> Label:
    return label_of(a * y + c, reach=2 * a, typical_reach=2 * a, above_best=above)


@pytest.mark.parametrize(("a", "c"), FORMS)
@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("expected", CURVES)
def test_label_of_each_shape(expected: str, above: bool, a: float, c: float) -> None:
    assert labelled(CURVES[expected], a, c, above=above) == expected


@pytest.mark.parametrize(("a", "c"), FORMS)
@pytest.mark.parametrize("y", [2.1 - 0.002 * K, np.full(21, 2.1)], ids=["crawling", "constant"])
def test_no_change_is_too_slow_below_the_best_rate_and_stuck_above(y: np.ndarray, a: float, c: float) -> None:
    assert labelled(y, a, c) == "too_slow"
    assert labelled(y, a, c, above=True) == "stuck"


@pytest.mark.parametrize(("a", "c"), FORMS)
def test_half_way_and_still_falling_depends_on_the_side_of_the_best_rate(a: float, c: float) -> None:
    y = 2.1 - 0.03 * K
    assert labelled(y, a, c) == "too_slow"
    assert labelled(y, a, c, above=True) == "improving"


def test_a_huge_flat_loss_is_worse_than_start() -> None:
    assert labelled(np.r_[2.1, np.full(20, 1e10)], 1.0, 0.0) == "worse_than_start"


def test_one_awful_start_does_not_hide_the_others() -> None:
    """A seed that starts at 1e6 falls by 1e6; against the seeds' median reach its slow end is still seen."""
    awful = np.r_[1e6, 2.1 - 0.08 * K[1:]]
    assert label_of(awful, reach=1e6, typical_reach=2.0, above_best=False) == "improving"
    assert label_of(awful, reach=1e6, typical_reach=1e6, above_best=False) == "converged"


def test_progress_is_measured_by_what_the_same_seed_reached() -> None:
    """A third of the way for a seed that fell by 10 elsewhere, though the median seed fell by 2 in all."""
    y = np.r_[10.1, np.full(20, 7.1)]
    assert label_of(y, reach=10.0, typical_reach=2.0, above_best=False) == "stuck"
    assert label_of(y, reach=3.0, typical_reach=2.0, above_best=False) == "converged"


@pytest.mark.parametrize("n", range(8))
def test_fewer_than_eight_rows_get_no_label(n: int) -> None:
    assert label_of(FALL[: n + 1], reach=2, typical_reach=2, above_best=False) == ""


@pytest.mark.parametrize(("e", "expected"), [(2.5, "worse_than_start"), (2.1, "stuck"), (1.9, "stuck")])
def test_without_any_gain_to_compare_with(e: float, expected: str) -> None:
    assert label_of(np.r_[2.1, np.full(20, e)], reach=0.0, typical_reach=0.0, above_best=False) == expected


@pytest.mark.parametrize("eps", [2.0**-23, 2.0**-52])
@pytest.mark.parametrize("start", [2.3, -50.0])
def test_changes_within_rounding_are_none(start: float, eps: float) -> None:
    """Of runs at tiny rates that all fall, rise or jump by the last digits of a loss."""
    unit = eps * abs(start)
    for shape in (-K, K, 3.0 * (-1.0) ** K, np.r_[0.0, -5.0 * K[1:] ** 0]):
        y = start + unit * shape
        curves = group({lr: [y] * 3 for lr in (1e-9, 1e-8)})
        assert set(diagnose(curves, eps=eps)) == {"stuck"}
    large = start - 1000 * unit * K
    assert set(diagnose(group({1e-9: [large]}), eps=eps)) == {"improving"}
    assert diagnose(group({1e-9: [start - unit * K], 1.0: [start + np.minimum(K, 1.0)]}), eps=eps) == [
        "stuck",
        "worse_than_start",
    ]


def group(shapes: dict[float, Sequence[np.ndarray]], statuses: dict[float, str] | None = None) -> list[Curve]:
    return [
        Curve(lr=lr, seed=seed, status=(statuses or {}).get(lr, "ok"), train_loss=y.tolist())
        for lr, seeds in shapes.items()
        for seed, y in enumerate(seeds)
    ]


@pytest.mark.parametrize(("a", "c"), FORMS)
def test_diagnose_reads_a_whole_sweep(a: float, c: float) -> None:
    offsets = (0.0, 0.05, -0.05)
    shapes = {1e-4: 2.1 - 0.002 * K, 1e-3: 2.1 - 0.08 * K, 1e-2: FALL, 1e-1: CURVES["stuck"], 1.0: 2.1 * 1.1**K}
    curves = group({lr: [a * (y + off) + c for off in offsets] for lr, y in shapes.items()}, statuses={1.0: "diverged"})
    curves.append(Curve(lr=10.0, seed=0, status="failed", train_loss=[]))
    expected = ["too_slow", "improving", "converged", "stuck", "diverged"]
    assert diagnose(curves) == [label for label in expected for _ in offsets] + ["failed"]


def test_diagnose_survives_what_a_sweep_can_hold() -> None:
    curves = group({1e-3: [FALL[:1], np.array([]), np.r_[2.1, np.nan]], 1e-2: [np.full(21, 3.0)] * 3})
    assert diagnose(curves) == ["", "", "diverged", "stuck", "stuck", "stuck"]
    assert diagnose([]) == []


def test_diagnosis_of_a_run_does_not_depend_on_the_order_of_the_runs() -> None:
    curves = group({1e-3: [2.1 - 0.03 * K] * 2, 1e-2: [FALL] * 2, 1e-1: [2.1 - 0.03 * K] * 2})
    labels = diagnose(curves)
    assert diagnose(curves[::-1]) == labels[::-1]
    assert labels == ["too_slow"] * 2 + ["converged"] * 2 + ["improving"] * 2


@given(
    st.lists(st.integers(0, 4000), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(-1000, 1000),
)
@settings(max_examples=300, deadline=None)
def test_the_rules_see_differences_only(values: list[int], scale: int, shift: int) -> None:
    """On a grid of 1/1024, where arithmetic is exact, y and a*y + c (a a power of two) get the same answer."""
    y = np.array(values) / 1024
    z = y * 2.0**scale + shift
    one, other = (
        diagnose([Curve(lr=lr, seed=0, status="ok", train_loss=v[::order]) for lr, order in ((1.0, 1), (0.1, -1))])
        for v in (y.tolist(), z.tolist())
    )
    assert len(y) == 1 or one == other


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=25))
@settings(max_examples=300, deadline=None)
def test_any_series_gets_a_label(values: list[float]) -> None:
    finite = all(map(math.isfinite, values))
    (label,) = diagnose([Curve(lr=1.0, seed=0, status="ok", train_loss=values)])
    assert label in Label.__args__
    assert finite or label == "diverged"


def test_level_is_the_median_of_the_last_tenth() -> None:
    assert level(np.arange(21.0)) == 19.5
    assert level(np.array([3.0])) == 3.0


def test_noise_ignores_any_straight_line_and_measures_white_noise() -> None:
    assert noise(5 - 0.25 * K) == 0
    white = np.random.default_rng(0).normal(scale=0.3, size=20_000)
    assert noise(white + np.arange(20_000)) == pytest.approx(0.3, rel=0.03)


def test_long_tails_keep_their_slope() -> None:
    rows = np.arange(3001)
    y = 2.1 - 0.08 * rows / 150 + 0.01 * np.random.default_rng(0).normal(size=3001)
    y[0] = 2.1
    assert label_of(y, reach=2.0, typical_reach=2.0, above_best=False) == "improving"
