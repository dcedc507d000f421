"""Training with exact answers, through spec, plan and engine in float64.

Sources: Goh, "Why Momentum Really Works" (distill.pub/2017/momentum) for gradient descent and momentum on quadratics;
Goodfellow et al. 2016, section 8.3.1, for the linear schedule; the rest is arithmetic.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lrsweep.training import workload
from tests.support import tasks as own_tasks
from tests.support.oracle import double
from tests.support.train_spec import only, spec_dict, trained

EIGENVALUES = [0.1, 0.7, 2.0, 10.0]


def quadratic(lam=EIGENVALUES, b: float = 0.0, start: float | list[float] = 1.0) -> dict:
    return {"name": "quadratic", "eigenvalues": list(lam), "b": b, "start": start}


def descent(lam, c, lr: float, steps: int) -> np.ndarray:
    """T1: L_t - L* = 1/2 sum lam_i (1 - lr lam_i)^(2t) c_i^2, with c the distance from the minimum at the start."""
    t = np.arange(steps + 1)[:, None]
    return 0.5 * (np.asarray(lam) * (1 - lr * np.asarray(lam)) ** (2 * t) * np.asarray(c) ** 2).sum(1)


# --- T1, T2: gradient descent on a quadratic


@pytest.mark.usefixtures("both_ways_always")
@pytest.mark.parametrize("lr", [0.01, 0.1, 0.19, 0.21])
def test_gradient_descent_follows_the_closed_form(lr: float) -> None:
    lam = np.array(EIGENVALUES)
    outcome = only(spec_dict(quadratic(b=0.5), lr=lr, train={"epochs": 100}))
    least = -0.5 * (0.5**2 / lam).sum()
    expected = descent(lam, 1 - 0.5 / lam, lr, 100)
    np.testing.assert_allclose(np.array(outcome.history["val_loss"]) - least, expected, rtol=1e-10)
    # a batch loss is that of the weights before its update
    assert outcome.history["train_loss"][1:] == outcome.history["val_loss"][:-1]


def curvature(half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of 2 X'X/n, or of X'X/n for half the squared error."""
    x = own_tasks.least_squares_data()[0].numpy()
    return np.linalg.eigh((1 if half else 2) * x.T @ x / len(x))


@pytest.mark.parametrize("half", [False, True])
def test_squared_error_has_twice_the_curvature_of_its_half(half: bool) -> None:
    lam, vectors = curvature(half)
    x, y = (values.numpy() for values in own_tasks.least_squares_data())
    best = np.linalg.lstsq(x, y, rcond=None)[0][:, 0]
    with double():
        torch.manual_seed(0)
        start = nn.Linear(3, 1, bias=False).weight.detach().numpy()[0]
    least = (0.5 if half else 1.0) * np.mean((x @ best - y[:, 0]) ** 2)
    for lr in (0.1 / lam[-1], 0.99 * 2 / lam[-1], 1.01 * 2 / lam[-1]):
        outcome = only(spec_dict({"name": "own:least_squares", "half": half}, lr=float(lr), train={"epochs": 100}))
        expected = descent(lam, vectors.T @ (start - best), lr, 100)
        np.testing.assert_allclose(np.array(outcome.history["val_loss"]) - least, expected, rtol=1e-10)


def test_the_largest_stable_rate_is_two_over_the_curvature() -> None:
    task, lam = quadratic(), max(EIGENVALUES)
    below, above = (
        only(spec_dict(task, lr=share * 2 / lam, train={"epochs": 300, "eval_every": 10})) for share in (0.99, 1.01)
    )
    assert (below.status, above.status) == ("ok", "diverged")
    assert below.history["val_loss"][-1] < 0.01 * below.history["val_loss"][0]
    growth = above.history["val_loss"][-1] / above.history["val_loss"][-2]
    assert growth == pytest.approx((1.01 * 2 - 1) ** 20, rel=1e-6)


# --- T3: the best fixed rate


def test_the_best_rate_of_a_sweep_is_two_over_the_sum_of_the_extreme_curvatures() -> None:
    lam = [0.5, 1.0, 4.0]
    start = [0.5**-0.5, 1.0, 4.0**-0.5]  # equal losses along all axes, so that the slowest rules early
    spec = spec_dict(
        quadratic(lam, start=start), lr={"min": 0.1, "max": 1.0, "points": 41}, train={"epochs": 120, "eval_every": 60}
    )
    ends = {run.lr: outcome.history["val_loss"] for run, outcome in trained(spec)}
    best = 2 / (0.5 + 4.0)
    found = min(ends, key=lambda lr: ends[lr][-1])
    assert found == min(ends, key=lambda lr: abs(math.log(lr / best)))
    exact = only(spec_dict(quadratic(lam, start=start), lr=best, train={"epochs": 120, "eval_every": 60})).history[
        "val_loss"
    ]
    kappa = 4.0 / 0.5
    assert (exact[2] / exact[1]) ** (1 / 120) == pytest.approx((kappa - 1) / (kappa + 1), rel=1e-10)


# --- T4: momentum, in torch's form


@pytest.mark.parametrize(
    ("beta", "nesterov"),
    [(0.0, False), (0.5, False), (0.9, False), (0.99, False), (0.5, True), (0.9, True), (0.99, True)],
)
def test_the_largest_stable_rate_with_momentum(beta: float, nesterov: bool) -> None:
    limit = (2 + 2 * beta) / ((1 + 2 * beta) if nesterov else 1) / 2.0
    optimizer = {"name": "sgd", "momentum": beta, "nesterov": nesterov}
    spec = spec_dict(
        quadratic([2.0]), optimizer, lr=[0.99 * limit, 1.01 * limit], train={"epochs": 1000, "eval_every": 20}
    )
    (_, below), (_, above) = trained(spec)
    assert below.status == "ok"
    assert below.history["val_loss"][-1] < 0.01 * below.history["val_loss"][0]
    assert above.status == "diverged"
    assert above.history["val_loss"][-1] > 100 * above.history["val_loss"][0]


def test_the_best_rate_and_momentum() -> None:
    low, high = 0.1, 10.0
    root = math.sqrt(high / low)
    lr, beta = (2 / (math.sqrt(low) + math.sqrt(high))) ** 2, ((root - 1) / (root + 1)) ** 2
    spec = spec_dict(
        quadratic([low, high]), {"name": "sgd", "momentum": beta}, lr=lr, train={"epochs": 200, "eval_every": 10}
    )
    loss = only(spec).history["val_loss"]
    # a double root: the loss is t^2 rate^2t up to a slowly moving factor
    rate = (root - 1) / (root + 1)
    assert (loss[20] / loss[10] / 4) ** (1 / 200) == pytest.approx(rate, rel=2e-3)


def test_in_the_oscillating_region_momentum_alone_sets_the_rate() -> None:
    spec = spec_dict(quadratic([1.0]), {"name": "sgd", "momentum": 0.81}, lr=[0.3, 1.0], train={"epochs": 200})
    for _, outcome in trained(spec):
        loss = np.array(outcome.history["val_loss"])
        envelope = [loss[k : k + 40].max() for k in (60, 120)]
        assert (envelope[1] / envelope[0]) ** (1 / 120) == pytest.approx(math.sqrt(0.81), rel=0.01)


# --- T5: a constant gradient


def steps_of(optimizer, lr: float, gradient: float = 3.0, steps: int = 40) -> np.ndarray:
    """How far the one weight moves down at each update, when the loss is gradient times the weight."""
    task = {"name": "own:slope", "gradient": [gradient], "start": [0.0]}
    spec = spec_dict(task, optimizer, lr=lr, train={"steps": steps, "eval_every": {"steps": 1}})
    weights = np.array(only(spec).history["val_loss"]) / gradient
    return -np.diff(weights)


@pytest.mark.parametrize("optimizer", ["adam", {"name": "adamw", "weight_decay": 0.0}], ids=["adam", "adamw"])
def test_adam_moves_by_the_rate(optimizer) -> None:
    np.testing.assert_allclose(steps_of(optimizer, 0.01), 0.01, rtol=4e-9)


def test_adams_first_step_on_any_gradient() -> None:
    for gradient in (1e-8, 1e-3, 5.0):
        step = steps_of("adam", 0.01, gradient, steps=1)[0]
        assert step == pytest.approx(0.01 * gradient / (gradient + 1e-8), rel=1e-10)


@pytest.mark.usefixtures("both_ways_always")
def test_adagrad_rmsprop_and_momentum_on_a_constant_gradient() -> None:
    t = np.arange(1, 41)
    np.testing.assert_allclose(steps_of("adagrad", 0.01), 0.01 / np.sqrt(t), rtol=1e-9)
    np.testing.assert_allclose(steps_of("rmsprop", 0.01), 0.01 / np.sqrt(1 - 0.99**t), rtol=5e-8)
    assert steps_of("rmsprop", 0.01)[0] == pytest.approx(0.1, rel=1e-6)
    momentum = steps_of({"name": "sgd", "momentum": 0.9}, 0.01)
    np.testing.assert_allclose(momentum, 0.01 * 3 * (1 - 0.9**t) / (1 - 0.9), rtol=1e-11)


# --- T6: the scale of the loss


def test_scaling_the_loss_moves_the_curve_of_sgd_and_not_that_of_adam() -> None:
    spec = spec_dict(
        {"name": "own:scaled", "factor": 1.0},
        ["sgd", {"name": "adam", "eps": 1e-30}],
        lr=[0.01, 0.1, 1.0],
        axes={"task.factor": [1.0, 10.0]},
        train={"epochs": 20, "batch_size": 32},
    )
    ends = {(run.label, run.axes[0], run.lr): outcome.history["val_loss"][-1] for run, outcome in trained(spec)}
    sgd, adam = sorted({label for label, _, _ in ends}, key=lambda label: label != "sgd")
    for lr in (0.01, 0.1):
        assert ends[sgd, 10.0, lr] / 10 == pytest.approx(ends[sgd, 1.0, 10 * lr], rel=1e-9)
        assert ends[sgd, 10.0, lr] / 10 != pytest.approx(ends[sgd, 1.0, lr], rel=1e-2)
    for lr in (0.01, 0.1, 1.0):
        assert ends[adam, 10.0, lr] / 10 == pytest.approx(ends[adam, 1.0, lr], rel=1e-6)


# --- T8: schedules, as the rate that the rows tell


def rates(schedule: dict, steps: int, lr: float) -> np.ndarray:
    spec = spec_dict(quadratic([0.01]), lr=lr, schedule=schedule, train={"steps": steps, "eval_every": {"steps": 1}})
    return np.array(only(spec).history["lr_now"])


def test_a_linear_schedule_falls_and_stays() -> None:
    seen = rates({"name": "linear", "end": 0.01, "until": 0.8}, 100, 0.5)
    a = np.minimum(np.arange(100) / 80, 1)
    expected = (1 - a) * 0.5 + a * 0.005
    np.testing.assert_allclose(seen[1:], expected, rtol=1e-12)
    assert seen[0] == seen[1]
    assert seen[-1] == pytest.approx(0.005, rel=1e-12)


def test_exponential_and_inverse_time_decay_per_update() -> None:
    k = np.arange(60)
    np.testing.assert_allclose(rates({"name": "exponential", "gamma": 0.97}, 60, 0.2)[1:], 0.2 * 0.97**k, rtol=1e-12)
    np.testing.assert_allclose(
        rates({"name": "inverse_time", "decay": 0.1}, 60, 0.01)[1:], 0.01 / (1 + 0.1 * k), rtol=1e-12
    )


@pytest.mark.parametrize(("decay", "end"), [(0.1, 3.115e-5), (0.01, 3.030e-4), (1e-3, 2.381e-3), (1e-4, 7.576e-3)])
def test_the_decays_of_the_companion_post_end_where_it_says(decay: float, end: float) -> None:
    train = {"steps": 3201, "eval_every": {"steps": 3201}}
    schedule = {"name": "inverse_time", "decay": decay}
    outcome = only(spec_dict(quadratic([1e-4]), lr=0.01, schedule=schedule, train=train))
    assert outcome.history["lr_now"] == [0.01, pytest.approx(end, rel=2e-4)]


# --- T9: overflow


def test_overflow_is_told_with_its_step() -> None:
    # w doubles in size at each update: w_t = (-2)^t, and L = w^2 / 2 is infinite in float32 from t = 65 on (2^129)
    train = {"steps": 200, "eval_every": {"steps": 10}, "dtype": "float32"}
    outcome = only(spec_dict(quadratic([1.0]), lr=3.0, train=train))
    assert outcome.status == "diverged"
    # the batch of update 66 is the first with w_65, unless an evaluation sees it before: rows stand at 60 and 70
    assert (outcome.diverged_step, outcome.steps) == (66, 65)
    assert outcome.history["step"] == [0, 10, 20, 30, 40, 50, 60, 66]
    assert outcome.history["train_loss"][-1] == outcome.history["val_loss"][-1] == math.inf


# --- T10: the scale of the inputs


def test_the_largest_stable_rate_falls_with_the_square_of_the_input_scale() -> None:
    grid = {"min": 1e-4, "max": 10, "per_decade": 5}
    largest, curvatures = {}, {}
    for scale in ("none", "standard"):
        task = {"name": "regression", "features": 2, "scale_ratio": 30.0, "n": 200, "scale": scale}
        spec = spec_dict(
            task, lr=grid, model={"name": "linear", "bias": False}, train={"epochs": 100, "eval_every": 10}
        )
        runs = list(trained(spec))
        largest[scale] = max(run.lr for run, outcome in runs if outcome.status == "ok")
        x = inputs(runs[0][0])
        curvatures[scale] = np.linalg.eigvalsh(2 * x.T @ x / len(x))[-1]
    decades = math.log10(largest["standard"] / largest["none"])
    assert abs(decades - math.log10(curvatures["none"] / curvatures["standard"])) <= 1 / 5 + 1e-9
    assert decades > 2.5


def inputs(run) -> np.ndarray:
    return workload.build(run.workload_spec).splits["train"].tensors[0].numpy()
