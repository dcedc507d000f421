"""Schedules against their formulas, torch.optim.lr_scheduler and the vectors of the plateau's counting rule."""

from __future__ import annotations

import inspect
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.optim import lr_scheduler

from lrsweep.errors import UsageError
from lrsweep.schedules import SCHEDULES, Plateau, check, factors, plateau_of

T = 200


def by_torch(make: Any, steps: int = T, lr: float = 1.0) -> list[float]:
    """The rate of every update under one of torch's schedulers, stepped once per update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while len(rates) < steps:
            if rates:
                scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        ({"name": "constant"}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ({"name": "linear", "end": 0.01}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.01, T)),
        ({"name": "linear", "end": 0.1, "until": 0.5}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, T // 2)),
        ({"name": "exponential", "gamma": 0.97}, lambda o: lr_scheduler.ExponentialLR(o, 0.97)),
        ({"name": "step", "every": 30, "gamma": 0.1}, lambda o: lr_scheduler.StepLR(o, 30, 0.1)),
        ({"name": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, T)),
        ({"name": "cosine", "end": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, T, 0.1)),
        ({"name": "onecycle"}, lambda o: lr_scheduler.OneCycleLR(o, 1.0, T, cycle_momentum=False)),
        (
            {"name": "onecycle", "pct": 0.113, "start": 0.1, "end": 0.001},
            lambda o: lr_scheduler.OneCycleLR(
                o, 1.0, T, pct_start=0.113, div_factor=10, final_div_factor=100, cycle_momentum=False
            ),
        ),
        (
            {"name": "onecycle", "pct": 1.0},
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, T, 1, 1, 1.0, cycle_momentum=False),
        ),
        (
            {"name": "onecycle", "pct": 0.0},
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, T, 1, 1, 0.0, cycle_momentum=False),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_same_as_torch(schedule: dict[str, Any], make: Any) -> None:
    np.testing.assert_allclose(factors(schedule, T, "."), by_torch(make), rtol=1e-12, atol=1e-12)


def test_linear_decay_of_the_textbook() -> None:
    """(1 - a) e0 + a e_tau with a = k / tau, then flat (Goodfellow et al., 8.3.1; studies T8)."""
    tau, end = 160, 0.01
    expected = [(1 - k / tau) + k / tau * end if k < tau else end for k in range(T)]
    np.testing.assert_allclose(factors({"name": "linear", "end": end, "until": 0.8}, T, "."), expected, rtol=1e-12)


def test_inverse_time_counts_updates() -> None:
    """Studies B3: lr .01, after 3200 updates; decay .1 at t = 50 and 199."""
    for decay, last in ((0.1, 3.115e-5), (0.01, 3.030e-4), (1e-3, 2.381e-3), (1e-4, 7.576e-3)):
        rates = 0.01 * factors({"name": "inverse_time", "decay": decay}, 3201, ".")
        assert rates[3200] == pytest.approx(last, rel=2e-4)
        assert rates[0] == 0.01
        assert rates[57] == pytest.approx(0.01 / (1 + decay * 57), rel=1e-12)
    rates = 0.01 * factors({"name": "inverse_time", "decay": 0.1}, 200, ".")
    assert rates[50] == pytest.approx(1.667e-3, rel=2e-4)
    assert rates[199] == pytest.approx(4.785e-4, rel=2e-4)


REQUIRED = {
    "exponential": {"gamma": 0.9},
    "inverse_time": {"decay": 0.1},
    "step": {"every": 7, "gamma": 0.5},
    "plateau": {"factor": 0.1, "patience": 2},
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "length"), [(10, 10), (0.1, 20), (0.145, 29), (0, 0), (1, 1)])
def test_warmup_comes_first_and_shortens_the_rest(name: str, warmup: float, length: int) -> None:
    schedule = {"name": name, **REQUIRED.get(name, {})}
    warmed = factors({**schedule, "warmup": warmup}, T, ".")
    np.testing.assert_allclose(warmed[:length], [(t + 1) / length for t in range(length)], rtol=1e-12)
    np.testing.assert_allclose(warmed[length:], factors(schedule, T - length, "."), rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_short_runs_have_finite_factors(name: str) -> None:
    for total in range(1, 8):
        for warmup in (0, 1, 3, 20):
            found = factors({"name": name, **REQUIRED.get(name, {}), "warmup": warmup}, total, ".")
            assert found.shape == (total,)
            assert np.isfinite(found).all()
            assert found.min() >= 0
            assert found.max() <= 1


def test_one_update_and_all_of_them_agree() -> None:
    for name, function in SCHEDULES.items():
        arguments = REQUIRED.get(name, {})
        whole = factors({"name": name, **arguments, "warmup": 5}, 30, ".")
        assert [float(function(t, 30, **arguments, warmup=5)) for t in range(30)] == list(whole)


@pytest.mark.parametrize(
    ("name", "argument", "good", "bad"),
    [
        ("linear", "end", [0, 0.5, 1], [-0.1, "x"]),
        ("linear", "until", [0.5, 1], [0, 1.1]),
        ("exponential", "gamma", [0.5, 1], [0, -1]),
        ("step", "every", [1, 100], [0, 1.5]),
        ("onecycle", "pct", [0, 0.3, 1], [-0.1, 1.1]),
        ("plateau", "factor", [0.1], [0, 1, 2]),
        ("plateau", "patience", [1, 5], [0, 2.5]),
        ("plateau", "raise_factor", [None, 2], [1, 0.5]),
        ("constant", "warmup", [0, 10, 0.5], [-1, 1.5, 0.0001 - 1]),
    ],
)
def test_annotations_say_what_is_allowed(name: str, argument: str, good: list[Any], bad: list[Any]) -> None:
    annotation = inspect.signature(SCHEDULES[name], eval_str=True).parameters[argument].annotation
    adapter = TypeAdapter(annotation)
    for value in good:
        adapter.validate_python(value)
    for value in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_own_schedule_by_import_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def saw(step, total_steps, period=4):\n"
        "    assert isinstance(step, int) and total_steps == 10\n"
        "    return 1 - (step % period) / period\n"
        "def wild(step, total_steps):\n    return float('nan') if step == 3 else 1\n"
        "def negative(step, total_steps):\n    return -step\n"
        "def none(step, total_steps):\n    pass\n"
        "def one(step):\n    return 1\n"
        "def periodic(step, total_steps, period):\n    return 1\n"
        "calls = []\n"
        "def counting(step, total_steps):\n    calls.append(1)\n    return 1 / len(calls)\n"
    )
    found = factors({"name": "mine.py:saw", "period": 5}, 10, tmp_path)
    assert list(found) == [1 - (t % 5) / 5 for t in range(10)]
    with pytest.raises(UsageError, match=r"mine.py:wild: mine.py:4: the factor at step 3 of 10 is .*nan"):
        factors({"name": "mine.py:wild"}, 10, tmp_path)
    with pytest.raises(UsageError, match=r"the factor at step 1 of 10 is -1\.0"):
        factors({"name": "mine.py:negative"}, 10, tmp_path)
    with pytest.raises(
        UsageError, match=r"mine.py:none: mine.py:8: the factor at step 0 of 10 is None; it must be a number"
    ):
        factors({"name": "mine.py:none"}, 10, tmp_path)
    with pytest.raises(
        UsageError, match=r"mine.py:one: mine.py:10: cannot be called as one\(step, total_steps\): too many"
    ):
        factors({"name": "mine.py:one"}, 10, tmp_path)
    with pytest.raises(UsageError, match=r"mine.py:periodic: .*missing a required argument: 'period'"):
        factors({"name": "mine.py:periodic"}, 10, tmp_path)
    with pytest.raises(UsageError, match="the factor at step 0 of 10 differs when it is computed again"):
        factors({"name": "mine.py:counting"}, 10, tmp_path)


def test_a_factor_that_overflows_is_an_error_not_a_rate() -> None:
    with pytest.raises(UsageError, match="must be finite"):
        factors({"name": "exponential", "gamma": 10.0}, 400, ".")


def watched(values: list[float], lr: float = 0.1, **arguments: Any) -> list[float]:
    """The rate after each evaluation."""
    state = Plateau(**{"factor": 0.1, "patience": 2, **arguments})
    rates = []
    for step, value in enumerate(values, 1):
        state.observe(value, step)
        rates.append(lr * state.factor)
    return rates


def test_plateau_cuts_on_bad_evaluation_number_patience() -> None:
    """Studies T7, constant metric."""
    expected = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    np.testing.assert_allclose(watched([1.0] * 8), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(("patience", "cooldown", "threshold"), [(2, 0, 0.0), (3, 0, 0.05), (2, 3, 0.0), (4, 1, 0.02)])
def test_plateau_is_torchs_with_one_evaluation_less(mode: str, patience: int, cooldown: int, threshold: float) -> None:
    rng = np.random.default_rng(patience)
    values = (np.exp(-np.arange(80) / 10) + 0.05 * rng.standard_normal(80)).tolist()
    if mode == "max":
        values = [-v for v in values]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, 0.5, patience - 1, threshold, "abs", cooldown, min_lr=1e-3, eps=0.0
    )
    expected = []
    for value in values:
        scheduler.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    metric = "val_loss" if mode == "min" else "val_accuracy"
    found = watched(
        values,
        1.0,
        factor=0.5,
        patience=patience,
        cooldown=cooldown,
        threshold=threshold,
        min_factor=1e-3,
        metric=metric,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[-1] < 0.1


def test_plateau_does_not_count_row_0_or_the_warmup() -> None:
    state = plateau_of({"name": "plateau", "factor": 0.1, "patience": 1, "warmup": 0.1}, 100)
    assert state is not None
    for step in (0, 5, 10):
        state.observe(-100.0, step)
    state.observe(5.0, 11)
    assert state.factor == 1.0
    state.observe(5.0, 12)
    assert state.factor == 0.1
    assert plateau_of({"name": "cosine"}, 100) is None


def test_plateau_takes_nan_for_a_bad_evaluation() -> None:
    np.testing.assert_allclose(watched([1.0, math.nan, math.nan]), [0.1, 0.1, 0.01], rtol=1e-12)
    np.testing.assert_allclose(watched([1.0, math.nan, 0.5, math.nan, 0.4]), [0.1] * 5, rtol=1e-12)
    np.testing.assert_allclose(watched([math.nan, 1.0, 0.5, 0.4]), [0.1] * 4, rtol=1e-12)
    np.testing.assert_allclose(watched([1.0, math.inf, math.inf]), [0.1, 0.1, 0.01], rtol=1e-12)


def test_plateau_sees_differences_only() -> None:
    values = [1.0, 0.9, 0.95, 0.89, 0.885, 0.5, 0.6, 0.49, 0.48]
    shifted = [v - 100 for v in values]
    assert watched(values, threshold=0.015) == watched(shifted, threshold=0.015)


def test_plateau_stops_at_its_floor() -> None:
    assert watched([1.0] * 7, lr=1.0, min_factor=0.05) == [1.0, 1.0, 0.1, 0.1, 0.05, 0.05, 0.05]


def test_plateau_raises_again() -> None:
    """Cut on bad 2, 4; on bad 5 raised tenfold; then counting starts again."""
    found = watched([1.0] * 11, lr=1.0, raise_factor=10.0, raise_patience=5)
    np.testing.assert_allclose(found, [1, 1, 0.1, 0.1, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001, 0.01], rtol=1e-12)
    # The cap bounds what a raise reaches and lowers nothing.
    capped = watched([1.0] * 11, lr=1.0, raise_factor=10.0, raise_patience=5, raise_cap=0.05)
    np.testing.assert_allclose(capped, [1, 1, 0.1, 0.1, 0.01, 0.05, 0.05, 0.005, 0.005, 5e-4, 5e-3], rtol=1e-12)
    above = watched([1.0] * 3, lr=1.0, patience=50, raise_factor=10.0, raise_patience=1, raise_cap=0.5)
    assert above == [1.0, 1.0, 1.0]


def test_plateau_options_that_need_each_other() -> None:
    assert check("plateau", {"raise_factor": 2.0}) == [("raise_factor", "needs raise_patience too")]
    assert check("plateau", {"raise_patience": 2, "raise_factor": None}) == [
        ("raise_patience", "needs raise_factor too")
    ]
    assert check("plateau", {"raise_patience": 2, "raise_factor": 2.0}) == []
    with pytest.raises(UsageError, match="together"):
        Plateau(factor=0.5, patience=1, raise_factor=2.0)


@pytest.mark.parametrize("cut", range(40))
def test_plateau_continues_from_its_state(cut: int) -> None:
    values = np.random.default_rng(0).standard_normal(40).tolist()
    arguments = {"factor": 0.5, "patience": 2, "cooldown": 3, "raise_factor": 3.0, "raise_patience": 7}
    straight, first, second = Plateau(**arguments), Plateau(**arguments), Plateau(**arguments)
    for step, value in enumerate(values[:cut], 1):
        straight.observe(value, step)
        first.observe(value, step)
    second.restore(first.state())
    for step, value in enumerate(values[cut:], cut + 1):
        straight.observe(value, step)
        second.observe(value, step)
        assert second.factor == straight.factor
