"""No bit of a run depends on the runs it trains with: random regroupings, compared by `repr`."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import lrsweep
from lrsweep import plan
from lrsweep.compiler import vectors
from lrsweep.plan import Run
from lrsweep.run_result import NoHooks, RunResult
from lrsweep.spec.load import load_spec
from lrsweep.sweep.progress import Silent
from lrsweep.system.machine import this_machine
from lrsweep.training import company, grouping, stacked, workload

OPTIMIZERS: list[Any] = [
    "sgd",
    {"name": "sgd", "momentum": 0.9},
    {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam",
    {"name": "adam", "amsgrad": True},
    {"name": "adamw", "weight_decay": 0.1, "schedule": {"name": "cosine", "warmup": 2}},
    "rmsprop",
    "adagrad",
    "nadam",
    "adamax",
    "radam",
    "adadelta",
]
ODD = {"name": "mlp", "hidden": [37, 29]}
SWEEPS: dict[str, dict[str, Any]] = {
    "digits": {"task": "digits"},
    "blobs": {"task": "blobs"},
    "digits, odd sizes": {"task": "digits", "model": ODD, "train": {"batch_size": 17}},
    "sigmoid": {"task": "digits", "model": {**ODD, "activation": "sigmoid"}, "train": {"batch_size": 17}},
    "cnn": {"task": "digits", "model": {"name": "cnn", "channels": [3, 5]}, "train": {"batch_size": 17}},
    "clipped": {"task": "digits", "train": {"clip_norm": 0.5}},
}
MORE: dict[str, dict[str, Any]] = {
    "cnn as it is": {"task": "digits", "model": "cnn"},
    "two channels": {"task": "digits", "model": {"name": "cnn", "channels": [2, 3]}, "train": {"clip_norm": 0.1}},
    "silu": {"task": "digits", "model": {**ODD, "activation": "silu"}, "train": {"batch_size": 17}},
    "gelu": {"task": "digits", "model": {**ODD, "activation": "gelu"}, "train": {"batch_size": 17}},
    "tanh": {"task": "digits", "model": {**ODD, "activation": "tanh"}, "train": {"batch_size": 17}},
    "linear": {"task": "digits", "model": "linear"},
    "logistic": {"task": "breast_cancer", "model": "logistic", "train": {"batch_size": 17}},
    "moons": {"task": "moons"},
    "spirals": {"task": "spirals"},
    "iris": {"task": "iris"},
    "diabetes": {"task": "diabetes"},
    "regression": {"task": "regression"},
    "quadratic": {"task": "quadratic"},
    "char_lm": {"task": "char_lm", "train": {"steps": 4, "batch_size": 3}},
    "float64": {"task": "digits", "train": {"dtype": "float64"}},
    "bfloat16": {"task": "digits", "train": {"dtype": "bfloat16"}},
    "full batch": {"task": "wine", "train": {"batch_size": "full"}},
    "plateau": {"task": "blobs", "schedule": {"name": "plateau", "factor": 0.5, "patience": 1}},
    "zeros": {"task": "digits", "model": {"name": "mlp", "init": "zeros_readout"}},
}


def runs_of(sweep: dict[str, Any], **more: Any) -> list[Run]:
    train = {"steps": 12, "batch_size": 32, "eval_every": {"steps": 4}, "metrics": True} | sweep.get("train", {})
    base = {"name": "company", "lr": [1e-3, 1e-2, 0.3], "optimizers": OPTIMIZERS, "seeds": 2}
    spec = load_spec({**base, **sweep, "train": train, **more})
    return list(plan.build(spec, plan.fingerprints(spec)).runs)


def results(runs: Sequence[Run], built: workload.Workload) -> dict[str, RunResult]:
    return {one.run_id: one for one in stacked.train(runs, built, NoHooks())}


def check(sweep: dict[str, Any], sizes: Sequence[int]) -> None:
    """Train all runs that may train together in one group, and samples of them in groups of these sizes."""
    runs = runs_of(sweep)
    built = workload.build(runs[0].workload_spec)
    if grouping.measure(built, runs[0].seed).convolves:
        runs = [run for run in runs if run.seed == runs[0].seed]
    whole, draw = results(runs, built), random.Random(0)
    for size in sizes:
        for run_id, found in results(draw.sample(runs, min(size, len(runs))), built).items():
            wanted = whole[run_id]
            assert (found.status, found.diverged_step) == (wanted.status, wanted.diverged_step)
            assert repr(found.history) == repr(wanted.history)


@pytest.mark.parametrize("name", SWEEPS)
def test_no_bit_depends_on_the_company(name: str) -> None:
    check(SWEEPS[name], (1, 1, 2, 3, 3, 7, 31))


@pytest.mark.slow
@pytest.mark.parametrize("name", {**SWEEPS, **MORE})
def test_no_bit_depends_on_any_company(name: str) -> None:
    check({**SWEEPS, **MORE}[name], (*[1] * 12, *[2] * 8, *[3] * 6, *[5] * 5, *[7] * 4, 16, 16, 31, 31))


@pytest.mark.parametrize("model", ["mlp", "cnn", {"name": "mlp", "hidden": [2048, 2048]}])
def test_how_a_run_trains_does_not_depend_on_how_many_there_are(model: Any) -> None:
    runs = runs_of({"task": "digits", "model": model})
    built = workload.build(runs[0].workload_spec)
    engines = {
        group.engine
        for count in (1, 2, 7, len(runs))
        for workers in (1, 2, 16)
        for group in grouping.cut(runs[:count], built, this_machine(), workers)
    }
    assert len(engines) == 1


SIGMOID = """
import torch
from torch import nn
from lrsweep import Task

def make():
    X = torch.linspace(-1, 1, 5 * 20).view(20, 5)
    y = X.sum(1, keepdim=True)
    return Task(train=(X, y), val=(X, y), model=lambda: nn.Sequential(nn.Linear(5, 3), nn.Sigmoid(), nn.Linear(3, 1)),
                loss=nn.functional.mse_loss)
"""


def test_an_operation_that_looks_at_the_size_of_the_stack_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(SIGMOID)
    monkeypatch.chdir(tmp_path)
    runs = runs_of({"task": "mine.py:make", "train": {"steps": 4, "batch_size": 7}})
    assert company.dependence(workload.build(runs[0].workload_spec), [0, 1], 9) is None

    monkeypatch.setattr(vectors, "ROUNDED_APART", set())  # as for an operation that nobody has found yet
    found = [company.dependence(workload.build(runs[0].workload_spec), [0, 1], size) for size in (2, 3, 5, 9, 17)]
    assert any(found)


def test_what_depends_on_the_company_is_told_once_and_in_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(SIGMOID)
    monkeypatch.chdir(tmp_path)
    base = {"name": "mine", "task": "mine.py:make", "lr": [0.01, 0.1], "optimizers": ["sgd", "adam"], "seeds": 2}
    spec = {**base, "train": {"steps": 4, "batch_size": 7}}
    notes: list[str] = []
    for rounded_apart, results in ((vectors.ROUNDED_APART, "all"), (set(), "none")):
        monkeypatch.setattr(vectors, "ROUNDED_APART", rounded_apart)
        reporter = Silent()
        lrsweep.run(spec, results=results, progress=reporter)
        found = json.loads((tmp_path / results / "mine" / "manifest.json").read_text())["company"]
        told = [text for text in reporter.notes if "last digits" in text]
        assert found == {"same_bits": results == "all", "why_not": told}
        notes += told
    (text,) = notes
    assert text.startswith("the last digits of a run may depend on the runs it trains with: ")
    assert text.endswith(" does, in mine.py:make")


def test_runs_of_several_seeds_are_not_mixed_where_the_model_convolves() -> None:
    runs = runs_of({"task": "digits", "model": "cnn"}, lr=[0.01], optimizers=["sgd"], seeds=10)
    seeds = {run.run_id: run.seed for run in runs}
    groups = grouping.cut(runs, workload.build(runs[0].workload_spec), this_machine(), 2)
    assert all(len({seeds[run] for run in group.runs}) == 1 for group in groups)
