"""The same training by another library: scikit-learn's MLPClassifier, step by step (no code in common with torch)."""

from __future__ import annotations

import numpy as np
import pytest

from lrsweep.run_result import NoHooks
from lrsweep.training import sequential, workload
from tests.support import parity_task
from tests.support.oracle import run, workload_spec

EPOCHS = 60


def train_losses(alpha: float, optimizer: str, lr: float, **args) -> np.ndarray:
    shared = workload_spec({"name": "parity_task.py:same", "alpha": alpha}, epochs=EPOCHS, batch_size=50, shuffle=False)
    a_run = run(shared, optimizer, lr=lr, **args)
    (outcome,) = sequential.train([a_run], workload.build(a_run.workload_spec), NoHooks())
    assert outcome.status == "ok", outcome.error
    return np.array(outcome.history["train_loss"][1:])


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_gradient_descent(momentum: float, nesterov: bool, alpha: float) -> None:
    lr = 0.2 if momentum == 0 else 0.03
    theirs = parity_task.fitted(
        EPOCHS, learning_rate_init=lr, momentum=momentum, nesterovs_momentum=nesterov, alpha=alpha
    ).loss_curve_
    ours = train_losses(alpha, "sgd", lr, momentum=momentum, nesterov=nesterov)
    assert np.abs(ours - theirs).max() < 5e-15
    assert ours[-1] < 0.3 * ours[0]


def test_adam() -> None:
    # scikit-learn adds eps outside the bias correction, so only a vanishing one compares
    theirs = parity_task.fitted(EPOCHS, solver="adam", learning_rate_init=3e-3, epsilon=1e-16).loss_curve_
    ours = train_losses(0.0, "adam", 3e-3, eps=1e-16)
    assert np.abs(ours - theirs).max() < 2e-12
    assert np.abs(train_losses(0.0, "adam", 3e-3, eps=1e-8) - theirs).max() > 1e-9
