"""`Task(workers=N)`: batches of Datasets prepared by other processes are those that the trainer would fetch itself."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrsweep import Task
from lrsweep.errors import UsageError

pytestmark = pytest.mark.process

TASK = '''
import os, random
import numpy as np, torch
from torch import nn
from torch.utils.data import Dataset
from lrsweep import Task

class Noisy(Dataset):
    """Draws from all three generators whenever an example is asked for."""

    def __init__(self, n, seed, kind):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(n, 8, generator=generator)
        self.y = (self.x.sum(1) > 0).long()
        self.kind, self.calls, self.file = kind, 0, None

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        if self.file is None:
            self.file = open(os.environ["ASKED"], "a", buffering=1)  # in each process, as one does with large files
        self.file.write(f"{os.getpid()}\\n")
        if self.kind == "raises" and i == 33:
            raise ValueError("row 33 is broken")
        if self.kind == "raises in a worker" and torch.utils.data.get_worker_info() is not None:
            raise OSError("no such disk")
        x = self.x[i] + 0.1 * torch.randn(8) + 0.05 * np.random.rand() + 0.05 * random.random()
        if self.kind == "counts":
            self.calls += 1
        if self.kind == "curriculum" and NOW[0] > 70:
            return self.x[i], self.y[i]
        if self.kind == "other in a worker" and torch.utils.data.get_worker_info() is not None:
            x = x + 1e-6
        return x.float(), self.y[i]

class Net(nn.Module):
    def __init__(self, alone):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
        self.alone = alone

    def forward(self, x):
        return self.layers(2 * x if self.alone and x.sum().item() > 1e9 else x)

def sample(output, target):
    return (output[:, 0] + torch.rand(()) > 0).float().mean()

NOW = [0]

def step(model, batch, step):
    NOW[0] = step
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

class Item:
    def __init__(self, x, y):
        self.x, self.y = x, y.numpy()

def objects(examples):
    return Item(torch.stack([x for x, _ in examples]), torch.stack([y for _, y in examples]))

def of_pairs(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

def of_objects(model, batch):
    return nn.functional.cross_entropy(model(batch.x), torch.from_numpy(batch.y.copy()))

class Views(Noisy):
    def __getitems__(self, numbers):
        return numbers

    def view(self, numbers):
        return self.x[numbers[0] // 8 * 8:][:len(numbers)], self.y[numbers]

class Graphs(Noisy):
    """Nodes of graphs that all have the same edges."""

    def __init__(self, *given):
        super().__init__(*given)
        self.edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])

def graphs(examples, edges):
    return {"x": torch.stack([x for x, _ in examples]), "edges": edges, "y": torch.stack([y for _, y in examples])}

class Of:
    """One of the two Datasets' edges."""

    def __init__(self, data, kind):
        self.data, self.kind, self.calls = data, kind, 0

    def __call__(self, examples):
        edges = self.data.edges
        if self.kind == "refilled graphs":
            edges.fill_(len(examples)).add_(int(examples[0][0].sum() * 1e3) % 7)
        return graphs(examples, edges[:] if self.kind == "viewed graphs" else edges)

def of_graphs(model, batch):
    x, edges = batch["x"], batch["edges"]
    return nn.functional.cross_entropy(model(x.index_add(1, edges[0] % 8, x[:, edges[1] % 8])), batch["y"])

def of_turned_graphs(model, batch, step):
    if step == 5 and model.training:
        batch["edges"][1] = batch["edges"][1].flip(0)
    return of_graphs(model, batch)

def make(workers=0, alone=False, kind="", n=60):
    if "graphs" in kind:
        train = Graphs(n, 0, kind)
        return Task(
            train=train, val=train, model=lambda: Net(alone), collate_fn=Of(train, kind), workers=workers,
            step=of_turned_graphs if kind == "turned graphs" else of_graphs,
        )
    if kind.startswith("views"):
        train, val = Views(n, 0, kind), Views(100, 1, kind)
        return Task(
            train=train, val=val, model=lambda: Net(alone),
            step=of_objects if "objects" in kind else of_pairs,
            collate_fn=lambda numbers: Item(*train.view(numbers)) if "objects" in kind else train.view(numbers),
            workers=workers,
        )
    if kind in ("curriculum", "objects"):
        return Task(
            train=Noisy(n, 0, kind), val=Noisy(100, 1, kind), model=lambda: Net(alone),
            step=step if kind == "curriculum" else of_objects,
            collate_fn=objects if kind == "objects" else None, workers=workers,
        )
    return Task(
        train=Noisy(n, 0, kind), val=Noisy(100, 1, kind), model=lambda: Net(alone),
        loss=nn.functional.cross_entropy, metrics={"drawn": sample}, workers=workers,
    )
'''


@pytest.fixture(name="sweep")
def _sweep(tmp_path: Path) -> Any:
    """Runs a small sweep of TASK with these arguments; its exit code, messages, curves without ids, and who fetched."""
    (tmp_path / "noisy.py").write_text(TASK)

    def run(name: str, *, start: bool = False, train: dict[str, Any] | None = None, **arguments: Any) -> Any:
        spec = {
            "name": name,
            "task": {"name": "noisy.py:make", **arguments},
            "lr": [0.1],
            "optimizers": ["sgd", "adam"],
            "seeds": 1,
            "train": train or {"epochs": 3, "batch_size": 8},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(spec))
        command = [sys.executable, "-m", "lrsweep", "run", f"{name}.yaml", "--workers", "1", "--progress", "none"]
        asked = tmp_path / f"{name}.asked"
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "ASKED": str(asked)}, stderr=subprocess.PIPE, text=True
        )
        return process if start else finished(name, process)

    def finished(name: str, process: subprocess.Popen[str]) -> Any:
        _, told = process.communicate(timeout=240)
        tables = []
        for table in ("curves", "runs"):
            with open(tmp_path / "results" / name / f"{table}.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            tables.append([{key: value for key, value in row.items() if key != "run_id"} for row in rows])
        asked = tmp_path / f"{name}.asked"
        return process.returncode, told, *tables, set(asked.read_text().split() if asked.exists() else ())

    run.finished = finished  # type: ignore[attr-defined]
    return run


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True], ids=["together", "alone"])
def test_the_results_are_those_without_workers_to_the_bit(sweep: Any, alone: bool) -> None:
    code, _, curves, _, one = sweep("zero", alone=alone)
    assert code == 0
    assert len(curves) == 8
    code, told, with_workers, _, several = sweep("two", alone=alone, workers=2)
    assert (code, with_workers) == (0, curves), told
    assert len(several) >= len(one) + 4  # two for training and two for evaluations, at least


@pytest.mark.slow
def test_batches_of_objects_and_arrays_are_compared_by_what_they_hold(sweep: Any) -> None:
    _, _, curves, _, _ = sweep("plain", kind="objects")
    code, told, with_workers, _, _ = sweep("apart", kind="objects", workers=2)
    assert (code, with_workers) == (0, curves), told


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["graphs", "viewed graphs"])
def test_a_tensor_that_every_batch_holds_may_be_the_datasets_own(sweep: Any, kind: str) -> None:
    code, told, curves, _, _ = sweep("plain", kind=kind)
    assert code == 0, told
    code, told, with_workers, _, several = sweep("apart", kind=kind, workers=2)
    assert (code, with_workers) == (0, curves), told
    assert len(several) >= 3


def test_a_mistake_in_the_dataset_is_told_with_its_place(sweep: Any) -> None:
    code, told, _, runs, _ = sweep("raises", kind="raises", alone=True, workers=1)
    assert code == 3
    assert "DataLoader" not in told
    assert {row["error"] for row in runs} == {"ValueError: row 33 is broken (noisy.py:25 in __getitem__)"}


@pytest.mark.slow
def test_what_only_a_worker_comes_to_fails_the_run(sweep: Any) -> None:
    kinds = {
        "other in a worker": "gives other examples",
        "raises in a worker": "OSError: no such disk",
        "counts": "keeps something between calls (Noisy.calls; what it keeps can be made before",
        "curriculum": "reads what training changes (Noisy.NOW)",
        "views": "gives tensors that are its own memory",
        "views in objects": "gives tensors that are its own memory",
        "refilled graphs": "",
        "turned graphs": "",
    }
    for kind, said in kinds.items():
        code, _, _, runs, _ = sweep(kind.replace(" ", "_"), kind=kind, alone=True, workers=2, n=300)
        assert code == 3
        for row in runs:
            assert row["status"] == "failed"
            assert said in row["error"]
            assert "leave out workers=" in row["error"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks in /proc")
def test_signals_to_all_processes_stop_and_resume_it(sweep: Any, tmp_path: Path) -> None:
    _, _, curves, _, _ = sweep("whole", alone=True, workers=2, n=600)
    process = sweep("cut", start=True, alone=True, workers=2, n=600)
    asked = tmp_path / "cut.asked"
    deadline = time.monotonic() + 120
    while not asked.exists() or len(set(asked.read_text().split())) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = [process.pid]
    for pid in children:
        found = Path(f"/proc/{pid}/task/{pid}/children")
        children += map(int, found.read_text().split()) if found.exists() else []
    for pid in reversed(children):
        os.kill(pid, signal.SIGTERM)
    code, told, *_ = sweep.finished("cut", process)
    assert code == 143, told
    assert not list(filter(_runs, children))
    code, told, resumed, *_ = sweep("cut", alone=True, workers=2, n=600)
    assert (code, resumed) == (0, curves), told


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


class _Rows:
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return index


@pytest.mark.parametrize("workers", [-1, 1.5, True, "2", None])
def test_the_number_of_workers_is_checked(workers: Any) -> None:
    with pytest.raises(UsageError, match=r"workers is .*; give the number of processes, 0 for none"):
        Task(train=_Rows(), val=_Rows(), loss=lambda output, target: output, workers=workers)


def test_tensors_need_no_workers() -> None:
    import torch

    data = (torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(UsageError, match=r"workers is for Datasets, but all splits are tensors"):
        Task(train=data, val=data, loss=lambda output, target: output, workers=2)
