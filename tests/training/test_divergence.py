"""The rule that calls a run with finite losses diverged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lrsweep.training import divergence
from tests.analysis.test_diagnosis import CURVES, FORMS, K
from tests.support import sweeps, train_spec


def finite_divergence(steps: Sequence[int], y: Sequence[float], val: Sequence[float] | None = None) -> int | None:
    """The rule; where a test is about the training loss alone, the validation loss is the same."""
    return divergence.finite_divergence(steps, y, y if val is None else val)


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


@pytest.mark.parametrize("val", [[5, 4, 3, 2, 1], [1, 1, 1, 1, 1], [1, 3, 2, 3, 1.5], [1, 1, 1, 1, 1 + 1e-14]])
def test_few_rows_need_a_validation_loss_that_rises_too(val: list[float]) -> None:
    """It fell, stood, went to and fro, rose by rounding."""
    y = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert finite_divergence(range(5), y, val) is None
    assert finite_divergence(range(5), y, [1, 1, 1.1, 1.2, 1.3]) == 1


def test_rounding_is_that_of_the_dtype() -> None:
    y, val = [1.0, 2.0, 3.0, 4.0], [1.0, 1.0 + 1e-6, 1.0 + 2e-6, 1.0 + 3e-6]
    assert divergence.finite_divergence(range(4), y, val) == 1
    assert divergence.finite_divergence(range(4), y, val, eps=float(np.finfo(np.float32).eps)) is None


@given(st.integers(3, 40), st.floats(1.05, 50.0), st.floats(1e-3, 1e3), st.floats(0.0, 0.2), st.integers(0, 2**32 - 1))
@settings(max_examples=500, deadline=None)
def test_growth_by_a_constant_factor_diverges(n: int, r: float, start: float, noise: float, seed: int) -> None:
    """At any number of evaluations, with noise of up to a tenth of a step of growth; also where all are negative."""
    sizes = start * r ** np.arange(n + 1)
    y = sizes + noise * (1 - 1 / r) * sizes * np.random.default_rng(seed).uniform(-0.5, 0.5, n + 1)
    assert finite_divergence(range(n + 1), y.tolist()) is not None
    negative = y - 2 * y.max()
    assume(r**n < 1e9)  # beyond that the first ones are equal to the last digit
    assert finite_divergence(range(n + 1), negative.tolist()) is not None


@given(st.integers(4, 40), st.floats(1.05, 20.0), st.floats(0.3, 0.99), st.data())
@settings(max_examples=500, deadline=None)
def test_growth_after_a_falling_start_diverges(n: int, r: float, bottom: float, data: st.DataObject) -> None:
    """The loss falls for some evaluations, then grows by r each time, and is above its start for the last quarter."""
    falling = data.draw(st.integers(1, max(1, n // 4)))
    y = np.r_[np.linspace(1.0, bottom, falling + 1), bottom * r ** np.arange(1, n - falling + 1)]
    late = y[-3:] if n < 8 else y[1 + 3 * n // 4 :]
    assume((late > 1.0).all())
    step = finite_divergence(range(n + 1), y.tolist())
    assert step is not None
    assert (y[step:] > 1.0).all()
    assert y[step - 1] <= 1.0


def test_runs_that_barely_move_are_not_diverged() -> None:
    """10,000 least-squares runs at 1e-9..1e-5, 3 to 12 evaluations, in float32: batch means rise by chance alone."""
    rng = np.random.default_rng(0)
    runs = 10_000
    x, target = rng.normal(size=(64, 8)), rng.normal(size=64)
    weights = rng.normal(size=(runs, 8))
    lr = 10.0 ** rng.uniform(-9, -5, (runs, 1))

    def loss(rows: slice, dtype: type) -> np.ndarray:
        return ((weights.astype(dtype) @ x[rows].T.astype(dtype) - target[rows].astype(dtype)) ** 2).mean(1)

    train, val = slice(0, 40), slice(40, 64)
    y, held_out, exact = [loss(train, np.float32)], [loss(val, np.float32)], [loss(val, np.float64)]
    for _ in range(12):
        index = rng.integers(0, 40, (runs, 8))
        off = np.einsum("rbd,rd->rb", x[index], weights) - target[index]
        y.append((off**2).mean(1).astype(np.float32))
        weights -= lr * np.einsum("rb,rbd->rd", off, x[index]) / 4
        held_out.append(loss(val, np.float32))
        exact.append(loss(val, np.float64))
    risen = found = 0
    for run, n in enumerate(rng.integers(3, 13, runs)):
        train_loss, val_loss = [rows[run] for rows in y[: n + 1]], [rows[run] for rows in held_out[: n + 1]]
        risen += train_loss[0] < train_loss[-3] < train_loss[-2] < train_loss[-1]
        step = divergence.finite_divergence(range(n + 1), train_loss, val_loss, eps=float(np.finfo(np.float32).eps))
        found += step is not None and exact[n][run] < exact[0][run]
    assert risen > 100
    assert found == 0


GROWING = {"task": "regression", "model": "linear", "lr": [0.3, 1.0], "optimizers": ["sgd"], "seeds": 1}


@pytest.mark.process
@pytest.mark.parametrize("epochs", [5, 8, 12])
def test_a_sweep_tells_growth_at_any_number_of_evaluations(tmp_path: Path, epochs: int) -> None:
    """sgd at 1 on least squares: the loss rises at every epoch and stays finite; trained together and alone."""
    spec = {**GROWING, "train": {"epochs": epochs, "batch_size": 64}}
    runs = pd.read_csv(sweeps.run(tmp_path, sweeps.spec(**spec)).path / "runs.csv").set_index("lr")
    assert math.isfinite(runs.final_train_loss[1.0])
    assert runs.status.to_dict() == {0.3: "ok", 1.0: "diverged"}
    assert [outcome.status for _, outcome in train_spec.trained({"name": "alone", **spec})] == ["ok", "diverged"]


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
