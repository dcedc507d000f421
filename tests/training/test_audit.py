"""Audits: a step or an evaluation that is not what the user's module gives alone is noticed, and rounding is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lrsweep.run_result import NoHooks
from lrsweep.training import audit, stacked, stepper, workload
from lrsweep.training.audit import AuditFailedError, Auditor
from tests.support.oracle import run, workload_spec

pytestmark = pytest.mark.unit

STEPS = 60


def group(dtype: str = "float64", **train: Any) -> tuple[list[Any], workload.Workload]:
    """Four runs of two seeds of a task of the user's."""
    task = {"name": "stacked_tasks.py:task"}
    shared = workload_spec(task, steps=STEPS, batch_size=24, dtype=dtype, **train)
    runs = [run(shared, "adam", lr=lr, seed=seed) for lr in (0.003, 0.03) for seed in (0, 1)]
    for number, one in enumerate(runs):
        one.run_id = str(number)
    return runs, workload.build(shared)


def broken(monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[int, stepper.Result], None]) -> None:
    """From its 11th call on `Stepper.<name>` gives what `damage` makes of its result."""
    real, calls = getattr(stepper.Stepper, name), []

    def call(self: Any, *args: Any) -> stepper.Result:
        result = real(self, *args)
        calls.append(1)
        if len(calls) > 10:
            damage(len(calls), result)
        return result

    monkeypatch.setattr(stepper.Stepper, name, call)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_what_is_right_passes(dtype: str) -> None:
    runs, prepared = group(dtype, metrics=True)
    hooks = NoHooks()
    found = list(stacked.train(runs, prepared, hooks))
    assert {one.status for one in found} == {"ok"}
    assert hooks.audits > 8


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda call, result: result.losses.mul_(1.01), "loss is"),
        (lambda call, result: result.grads[0].mul_(1.01), "gradient or buffer of"),
        (lambda call, result: result.grads[-1].zero_(), "gradient or buffer of"),
    ],
)
def test_a_wrong_step_is_noticed(
    damage: Callable[[int, stepper.Result], None], told: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "train", damage)
    runs, prepared = group(dtype)
    with pytest.raises(AuditFailedError, match=rf"^step \d+: .*{told}"):
        list(stacked.train(runs, prepared, NoHooks()))


def test_a_wrong_evaluation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "evaluate", lambda call, result: result.losses.add_(0.01))
    runs, prepared = group()
    with pytest.raises(AuditFailedError, match=r"^the evaluation after step \d+: loss is"):
        list(stacked.train(runs, prepared, NoHooks()))


def test_nothing_is_told_of_a_group_before_its_last_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that diverges at once is a result only when the group has passed."""
    runs, prepared = group()
    runs[3].lr = 1e308
    told: list[str] = []
    last = STEPS - 1
    real = Auditor.check_step

    def check(self: Auditor, module: Any, weights: Any, batch: Any, seed: int, step: int, ours: Any) -> None:
        assert not told
        if step == last:
            raise AuditFailedError("the last step")
        real(self, module, weights, batch, seed, step, ours)

    monkeypatch.setattr(Auditor, "check_step", check)

    def listen() -> None:
        for one in stacked.train(runs, prepared, NoHooks()):
            told.append(one.run_id)

    with pytest.raises(AuditFailedError, match="the last step"):
        listen()


def test_the_same_steps_are_audited_in_every_company() -> None:
    _, prepared = group()
    batch = torch.zeros(3)
    one, other = Auditor(prepared), Auditor(prepared)
    steps = [step for step in range(STEPS) if one.due(step, batch)]
    assert steps == [step for step in range(STEPS) if other.due(step, batch)]
    assert {0, 1, STEPS - 1} <= set(steps)
    assert len(steps) < STEPS / 3
    assert other.due(20, torch.zeros(2)), "the first batch of a new shape"


def test_a_whole_run_is_compared() -> None:
    runs, prepared = group()
    first, second = list(stacked.train(runs[:2], prepared, NoHooks()))
    assert audit.difference(first, first, prepared) is None
    assert "train_loss at step 0" in str(audit.difference(first, second, prepared))
