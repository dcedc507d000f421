"""What is the executor in-process's alone: whose process trains, what the user's code may do to it, and no others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lrsweep.errors import StoppedError, WrongOption
from lrsweep.store import journal
from lrsweep.sweep.progress import Silent, Update
from tests.support import sweeps
from tests.workers.test_every_executor import OWN, own

ALONE = """
import os

import torch
from torch import nn

from lrsweep import Task

calls = 0

def loss(output, target):
    global calls
    calls += 1
    {act}
    return nn.functional.mse_loss(output, target)

def make_task():
    x = torch.arange(60.0).reshape(20, 3) / 60
    return Task(train=(x, x[:, :1]), val=(x, x[:, :1]), model=lambda: nn.Linear(3, 1), loss=loss)
"""
"""A task that trains one run at a time, since it counts."""


def alone(folder: Path, act: str = "pass") -> dict[str, Any]:
    (folder / "own.py").write_text(ALONE.replace("{act}", act))
    train = {"steps": 5, "batch_size": 10}
    return {"name": "own", "task": f"{folder}/own.py:make_task", "lr": [0.1, 0.2], "optimizers": ["sgd"], "seeds": 2,
            "train": train}  # fmt: skip


def forbid_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fork", refused)
    monkeypatch.setattr(subprocess, "Popen", refused)


def test_the_users_code_trains_in_the_process_of_the_command(tmp_path: Path) -> None:
    """As a debugger and a profiler want it: its models are built in the process that runs the sweep."""
    spec, built = own(tmp_path), tmp_path / "built"
    (tmp_path / "own.py").write_text(OWN.replace('print("a model is built")', f"beside.note({str(built)!r})"))
    (tmp_path / "beside.py").write_text(BESIDE)
    for executor in ("local", "in-process"):
        sweeps.run(tmp_path / executor, spec, executor=executor)
        assert (str(os.getpid()) in built.read_text().split()) is (executor == "in-process")
    assert sweeps.tables(tmp_path / "local" / "own") == sweeps.tables(tmp_path / "in-process" / "own")


BESIDE = """
import os
from torch.nn.functional import mse_loss as loss

def note(path):
    with open(path, "a") as file:
        print(os.getpid(), file=file)
"""


@pytest.mark.parametrize("kind", ["built-in", "together", "alone"])
def test_a_system_that_forbids_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    spec = sweeps.spec() if kind == "built-in" else alone(tmp_path)
    if kind == "together":
        (tmp_path / "own.py").write_text(OWN)
        spec = own(tmp_path)
    sweeps.run(tmp_path / "local", spec)
    forbid_processes(monkeypatch)
    reporter = Silent()
    sweeps.run(tmp_path / "here", spec, executor="in-process", reporter=reporter)
    name = "small" if kind == "built-in" else "own"
    assert sweeps.tables(tmp_path / "here" / name) == sweeps.tables(tmp_path / "local" / name)
    assert sum("share that of the command" in note for note in reporter.notes) == (kind == "alone")


def test_a_debugger_has_the_terminal_also_where_a_run_has_a_copy_to_itself(tmp_path: Path) -> None:
    spec = alone(tmp_path, 'calls == 7 and print("heard", os.read(__import__("sys").stdin.fileno(), 8))')
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "lrsweep", "run", "spec.json", "--device", "cpu", "--progress", "none"]
    done = subprocess.run(
        [*command, "--executor", "in-process"], cwd=tmp_path, input="a line.\n" * 20,
        capture_output=True, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("heard b'a line") >= 4
    assert "heard" not in done.stdout


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("os._exit(7)", "exited with code 7"),
        pytest.param("raise SystemExit(7)", "SystemExit: 7 (own_opt.py:12 in step)", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_ends_its_process_fails_as_everywhere(tmp_path: Path, ending: str, told: str) -> None:
    """The sweep goes on, and what is said of the run is what another executor would have said."""
    spec = sweeps.spec(optimizers=["sgd", "own_opt.py:Ending"], lr=[0.01, 0.1], seeds=1)
    (tmp_path / "own_opt.py").write_text(ENDING.replace("END", ending))
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    for executor in ("local", "in-process"):
        sweeps.run(tmp_path / executor, tmp_path / "spec.json", executor=executor)
    runs = (tmp_path / "in-process" / "small" / "runs.csv").read_text()
    assert runs.count(told) == 1
    assert sweeps.tables(tmp_path / "local" / "small") == sweeps.tables(tmp_path / "in-process" / "small")


ENDING = """
import os
import torch

class Ending(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                state["made"] = state.get("made", 0) + 1
                if state["made"] == 6 and group["lr"] == 0.1:
                    END
        super().step()
"""


def test_what_the_sweep_has_against_going_on_is_no_failure_of_a_run(tmp_path: Path) -> None:
    class Broken(Silent):
        once = False

        def update(self, update: Update) -> None:
            if update.done and not self.once:
                self.once = True
                raise ZeroDivisionError("of the reporter")

    with pytest.raises(ZeroDivisionError, match="of the reporter"):
        sweeps.run(tmp_path, executor="in-process", reporter=Broken())
    replay = journal.replay(tmp_path / "small")
    assert replay.entries
    assert "failed" not in {entry.status for entry in replay.entries.values()}


def test_it_is_one_worker(tmp_path: Path) -> None:
    with pytest.raises(WrongOption, match="the executor in-process is one worker; give 1 or auto"):
        sweeps.run(tmp_path, executor="in-process", workers=2)
    with pytest.raises(WrongOption, match="only the executor ray has an address"):
        sweeps.run(tmp_path, executor="in-process", address="head:6379")
    assert not list(tmp_path.iterdir())


def test_to_quit_the_debugger_interrupts_the_sweep_and_fails_no_run(tmp_path: Path) -> None:
    spec = alone(tmp_path, "if calls == 3: raise __import__('bdb').BdbQuit")
    with pytest.raises(StoppedError) as stopped:
        sweeps.run(tmp_path, spec, executor="in-process")
    assert stopped.value.exit_code == 130
    found = journal.replay(tmp_path / "own")
    assert not [entry for entry in found.entries.values() if entry.status == "failed"]


def test_a_breakpoint_in_another_process_says_where_it_would_work(tmp_path: Path) -> None:
    spec = alone(tmp_path, "if calls == 3: raise __import__('bdb').BdbQuit")
    sweeps.run(tmp_path, spec, executor="local")
    found = journal.replay(tmp_path / "own")
    (error,) = {found.outcome(run).error for run, entry in found.entries.items() if entry.status == "failed"}
    assert error is not None
    assert error.startswith("BdbQuit: a debugger needs the terminal of the command; give lrsweep run --executor")
