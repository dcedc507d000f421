"""Sweeps of functions and classes: from a script, a notebook, with threads, and without the code."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from lrsweep.errors import UsageError
from lrsweep.sweep import api

pytestmark = pytest.mark.process

CODE = """
import torch
import torch.nn.functional as F
from torch import nn
from lrsweep import Task

X = torch.linspace(-2, 2, 240).reshape(60, 4).sin()
Y = (X.sum(1) > 0).long()
CALLS = []

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.a, self.b = nn.Linear(4, width), nn.Linear(width, 2)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))

class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"])

def task(n=40):
    return Task(train=(X[:n], Y[:n]), val=(X[40:], Y[40:]), loss=F.cross_entropy)

def counting(output, target):
    CALLS.append(0)
    return F.cross_entropy(output, target) * (1 + 0.1 * len(CALLS))

def stateful():
    return Task(train=(X[:40], Y[:40]), val=(X[40:], Y[40:]), loss=counting)
"""
RUN = """
import lrsweep, sys
SPEC = {
    "name": "given", "task": TASK, "model": {"name": Net, "width": 6}, "lr": [0.01, 0.1], "seeds": 2,
    "optimizers": ["sgd", Plain], "train": {"epochs": 3, "batch_size": 10},
}
print(len(lrsweep.run(SPEC, progress="plain", workers=2).runs))
"""
FILE_SPEC = """
name: given
task: code.py:TASK
model: {name: "code.py:Net", width: 6}
lr: [0.01, 0.1]
seeds: 2
optimizers: [sgd, "code.py:Plain"]
train: {epochs: 3, batch_size: 10}
"""
# What runs cells in a notebook: threads, no file, and objects of its own among the globals.
NOTEBOOK = """
import linecache, socket, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
main = sys.modules["__main__"]
cells, names = {cells!r}, vars(main)
del main.__file__
names["get_ipython"] = socket.socket().close
for number, text in enumerate(cells):
    name = f"/tmp/ipykernel_1/{{number}}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), names)
"""


def python(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text)
    return subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=300)


def lrsweep(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lrsweep", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def losses(folder: Path) -> list[float]:
    return list(pd.read_csv(folder / "results" / "given" / "runs.csv").final_val_loss)


@pytest.mark.parametrize(
    ("task", "notebook"),
    [
        pytest.param("task", False, id="script-task", marks=pytest.mark.slow),
        pytest.param("stateful", True, id="notebook-stateful"),
        pytest.param("task", True, id="notebook-task", marks=pytest.mark.slow),
        pytest.param("stateful", False, id="script-stateful", marks=pytest.mark.slow),
    ],
)
def test_given_code_trains_as_the_same_code_in_a_file(task: str, notebook: bool, tmp_path: Path) -> None:
    """A loss that counts its calls trains one run at a time, each in a copy."""
    text = RUN.replace("TASK", task)
    whole = NOTEBOOK.format(cells=[CODE, text]) if notebook else CODE + text
    done = python(tmp_path, whole)
    assert done.stdout.split()[-1:] == ["8"], done.stderr
    assert ("one at a time" in done.stderr) == (task == "stateful"), done.stderr
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "code.py").write_text(CODE)
    (tmp_path / "file" / "spec.yaml").write_text(FILE_SPEC.replace("TASK", task))
    assert lrsweep(tmp_path / "file", "run", "spec.yaml", "--progress", "none").returncode == 0
    assert losses(tmp_path) == losses(tmp_path / "file")


@pytest.mark.slow
def test_results_need_no_code_but_cannot_be_run_without(tmp_path: Path) -> None:
    text = CODE + RUN.replace("TASK", "task")
    assert python(tmp_path, text).returncode == 0
    first = (tmp_path / "results" / "given" / "runs.csv").read_bytes()
    again = python(tmp_path, text)
    assert again.returncode == 0
    assert "done before" not in again.stderr
    for command in ("plot", "report", "check", "status", "compare"):
        folders = ["results/given"] * (1 + (command == "compare"))
        assert lrsweep(tmp_path, command, *folders).returncode == 0, command
    for command in ("run", "range-test"):
        refused = lrsweep(tmp_path, command, "results/given/spec.yaml")
        assert refused.returncode == 2
        assert refused.stderr.startswith("results/given/spec.yaml: task, Net, Plain were given in Python, and results")
        assert len(refused.stderr.splitlines()) == 1
    assert (tmp_path / "results" / "given" / "runs.csv").read_bytes() == first
    changed = python(tmp_path, text.replace("torch.tanh", "torch.relu"))
    assert "changed since the last run of this sweep: model; affected runs will be trained again" in changed.stderr
    assert "0 of 8 done before" in changed.stderr
    assert (tmp_path / "results" / "given" / "runs.csv").read_bytes() != first


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_by_one_that_has_the_code(tmp_path: Path) -> None:
    code = CODE.replace(
        "    CALLS.append(0)\n",
        "    import os, pathlib\n    CALLS.append(0)\n"
        "    if len(CALLS) == 17 and not pathlib.Path('died').exists():\n"
        "        pathlib.Path('died').touch()\n        os.kill(os.getpid(), 9)\n",
    )
    done = python(tmp_path, code + RUN.replace("TASK", "stateful"))
    assert (tmp_path / "died").exists()
    assert "killed by SIGKILL" in done.stderr
    assert done.stdout.split()[-1:] == ["8"], done.stderr
    assert set(pd.read_csv(tmp_path / "results" / "given" / "runs.csv").status) <= {"ok", "diverged"}


@pytest.mark.parametrize(
    ("executor", "device", "platform", "said"),
    [
        (
            "local",
            "cuda",
            "linux",
            "device='cuda': code that is given in Python trains on the CPU only: choose cpu, or write it",
        ),
        (
            "local",
            "cpu",
            "darwin",
            "code can be given in Python only on Linux, in a process that may start others; write it",
        ),
        (
            "ray",
            "cpu",
            "linux",
            "executor='ray': code that is given in Python trains on this machine only: write it into a file",
        ),
    ],
)
def test_where_no_worker_can_have_the_code_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, executor: str, device: str, platform: str, said: str
) -> None:
    monkeypatch.setattr(api.sys, "platform", platform)
    with pytest.raises(UsageError) as refused:
        api._refuse_given_code(SimpleNamespace(options=SimpleNamespace(executor=executor, device=device)))
    assert str(refused.value).startswith(said)


@pytest.mark.slow
def test_all_that_takes_a_spec_takes_functions(tmp_path: Path) -> None:
    more = textwrap.dedent("""
        print(lrsweep.dry_run(SPEC).to_do, len(lrsweep.lr_finder(SPEC, steps=20).results))
        print(set(lrsweep.run(lrsweep.load_spec(SPEC)).runs.status))
        try:
            lrsweep.run({**SPEC, "optimizers": [{"name": Plain, "lrr": 1}]})
        except lrsweep.UsageError as error:
            print(error)
    """)
    text = CODE + RUN.replace("TASK", "task")
    done = python(tmp_path, text + more)
    assert done.stdout.splitlines()[1:3] == ["0 2", "{'ok'}"], done.stderr
    assert "lrr" in done.stdout.splitlines()[3]
