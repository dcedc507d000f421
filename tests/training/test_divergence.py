"""The rule that calls a run with finite losses diverged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsweep.training.divergence import finite_divergence
from tests.analysis.test_diagnosis import CURVES, FORMS, K


@pytest.mark.parametrize(("a", "c"), FORMS)
@pytest.mark.parametrize("y", [2.1 * 1.1**K, -5 * 1.05 ** -K.astype(float)], ids=["growing", "negative and rising"])
def test_a_loss_that_keeps_rising_diverges(y: np.ndarray, a: float, c: float) -> None:
    assert finite_divergence((10 * K).tolist(), (a * y + c).tolist()) == 10


@pytest.mark.parametrize(("a", "c"), FORMS)
@pytest.mark.parametrize("y", [*CURVES.values(), np.full(21, 2.1), 2.1 - 0.002 * K, np.r_[2.1, np.full(20, 1e10)]])
def test_everything_else_stays_ok(y: np.ndarray, a: float, c: float) -> None:
    assert finite_divergence(K.tolist(), (a * y + c).tolist()) is None


def test_step_is_that_of_the_first_row_that_stays_above_the_start() -> None:
    y = [2.0, 1.0, 3.0, 1.5, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    assert finite_divergence([7 * k for k in range(13)], y) == 28


def test_a_rise_within_the_noise_is_not_divergence() -> None:
    jitter = 3.0 * (-1.0) ** K[1:]
    y = np.r_[0.0, 10 + 0.5 * K[1:] + jitter]
    assert finite_divergence(K.tolist(), y.tolist()) is None
    assert finite_divergence(K.tolist(), np.r_[0.0, 10 + 0.5 * K[1:]].tolist()) == 1


def test_the_quarters_have_to_rise_one_after_the_other() -> None:
    dip = [0.0, *[1.0] * 5, *[3.0] * 5, *[2.5] * 5, *[5.0] * 5]
    assert finite_divergence(range(21), dip) is None
    assert finite_divergence(range(21), [0.0, *[1.0] * 5, *[3.0] * 5, *[3.5] * 5, *[5.0] * 5]) == 1


def test_rising_but_below_the_start_is_not_divergence() -> None:
    assert finite_divergence(K.tolist(), np.r_[5.0, 1 + 0.1 * K[1:]].tolist()) is None


@pytest.mark.parametrize(
    ("y", "step"),
    [
        ([1, 2, 3], None),
        ([1, 2, 3, 4], 1),
        ([1, 0.5, 2, 3, 4, 5], 2),
        ([1, 2, 3, 3], None),
        ([1, 2, 4, 3], None),
        ([4, 2, 3, 4], None),
        ([1], None),
        ([], None),
    ],
)
def test_few_rows_go_by_the_last_three(y: list[float], step: int | None) -> None:
    assert finite_divergence(range(len(y)), y) == step


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_non_finite_row_is_the_step(bad: float) -> None:
    assert finite_divergence([0, 4, 8, 12], [2.1, 3.0, bad, bad]) == 8


def test_values_near_the_largest_float_are_compared_without_overflow() -> None:
    y = [-1.7e308, *np.linspace(1.0e308, 1.7e308, 12)]
    assert finite_divergence(range(13), y) == 1


@given(st.lists(st.integers(0, 4000), min_size=1, max_size=30), st.integers(1, 5), st.integers(-1000, 1000))
@settings(max_examples=300, deadline=None)
def test_the_rule_sees_differences_only(values: list[int], scale: int, shift: int) -> None:
    """On a grid of 1/1024, where arithmetic is exact, y and a*y + c (a a power of two) get the same answer."""
    y = np.array(values) / 1024
    z = y * 2.0**scale + shift
    assert finite_divergence(range(len(y)), y.tolist()) == finite_divergence(range(len(z)), z.tolist())


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=25))
@settings(max_examples=300, deadline=None)
def test_any_series_gets_an_answer(values: list[float]) -> None:
    step = finite_divergence(range(len(values)), values)
    finite = all(map(math.isfinite, values))
    assert step is not None if values and not finite else step is None or 0 < step < len(values)
