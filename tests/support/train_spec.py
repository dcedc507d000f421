"""A spec trained without the machinery of a sweep: spec -> plan -> one run after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lrsweep import plan
from lrsweep.plan import Run
from lrsweep.run_result import NoHooks, RunResult
from lrsweep.spec.load import load_spec
from lrsweep.training import sequential, workload
from tests.support.oracle import HERE


def spec_dict(task: Any, optimizers: Any = "sgd", lr: Any = 0.1, **rest: Any) -> dict[str, Any]:
    """Full-batch training in float64 with one seed, unless `rest` says otherwise; `own:f` is f of tasks.py."""
    task = {"name": task} if isinstance(task, str) else dict(task)
    task["name"] = task["name"].replace("own:", f"{HERE}/tasks.py:")
    train = {"batch_size": "full", "dtype": "float64"} | rest.pop("train", {})
    return {
        "name": "test",
        "task": task,
        "optimizers": optimizers if isinstance(optimizers, list) else [optimizers],
        "lr": [lr] if isinstance(lr, float) else lr,
        "seeds": 1,
        "train": train,
        **rest,
    }


def trained(spec: dict[str, Any]) -> Iterator[tuple[Run, RunResult]]:
    """Every run of the spec with its outcome, in the order of the plan."""
    loaded = load_spec(spec)
    workloads: dict[str, workload.Workload] = {}
    for run in plan.build(loaded, plan.fingerprints(loaded)).runs:
        if run.workload_spec.key not in workloads:
            workloads[run.workload_spec.key] = workload.build(run.workload_spec)
        (outcome,) = sequential.train([run], workloads[run.workload_spec.key], NoHooks())
        assert outcome.status != "failed", outcome.error
        yield run, outcome


def only(spec: dict[str, Any]) -> RunResult:
    """The outcome of a spec of one run."""
    ((_, outcome),) = trained(spec)
    return outcome
