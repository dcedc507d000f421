"""What is noticed of Python state in the user's code, and what the trial of a stack does to that code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lrsweep.run_result import NoHooks
from lrsweep.training import python_state, sequential, stackable, stacked, workload
from tests.support.oracle import run, workload_spec

OWN = """
import functools
import torch
from torch import nn
from lrsweep import Task

x = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
CALLS, SETTINGS = [], {"scale": 1.0, "table": [torch.ones(2), "text"]}
SEEN = set()

def task(loss, model=lambda: nn.Linear(1, 1), **more):
    return Task(train=(x, 2 * x), val=(x, 2 * x), model=model, loss=loss, **more)

def mse(output, target):
    return ((output - target) ** 2).mean() * SETTINGS["scale"]

def steady():
    return task(mse, metrics={"twice": lambda output, target: 2 * mse(output, target)})

def in_global():
    def loss(output, target):
        CALLS.append(1)
        return mse(output, target) / len(CALLS)
    return task(loss)

def in_helper():
    def helper():
        CALLS.append(1)
    return task(lambda output, target: (helper(), mse(output, target))[1])

def in_closure():
    calls = 0
    def loss(output, target):
        nonlocal calls
        calls += 1
        return mse(output, target) / calls
    return task(loss)

def in_attribute():
    def loss(output, target):
        loss.calls += 1
        return mse(output, target) / loss.calls
    loss.calls = 0
    return task(loss)

class Fifth:
    calls = 0
    def __call__(self, output, target):
        self.calls += torch.is_grad_enabled()
        return mse(output, target) * (float("nan") if self.calls == 5 else 1)

def in_object():
    fifth = Fifth()
    fifth.calls = 0
    return task(fifth)

def in_metric():
    log = []
    return task(mse, metrics={"logged": lambda output, target: (log.append(1), mse(output, target))[1]})

def in_class():
    class Counting(nn.Linear):
        calls = 0
        def forward(self, x):
            type(self).calls += 1
            return super().forward(x)
    return task(mse, lambda: Counting(1, 1))

def dtypes():
    def loss(output, target):
        SEEN.add((torch.get_default_dtype(), output.dtype, target.dtype))
        return mse(output, target)
    return task(loss)

class Constant(nn.Linear):
    def forward(self, x):
        one = torch.tensor(0.5)
        one += 0.5
        return super().forward(x) * one

def constant():
    return task(mse, lambda: Constant(1, 1))

def exits():
    def build():
        raise SystemExit(5)
    return task(mse, build)
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


@pytest.mark.parametrize("function", "in_global in_helper in_closure in_attribute in_object in_metric in_class".split())
def test_state_of_functions_and_objects_keeps_runs_apart(own: str, function: str) -> None:
    prepared = workload.build(workload_spec({"name": f"{own}:{function}"}, steps=8, metrics=True))
    assert "changes Python state between steps" in str(stackable.model_reason(prepared))


@pytest.mark.parametrize("function", ["steady", "constant"])
def test_values_that_are_only_read_do_not(own: str, function: str) -> None:
    prepared = workload.build(workload_spec({"name": f"{own}:{function}"}, steps=8, metrics=True))
    assert stackable.model_reason(prepared) is None


def test_an_object_with_state_belongs_to_one_run(own: str) -> None:
    shared = workload_spec({"name": f"{own}:in_object"}, steps=8)
    prepared = workload.build(shared)
    outcomes = list(sequential.train([run(shared, lr=lr) for lr in (0.01, 0.02)], prepared, NoHooks()))
    assert [(one.status, one.diverged_step, one.steps) for one in outcomes] == [("diverged", 5, 4)] * 2


@pytest.mark.parametrize(
    ("dtype", "seen"), [("float32", torch.float32), ("float64", torch.float64), ("bfloat16", torch.float32)]
)
def test_the_trial_shows_the_user_the_dtype_of_the_spec(own: str, dtype: str, seen: torch.dtype) -> None:
    prepared = workload.build(workload_spec({"name": f"{own}:dtypes"}, steps=8, dtype=dtype))
    stackable.model_reason(prepared)
    found = prepared.task.loss.__globals__["SEEN"]  # type: ignore[union-attr]
    assert {default for default, *_ in found} == {target for *_, target in found} == {seen}


def test_a_constant_made_in_the_step_is_made_in_every_step(own: str) -> None:
    shared = workload_spec({"name": f"{own}:constant"}, steps=8)
    prepared = workload.build(shared)
    (alone,) = sequential.train([run(shared, lr=0.1)], prepared, NoHooks())
    (other,) = stacked.train([run(shared, lr=0.1)], prepared, NoHooks())
    assert other.history["val_loss"] == pytest.approx(alone.history["val_loss"], rel=1e-6)


def test_a_builder_that_exits_is_a_reason_and_no_exit(own: str) -> None:
    prepared = workload.build(workload_spec({"name": f"{own}:exits"}, steps=8))
    assert "SystemExit" in str(stackable.model_reason(prepared))


def test_states_differ_only_where_something_changed() -> None:
    module = torch.nn.Linear(1, 1)
    module.log = []  # type: ignore[assignment]
    before = python_state.state(module)
    assert not python_state.differ(before, python_state.state(module))
    module.log.append(torch.ones(2))  # type: ignore[operator, union-attr]
    assert python_state.differ(before, python_state.state(module))
