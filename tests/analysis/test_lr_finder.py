"""The rules of the lr finder against their vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrsweep.analysis.lr_finder import Ramp, decades_spanned, has_fallen, must_stop, ramp_lrs, smoothed, suggestions
from lrsweep.errors import UsageError


def curve(lrs: np.ndarray) -> np.ndarray:
    x = lrs / 1e-3
    return 2.3 - 2 * x / (1 + x) + (lrs / 0.1) ** 2


LRS = 10 ** (-7 + 0.1 * np.arange(71))


@pytest.mark.parametrize("change", ["nothing", "nan", "inf", "shift"])
def test_the_vector(change: str) -> None:
    """metrics.md, section 9."""
    losses = curve(LRS) - (5 if change == "shift" else 0)
    if change in ("nan", "inf"):
        losses[-6:] = float(change)
    found = suggestions(LRS, losses)
    assert found["steepest"] == pytest.approx(1e-3, rel=1e-12)
    assert found["minimum_over_10"] == pytest.approx(10**-2.7, rel=1e-12)
    assert found["valley"] == pytest.approx(10**-4.4, rel=1e-12)
    assert found["slide"] == pytest.approx(10**-6.4, rel=1e-12)
    assert found["per_unit"] == pytest.approx(1e-7, rel=1e-12)
    assert decades_spanned(found) == pytest.approx(3.7, rel=1e-12)


def test_valley_depends_on_where_the_ramp_starts() -> None:
    lrs = 10 ** (-8 + 0.1 * np.arange(81))
    found = suggestions(lrs, curve(lrs))
    assert found["valley"] == pytest.approx(1e-5, rel=1e-12)
    assert found["steepest"] == pytest.approx(1e-3, rel=1e-12)


def fastai_valley(lrs: np.ndarray, losses: np.ndarray) -> float:
    """The double loop of fastai's callback/schedule.py, in its own words."""
    n = len(losses)
    max_start, max_end = 0, 0
    lds = [1] * n
    for i in range(1, n):
        for j in range(i):
            if losses[i] < losses[j] and lds[i] < lds[j] + 1:
                lds[i] = lds[j] + 1
            if lds[max_end] < lds[i]:
                max_end = i
                max_start = max_end - lds[max_end]
    sections = (max_end - max_start) / 3
    return float(lrs[max(0, max_start + int(sections) + int(sections / 2))])


def fastai_slide(lrs: np.ndarray, losses: np.ndarray) -> float:
    grad = np.gradient(losses)
    r_idx, l_idx = -1, -16
    found = lrs[l_idx]
    while l_idx >= -len(losses) and abs(grad[r_idx] - grad[l_idx]) > 0.005:
        found = lrs[l_idx]
        r_idx -= 1
        l_idx -= 1
    return float(found)


@pytest.mark.parametrize("seed", range(20))
def test_valley_and_slide_are_fastais(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lrs = 10 ** (-7 + 0.1 * np.arange(60))
    losses = curve(lrs) + rng.choice([0.0, 0.003, 0.1]) * rng.standard_normal(60)
    found = suggestions(lrs, losses)
    assert found["valley"] == fastai_valley(lrs, losses)
    assert found["slide"] == fastai_slide(lrs, losses)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40))
def test_any_losses_give_rates_of_the_ramp_or_nan(losses: list[float]) -> None:
    lrs = np.logspace(-7, 1, 40)[: len(losses)]
    found = suggestions(lrs, losses)
    for rate in (found["steepest"], found["minimum_over_10"] * 10, found["valley"], found["slide"], found["per_unit"]):
        assert math.isnan(rate) or np.isclose(lrs, rate, rtol=1e-12).any()
    assert math.isnan(decades_spanned(found)) or decades_spanned(found) >= 0


def test_smoothing_corrects_its_start_and_shifts_with_the_losses() -> None:
    assert smoothed([2.0] * 5) == pytest.approx([2.0] * 5, rel=1e-14)
    losses = np.random.default_rng(0).standard_normal(30)
    expected = [np.average(losses[: i + 1], weights=0.9 ** np.arange(i, -1, -1)) for i in range(30)]
    np.testing.assert_allclose(smoothed(losses), expected, rtol=1e-12)
    np.testing.assert_allclose(smoothed(losses - 100) + 100, expected, atol=1e-12)
    assert np.isnan(smoothed([1.0, math.nan, 1.0])[1:]).all()


@pytest.mark.parametrize("shift", [0.0, -100.0])
def test_the_ramp_stops_on_a_rise_whatever_the_sign_of_the_loss(shift: float) -> None:
    falling = [2.0 - 0.05 * i + shift for i in range(20)]
    assert must_stop(falling) is None
    assert must_stop([*falling, 3.0 + shift]) is None
    stopped = must_stop([*falling, 60.0 + shift])
    assert stopped is not None
    assert "step 21:" in stopped


def test_noise_and_the_first_updates_do_not_stop_a_ramp() -> None:
    noisy = (2 + np.random.default_rng(0).standard_normal(200)).tolist()
    assert all(must_stop(noisy[:i]) is None for i in range(1, 201))
    assert must_stop([1.0, 1e6]) is None
    assert must_stop([1.0] * 10 + [1e6]) is not None
    assert must_stop([1.0, math.nan]) == "stopped at step 2: the loss is nan"
    assert must_stop([math.inf]) == "stopped at step 1: the loss is inf"


def test_rates_are_spaced_in_their_logarithm() -> None:
    found = ramp_lrs(1e-7, 10.0, 9)
    np.testing.assert_allclose(found, [10.0**k for k in range(-7, 2)], rtol=1e-12)
    for low, high, steps in ((0.0, 1.0, 10), (1.0, 1.0, 10), (1e-3, math.inf, 10), (math.nan, 1.0, 10), (0.1, 1.0, 1)):
        with pytest.raises(UsageError, match="range test"):
            ramp_lrs(low, high, steps)


def test_where_the_loss_has_moved() -> None:
    lrs = 10.0 ** np.arange(-7, 1)
    ramp = Ramp(lrs=lrs, losses=np.array([2.0, 2.0, 1.99, 1.5, 1.0, 1.0, 3.0, math.nan]), stopped=None)
    smooth = ramp.losses
    assert [has_fallen(lrs, smooth, 0.0, rate) for rate in lrs[:7]] == [False] * 3 + [True] * 4
    assert [has_fallen(lrs, smooth, 0.2, rate) for rate in (1e-4, 5e-4, 1e-3)] == [False, False, True]
    assert not has_fallen(lrs, smooth, 0.0, 1e-9)
    assert not has_fallen(lrs, np.full(8, 2.0), 0.0, 1.0)
    assert not has_fallen(lrs, np.full(8, math.nan), 0.0, 1.0)
