"""Audits: a step or an evaluation that is not what the user's module gives alone is noticed, and rounding is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lrsweep.compiler import by_run
from lrsweep.run_result import NoHooks
from lrsweep.training import audit, stacked, stepper, workload
from lrsweep.training.audit import AuditFailedError, Auditor
from tests.support.oracle import run, workload_spec

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
        (lambda call, result: result.grads[0].mul_(1.01), "gradient or value of"),
        (lambda call, result: result.grads[-1].zero_(), "gradient or value of"),
    ],
)
def test_a_wrong_step_is_noticed(
    damage: Callable[[int, stepper.Result], None], told: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "train", damage)
    runs, prepared = group(dtype)
    with pytest.raises(AuditFailedError, match=rf"^step \d+: .*{told}"):
        list(stacked.train(runs, prepared, NoHooks()))


def test_a_unit_that_rounding_turned_over_is_no_mistake() -> None:
    """Of a ReLU whose input is all but zero. Here as far from it as only the largest perturbations reach, sometimes."""
    weights = {"w": torch.tensor([1 + 100 * torch.finfo(torch.float32).eps])}

    def alone(weights: Any) -> audit.Computed:
        unit_is_on = (weights["w"] > 1).float()
        return audit.Computed({"loss": torch.ones(())}, {"w": torch.tensor([1.0]) + 0.1 * unit_is_on})

    together = audit.Computed({"loss": torch.ones(())}, {"w": torch.tensor([1.0])})
    Auditor(group("float32")[1])._check(alone, weights, together, "step 3")


def test_a_gradient_of_rounding_alone_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias before BatchNorm has a gradient of 0: of what is left, a stack's sums may leave more than those alone."""
    task = {"name": "stacked_tasks.py:task", "net": "biased_batchnorm"}
    shared = workload_spec(task, steps=12, batch_size=24, dtype="float32")
    runs = [run(shared, "adam", lr=0.003, seed=seed) for seed in (0, 1)]
    real, moved = stepper.Stepper.train, []

    def train(self: Any, *args: Any) -> stepper.Result:
        result = real(self, *args)
        (bias,) = (grad for name, grad in zip(self.trainable, result.grads, strict=True) if name == "model.0.bias")
        moved.append(float(bias.abs().max()))
        bias.add_(4e-6)
        return result

    monkeypatch.setattr(stepper.Stepper, "train", train)
    assert {one.status for one in stacked.train(runs, workload.build(shared), NoHooks())} == {"ok"}
    assert max(moved) < 1e-6


def test_a_wrong_evaluation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "evaluate", lambda call, result: result.losses.add_(0.01))
    runs, prepared = group()
    with pytest.raises(AuditFailedError, match=r"^the evaluation after step \d+: loss is"):
        list(stacked.train(runs, prepared, NoHooks()))


@pytest.mark.parametrize(
    ("does", "told"),
    [
        (lambda params: params[0].mul_(1), "it writes into a parameter or a buffer"),
        (lambda params: torch.rand(1), "it draws random numbers, as its trial did not"),
    ],
    ids=["writes", "draws"],
)
def test_what_only_a_later_evaluation_does_is_noticed(
    does: Callable[[Any], Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other runs would find what is written, and runs of other seeds would have drawn other numbers."""
    monkeypatch.setattr(Auditor, "row_due", lambda *_: False)
    real, calls = stepper.Stepper.evaluate, []

    def evaluate(self: Any, *args: Any) -> stepper.Result:
        calls.append(1)
        if len(calls) > 3:
            does(args[0])
        return real(self, *args)

    monkeypatch.setattr(stepper.Stepper, "evaluate", evaluate)
    runs, made = group(eval_every={"steps": 10})
    with pytest.raises(AuditFailedError, match=rf"^the evaluation after step \d+: {told}"):
        list(stacked.train(runs, made, NoHooks()))


SLOW = """
import torch
from torch import nn
from lrsweep import Task


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.fast, self.slow = nn.Linear(4, 1), nn.Linear(4, 1)
        self.slow.requires_grad_(False)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.slow.weight.lerp_(self.fast.weight, 0.1)
        return self.fast(x) + 0 * self.slow(x)


def make():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return Task(train=(x, x[:, :1]), val=(x, x[:, :1]), model=Slow, loss=nn.functional.mse_loss)
"""


def test_frozen_weights_that_a_step_writes_into_are_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    shared = workload_spec({"name": f"{tmp_path}/slow.py:make"}, steps=20, batch_size=10)
    runs = [run(shared, "sgd", lr=lr) for lr in (0.01, 0.1)]
    hooks = NoHooks()
    assert {one.status for one in stacked.train(runs, workload.build(shared), hooks)} == {"ok"}
    assert hooks.audits > 4
    monkeypatch.setattr(by_run, "_lerp_", lambda values, end, weight: values)
    with pytest.raises(
        AuditFailedError, match=r"^step 1: the gradient or value of slow\.weight after the step differs"
    ):
        list(stacked.train(runs, workload.build(shared), NoHooks()))


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


@pytest.mark.parametrize(
    "other",
    [
        torch.ones(6, 4, dtype=torch.float64),
        torch.ones(4, 6, dtype=torch.int64).T,
        torch.ones(5, 4, dtype=torch.int64),
    ],
    ids=["dtype", "strides", "shape"],
)
def test_the_first_batch_of_every_dtype_layout_and_shape_is_audited(other: torch.Tensor) -> None:
    """What user code can branch on without reading a number."""
    auditor = Auditor(group()[1])
    step = next(step for step in range(3, STEPS) if step not in auditor._steps)
    usual = torch.ones(6, 4, dtype=torch.int64)
    for batch, again in (((usual,), (other,)), ({"x": usual}, {"x": other})):
        assert [auditor.due(step, one) for one in (batch, batch, again, again)] == [True, False, True, False]


def test_a_recording_of_integers_is_not_replayed_on_floats() -> None:
    prepared = workload.build(workload_spec("by_dtype", batch_size=4))
    module = prepared.build_model(0)
    recorded = stepper.Stepper(module, prepared, stacked=False, shared=True)
    tensors = module.tensors()
    params = [tensors[name].detach() for name in recorded.trainable]
    whole, target = torch.tensor([[1], [2], [3], [4]]), torch.zeros(4, 1, dtype=prepared.dtype)
    with prepared.user_code():
        for inputs in (whole, whole.to(prepared.dtype)):
            loss = module(inputs, target)[0].item()
            assert recorded.train(params, [], (inputs, target)).losses.item() == pytest.approx(loss, rel=1e-12)


def test_a_whole_run_is_compared() -> None:
    runs, prepared = group()
    first, second = list(stacked.train(runs[:2], prepared, NoHooks()))
    assert audit.difference(first, first, prepared) is None
    assert "train_loss at step 0" in str(audit.difference(first, second, prepared))
