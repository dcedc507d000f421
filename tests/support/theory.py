"""Training with exact answers, through spec, plan and engine in float64: what should come out, and what did.

Sources: Goh, "Why Momentum Really Works" (distill.pub/2017/momentum) for gradient descent and momentum on quadratics;
Goodfellow et al. 2016, section 8.3.1, for the linear schedule; the rest is arithmetic. scikit-learn's MLPClassifier has
no code in common with torch.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from lrsweep.run_result import NoHooks
from lrsweep.schedules import Plateau
from lrsweep.training import sequential, workload
from tests.support import oracle, parity_task, sweeps
from tests.support import tasks as own_tasks
from tests.support.train_spec import only, spec_dict, trained

GOH, ARITHMETIC, SKLEARN = "Goh 2017", "arithmetic", "scikit-learn's MLPClassifier"
EIGENVALUES = [0.1, 0.7, 2.0, 10.0]
Measured = tuple[str, bool]
"""What was measured, as text, and whether it is as expected."""


@dataclass(frozen=True)
class Exact:
    """A claim with an exact answer. `engines`: it is tested with lrsweep's faster ways to train and without them."""

    id: str
    claim: str
    source: str
    expected: str
    measure: Callable[[], Measured]
    engines: bool = False


def apart(found: Any, expected: Any) -> float:
    """The largest relative difference."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected) / np.abs(expected)))


def tiny(difference: float) -> str:
    return f"{difference:.0e}".replace("e-0", "e-") if difference else "0"


def at_most(difference: float, bound: float) -> Measured:
    return tiny(difference), difference <= bound


def quadratic(lam: Iterable[float] = EIGENVALUES, b: float = 0.0, start: float | list[float] = 1.0) -> dict[str, Any]:
    return {"name": "quadratic", "eigenvalues": list(lam), "b": b, "start": start}


def descent(lam: Any, c: Any, lr: float, steps: int) -> np.ndarray:
    """T1: L_t - L* = 1/2 sum lam_i (1 - lr lam_i)^(2t) c_i^2, with c the distance from the minimum at the start."""
    t = np.arange(steps + 1)[:, None]
    return 0.5 * (np.asarray(lam) * (1 - lr * np.asarray(lam)) ** (2 * t) * np.asarray(c) ** 2).sum(1)


# --- T1, T2: gradient descent on a quadratic


def gradient_descent_follows_the_closed_form() -> Measured:
    lam, worst = np.array(EIGENVALUES), 0.0
    least = -0.5 * (0.5**2 / lam).sum()
    for lr in (0.01, 0.1, 0.19, 0.21):
        history = only(spec_dict(quadratic(b=0.5), lr=lr, train={"epochs": 100})).history
        worst = max(worst, apart(np.array(history["val_loss"]) - least, descent(lam, 1 - 0.5 / lam, lr, 100)))
        # a batch loss is that of the weights before its update
        assert history["train_loss"][1:] == history["val_loss"][:-1]
    return at_most(worst, 1e-10)


def curvature(half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of 2 X'X/n, or of X'X/n for half the squared error."""
    x = own_tasks.least_squares_data()[0].numpy()
    return np.linalg.eigh((1 if half else 2) * x.T @ x / len(x))


def squared_error_has_twice_the_curvature_of_its_half() -> Measured:
    x, y = (values.numpy() for values in own_tasks.least_squares_data())
    best = np.linalg.lstsq(x, y, rcond=None)[0][:, 0]
    with oracle.double():
        torch.manual_seed(0)
        start = nn.Linear(3, 1, bias=False).weight.detach().numpy()[0]
    worst = 0.0
    for half in (False, True):
        lam, vectors = curvature(half)
        least = (0.5 if half else 1.0) * np.mean((x @ best - y[:, 0]) ** 2)
        for lr in (0.1 / lam[-1], 0.99 * 2 / lam[-1], 1.01 * 2 / lam[-1]):
            outcome = only(spec_dict({"name": "own:least_squares", "half": half}, lr=float(lr), train={"epochs": 100}))
            expected = descent(lam, vectors.T @ (start - best), lr, 100)
            worst = max(worst, apart(np.array(outcome.history["val_loss"]) - least, expected))
    return at_most(worst, 1e-10)


def the_largest_stable_rate_is_two_over_the_curvature() -> Measured:
    lam, train = max(EIGENVALUES), {"epochs": 300, "eval_every": 10}
    below, above = (only(spec_dict(quadratic(), lr=share * 2 / lam, train=train)) for share in (0.99, 1.01))
    losses = below.history["val_loss"]
    growth = (above.history["val_loss"][-1] / above.history["val_loss"][-2]) ** (1 / 10)
    held = (below.status, above.status) == ("ok", "diverged") and losses[-1] < 0.01 * losses[0]
    return f"{below.status} / {above.status}; {growth:.6f}", held and apart(growth, 1.02**2) < 1e-7


# --- T3: the best fixed rate


def the_best_rate_of_a_sweep_is_two_over_the_sum_of_the_extreme_curvatures() -> Measured:
    lam = [0.5, 1.0, 4.0]
    start = [0.5**-0.5, 1.0, 4.0**-0.5]  # equal losses along all axes, so that the slowest rules early
    train = {"epochs": 120, "eval_every": 60}
    spec = spec_dict(quadratic(lam, start=start), lr={"min": 0.1, "max": 1.0, "points": 41}, train=train)
    ends = {run.lr: outcome.history["val_loss"] for run, outcome in trained(spec)}
    best = 2 / (0.5 + 4.0)
    found, nearest = min(ends, key=lambda lr: ends[lr][-1]), min(ends, key=lambda lr: abs(math.log(lr / best)))
    exact = only(spec_dict(quadratic(lam, start=start), lr=best, train=train)).history["val_loss"]
    kappa, rate = 4.0 / 0.5, (exact[2] / exact[1]) ** (1 / 120)
    held = found == nearest and apart(rate, (kappa - 1) / (kappa + 1)) < 1e-10
    return f"{found:.4f}; {rate:.6f}", held


# --- T4: momentum, in torch's form


def the_largest_stable_rate_with_momentum() -> Measured:
    cases = [(0.0, False), (0.5, False), (0.9, False), (0.99, False), (0.5, True), (0.9, True), (0.99, True)]
    fitting = 0
    for beta, nesterov in cases:
        limit = (2 + 2 * beta) / ((1 + 2 * beta) if nesterov else 1) / 2.0
        optimizer = {"name": "sgd", "momentum": beta, "nesterov": nesterov}
        train = {"epochs": 1000 if beta < 0.99 else 3000, "eval_every": 20}
        spec = spec_dict(quadratic([2.0]), optimizer, lr=[0.99 * limit, 1.01 * limit], train=train)
        (_, below), (_, above) = trained(spec)
        falls = below.status == "ok" and below.history["val_loss"][-1] < 0.01 * below.history["val_loss"][0]
        grows = above.status == "diverged" and above.history["val_loss"][-1] > 100 * above.history["val_loss"][0]
        fitting += falls and grows
    return f"{fitting} of {len(cases)} do", fitting == len(cases)


def the_best_rate_and_momentum() -> Measured:
    low, high = 0.1, 10.0
    root = math.sqrt(high / low)
    lr, beta = (2 / (math.sqrt(low) + math.sqrt(high))) ** 2, ((root - 1) / (root + 1)) ** 2
    optimizer = {"name": "sgd", "momentum": beta}
    loss = only(spec_dict(quadratic([low, high]), optimizer, lr=lr, train={"epochs": 200, "eval_every": 10})).history[
        "val_loss"
    ]
    # a double root: the loss is t^2 rate^2t up to a slowly moving factor
    rate = (loss[20] / loss[10] / 4) ** (1 / 200)
    return f"{rate:.4f}", apart(rate, (root - 1) / (root + 1)) < 2e-3


def in_the_oscillating_region_momentum_alone_sets_the_rate() -> Measured:
    spec = spec_dict(quadratic([1.0]), {"name": "sgd", "momentum": 0.81}, lr=[0.3, 1.0], train={"epochs": 200})
    found = []
    for _, outcome in trained(spec):
        loss = np.array(outcome.history["val_loss"])
        envelope = [loss[k : k + 40].max() for k in (60, 120)]
        found.append((envelope[1] / envelope[0]) ** (1 / 120))
    return " / ".join(f"{rate:.3f}" for rate in found), apart(found, [math.sqrt(0.81)] * 2) < 0.01


# --- T5: a constant gradient


def steps_of(optimizer: Any, lr: float, gradient: float = 3.0, steps: int = 40) -> np.ndarray:
    """How far the one weight moves down at each update, when the loss is gradient times the weight."""
    task = {"name": "own:slope", "gradient": [gradient], "start": [0.0]}
    spec = spec_dict(task, optimizer, lr=lr, train={"steps": steps, "eval_every": {"steps": 1}})
    weights = np.array(only(spec).history["val_loss"]) / gradient
    return -np.diff(weights)


def adam_moves_by_the_rate() -> Measured:
    optimizers = ("adam", {"name": "adamw", "weight_decay": 0.0})
    return at_most(max(apart(steps_of(one, 0.01), np.full(40, 0.01)) for one in optimizers), 4e-9)


def adams_first_step_on_any_gradient() -> Measured:
    gradients = (1e-8, 1e-3, 5.0)
    found = [steps_of("adam", 0.01, gradient, steps=1)[0] for gradient in gradients]
    return at_most(apart(found, [0.01 * gradient / (gradient + 1e-8) for gradient in gradients]), 1e-10)


def adagrad_rmsprop_and_momentum_on_a_constant_gradient() -> Measured:
    t = np.arange(1, 41)
    adagrad = apart(steps_of("adagrad", 0.01), 0.01 / np.sqrt(t))
    rmsprop = apart(steps_of("rmsprop", 0.01), 0.01 / np.sqrt(1 - 0.99**t))
    momentum = apart(steps_of({"name": "sgd", "momentum": 0.9}, 0.01), 0.01 * 3 * (1 - 0.9**t) / (1 - 0.9))
    held = adagrad <= 1e-9 and rmsprop <= 5e-8 and momentum <= 1e-11
    return " / ".join(map(tiny, (adagrad, rmsprop, momentum))), held


# --- T6: the scale of the loss


def scaling_the_loss_moves_the_curve_of_sgd_and_not_that_of_adam() -> Measured:
    spec = spec_dict(
        {"name": "own:scaled", "factor": 1.0},
        ["sgd", {"name": "adam", "eps": 1e-30}],
        lr=[0.01, 0.1, 1.0],
        axes={"task.factor": [1.0, 10.0]},
        train={"epochs": 20, "batch_size": 32},
    )
    ends = {(run.label, run.axes[0], run.lr): outcome.history["val_loss"][-1] for run, outcome in trained(spec)}
    sgd, adam = sorted({label for label, _, _ in ends}, key=lambda label: label != "sgd")
    moved = max(apart(ends[sgd, 10.0, lr] / 10, ends[sgd, 1.0, 10 * lr]) for lr in (0.01, 0.1))
    unmoved = min(apart(ends[sgd, 10.0, lr] / 10, ends[sgd, 1.0, lr]) for lr in (0.01, 0.1))
    stays = max(apart(ends[adam, 10.0, lr] / 10, ends[adam, 1.0, lr]) for lr in (0.01, 0.1, 1.0))
    return f"{tiny(moved)} / {tiny(stays)}", moved < 1e-9 and stays < 1e-6 and unmoved > 1e-2


# --- T7, T8: schedules, as the rate that the rows tell


def a_plateau_is_cut_at_bad_evaluation_number_patience() -> Measured:
    state, found = Plateau(factor=0.1, patience=2), []
    for step in range(1, 9):
        state.observe(1.0, step)
        found.append(0.1 * state.factor)
    expected = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 1e-4, 1e-4]
    return " ".join(f"{rate:.3g}" for rate in found), apart(found, expected) < 1e-12


def torch_cuts_a_plateau_one_evaluation_later() -> Measured:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
    found = []
    for _ in range(10):
        scheduler.step(1.0)
        found.append(optimizer.param_groups[0]["lr"])
    expected = [0.1] * 3 + [0.01] * 3 + [0.001] * 3 + [1e-4]
    return " ".join(f"{rate:.3g}" for rate in found), apart(found, expected) < 1e-12


def rates(schedule: dict[str, Any], steps: int, lr: float) -> np.ndarray:
    spec = spec_dict(quadratic([0.01]), lr=lr, schedule=schedule, train={"steps": steps, "eval_every": {"steps": 1}})
    return np.array(only(spec).history["lr_now"])


def a_linear_schedule_falls_and_stays() -> Measured:
    seen = rates({"name": "linear", "end": 0.01, "until": 0.8}, 100, 0.5)
    a = np.minimum(np.arange(100) / 80, 1)
    assert seen[0] == seen[1]
    return at_most(apart(seen[1:], (1 - a) * 0.5 + a * 0.005), 1e-12)


def exponential_and_inverse_time_decay_per_update() -> Measured:
    k = np.arange(60)
    exponential = apart(rates({"name": "exponential", "gamma": 0.97}, 60, 0.2)[1:], 0.2 * 0.97**k)
    inverse = apart(rates({"name": "inverse_time", "decay": 0.1}, 60, 0.01)[1:], 0.01 / (1 + 0.1 * k))
    return f"{tiny(exponential)} / {tiny(inverse)}", max(exponential, inverse) <= 1e-12


def the_decays_of_the_post_end_where_it_says() -> Measured:
    found = []
    for decay, step in ((0.1, 50), (0.1, 199), (0.1, 3200), (0.01, 3200), (1e-3, 3200), (1e-4, 3200)):
        train = {"steps": step + 1, "eval_every": {"steps": step + 1}}
        schedule = {"name": "inverse_time", "decay": decay}
        start, end = only(spec_dict(quadratic([1e-4]), lr=0.01, schedule=schedule, train=train)).history["lr_now"]
        assert start == 0.01
        found.append(end)
    held = apart(found, [1.667e-3, 4.785e-4, 3.115e-5, 3.030e-4, 2.381e-3, 7.576e-3]) < 2e-4
    return " / ".join(f"{rate:.4g}" for rate in found), held


# --- T9: overflow


def overflow_is_told_with_its_step() -> Measured:
    # w doubles in size at each update: w_t = (-2)^t, and L = w^2 / 2 is infinite in float32 from t = 65 on (2^129)
    train = {"steps": 200, "batch_size": "full", "eval_every": {"steps": 10}, "dtype": "float32"}
    spec = {"name": "overflow", "task": quadratic([1.0]), "lr": [0.5, 3.0], "optimizers": ["sgd"], "seeds": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = sweeps.run(Path(folder), spec | {"train": train}).path
        runs, curves, summary = (pd.read_csv(path / name) for name in ("runs.csv", "curves.csv", "summary.csv"))
    run = runs[runs.lr == 3.0].iloc[0]
    rows = curves[curves.lr == 3.0]
    # the batch of update 66 is the first with w_65, unless an evaluation sees it before: rows stand at 60 and 70
    held = run.status == "diverged" and run.diverged_step == 66 and list(rows.step) == [0, 10, 20, 30, 40, 50, 60, 66]
    held &= rows.train_loss.iloc[-1] == rows.val_loss.iloc[-1] == math.inf and summary.best_lr.iloc[0] == 0.5
    return f"{run.status} at step {run.diverged_step:.0f}; best {summary.best_lr.iloc[0]:g}", bool(held)


# --- T10: the scale of the inputs


def the_largest_stable_rate_falls_with_the_square_of_the_input_scale() -> Measured:
    grid = {"min": 1e-4, "max": 10, "per_decade": 5}
    largest, curvatures = {}, {}
    for scale in ("none", "standard"):
        task = {"name": "regression", "features": 2, "scale_ratio": 30.0, "n": 200, "scale": scale}
        spec = spec_dict(
            task, lr=grid, model={"name": "linear", "bias": False}, train={"epochs": 100, "eval_every": 10}
        )
        runs = list(trained(spec))
        largest[scale] = max(run.lr for run, outcome in runs if outcome.status == "ok")
        x = workload.build(runs[0][0].workload_spec).splits["train"].tensors[0].numpy()
        curvatures[scale] = np.linalg.eigvalsh(2 * x.T @ x / len(x))[-1]
    ratio, wanted = largest["standard"] / largest["none"], curvatures["none"] / curvatures["standard"]
    held = abs(math.log10(ratio / wanted)) <= 1 / 5 + 1e-9 and ratio > 10**2.5
    return f"{ratio:.0f} against {wanted:.0f}", held


# --- P1: the same training by another library, step by step

EPOCHS = 60


def _train_losses(alpha: float, optimizer: str, lr: float, **args: Any) -> np.ndarray:
    task = {"name": "parity_task.py:same", "alpha": alpha}
    shared = oracle.workload_spec(task, epochs=EPOCHS, batch_size=50, shuffle=False)
    a_run = oracle.run(shared, optimizer, lr=lr, **args)
    (outcome,) = sequential.train([a_run], workload.build(a_run.workload_spec), NoHooks())
    assert outcome.status == "ok", outcome.error
    return np.array(outcome.history["train_loss"][1:])


def gradient_descent_as_in_scikit_learn() -> Measured:
    worst = 0.0
    for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
        lr = 0.2 if momentum == 0 else 0.03
        for alpha in (0.0, 0.05):
            theirs = parity_task.fitted(
                EPOCHS, learning_rate_init=lr, momentum=momentum, nesterovs_momentum=nesterov, alpha=alpha
            ).loss_curve_
            ours = _train_losses(alpha, "sgd", lr, momentum=momentum, nesterov=nesterov)
            assert ours[-1] < 0.3 * ours[0]
            worst = max(worst, float(np.abs(ours - theirs).max()))
    return at_most(worst, 5e-15)


def adam_as_in_scikit_learn() -> Measured:
    theirs = parity_task.fitted(EPOCHS, solver="adam", learning_rate_init=3e-3, epsilon=1e-16).loss_curve_
    same, usual = (float(np.abs(_train_losses(0.0, "adam", 3e-3, eps=eps) - theirs).max()) for eps in (1e-16, 1e-8))
    return tiny(same), same < 2e-12 and usual > 1e-9  # the last: a comparison that could fail


CLAIMS = [
    Exact(
        "T1", "gradient descent on a quadratic: 100 losses at four rates", GOH, "1e-10 off at most, relatively",
        gradient_descent_follows_the_closed_form, engines=True,
    ),
    Exact(
        "T1", "least squares: curvature 2 X'X / n, half of it for half the error", ARITHMETIC,
        "1e-10 off at most, relatively", squared_error_has_twice_the_curvature_of_its_half,
    ),
    Exact(
        "T2", "at 0.99 / 1.01 of 2 / curvature; growth per step at 1.01", GOH, "ok / diverged; 1.0404",
        the_largest_stable_rate_is_two_over_the_curvature,
    ),
    Exact(
        "T3", "best rate of 41, and its factor per step", GOH, "next to 2 / 4.5 = 0.4444; 7 / 9 = 0.777778",
        the_best_rate_of_a_sweep_is_two_over_the_sum_of_the_extreme_curvatures,
    ),
    Exact(
        "T4", "momentum 0 to 0.99, with Nesterov too: fall at 0.99 of the limit, diverge at 1.01", GOH, "all 7",
        the_largest_stable_rate_with_momentum,
    ),
    Exact(
        "T4", "factor per step at the best rate and momentum for curvatures 0.1 and 10", GOH,
        "9 / 11 = 0.8182 (0.2 % off)",
        the_best_rate_and_momentum,
    ),
    Exact(
        "T4", "where it oscillates, momentum 0.81: factor per step at two rates", GOH, "sqrt(0.81) = 0.9 (1 % off)",
        in_the_oscillating_region_momentum_alone_sets_the_rate,
    ),
    Exact(
        "T5", "constant gradient: every step of Adam and AdamW is the rate", ARITHMETIC, "4e-9 off at most, relatively",
        adam_moves_by_the_rate,
    ),
    Exact(
        "T5", "first step of Adam is lr g / (g + eps)", ARITHMETIC, "1e-10 off at most, relatively",
        adams_first_step_on_any_gradient,
    ),
    Exact(
        "T5", "constant gradient: steps of Adagrad / RMSprop / momentum", ARITHMETIC,
        "1e-9 / 5e-8 / 1e-11 off at most, relatively", adagrad_rmsprop_and_momentum_on_a_constant_gradient,
        engines=True,
    ),
    Exact(
        "T6", "ten times the loss: the curve of SGD moves to a tenth of the rate / that of Adam stays", ARITHMETIC,
        "1e-9 / 1e-6 off at most, relatively", scaling_the_loss_moves_the_curve_of_sgd_and_not_that_of_adam,
    ),
    Exact(
        "T7", "plateau, constant loss, patience 2: rate after each evaluation", "cut at bad evaluation number patience",
        "0.1 0.1 0.01 0.01 0.001 0.001 0.0001 0.0001", a_plateau_is_cut_at_bad_evaluation_number_patience,
    ),
    Exact(
        "T7", "the same by torch", "PyTorch issue 2545", "0.1 0.1 0.1 0.01 0.01 0.01 0.001 0.001 0.001 0.0001",
        torch_cuts_a_plateau_one_evaluation_later,
    ),
    Exact(
        "T8", "linear schedule to 1 % of the rate, then flat", "Goodfellow et al. 2016, 8.3.1",
        "1e-12 off at most, relatively", a_linear_schedule_falls_and_stays,
    ),
    Exact(
        "T8", "exponential / inverse-time schedule", ARITHMETIC, "1e-12 off at most, relatively",
        exponential_and_inverse_time_decay_per_update,
    ),
    Exact(
        "T8", "rate at decay 0.1 after 50, 199, 3200 steps; at 0.01, 1e-3, 1e-4 after 3200", "the post",
        "0.001667 / 0.0004785 / 3.115e-05 / 0.000303 / 0.002381 / 0.007576", the_decays_of_the_post_end_where_it_says,
    ),
    Exact(
        "T9", "float32 at 3 / curvature, beside 0.5 / curvature", "2^129 overflows", "diverged at step 66; best 0.5",
        overflow_is_told_with_its_step,
    ),
    Exact(
        "T10", "largest stable rate, standardized over raw inputs", "ratio of the curvatures", "within a factor of 1.6",
        the_largest_stable_rate_falls_with_the_square_of_the_input_scale,
    ),
    Exact(
        "P1", "60 losses of SGD, momentum, Nesterov, with and without penalty", SKLEARN, "5e-15 off at most",
        gradient_descent_as_in_scikit_learn,
    ),
    Exact("P1", "60 losses of Adam, at eps 1e-16", SKLEARN, "2e-12 off at most", adam_as_in_scikit_learn),
]  # fmt: skip
