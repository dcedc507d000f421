"""User code that ends its process is told of by the commands that only try it."""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path

import pytest

from lrsweep.sweep import api, starter
from tests.support import sweeps

pytestmark = [pytest.mark.process, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]
TASK = """
import ctypes, os
import torch
from lrsweep import Task

class Data(torch.utils.data.Dataset):
    def __init__(self, last):
        self.last = last
    def __len__(self):
        return 40
    def __getitem__(self, index):
        if self.last and index > 30:
            {end}
        return torch.full((3,), index / 40), torch.tensor([1.0])

def make():
    given = {{"model": lambda: torch.nn.Linear(3, 1), "loss": torch.nn.functional.mse_loss}}
    return Task(train=Data(True), val=Data(False), **given)
"""
ENDS = [
    ("os._exit(0)", "exited with code 0 (os._exit, or a crash in native code?)"),
    ("ctypes.string_at(0)", "was killed by SIGSEGV (a crash in native code?)"),
]


@pytest.mark.slow
def test_a_sweep_ends_though_its_runs_leave_with_exit_code_0(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK.format(end="os._exit(0)"))
    given = {"task": f"{tmp_path}/task.py:make", "model": None, "lr": [0.1], "seeds": 1, "optimizers": ["sgd"]}
    finished = sweeps.run(tmp_path, sweeps.spec(**given, train={"epochs": 1, "batch_size": 10}))
    assert (finished.trained, finished.failed) == (1, 1)
    assert "exited with code 0" in (finished.path / "runs.csv").read_text()


@pytest.mark.parametrize(("end", "how"), ENDS)
@pytest.mark.parametrize("command", ["dry run", "init", "range test"])
def test_code_that_ends_its_process_is_a_mistake_of_the_user(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, end: str, how: str
) -> None:
    (tmp_path / "task.py").write_text(TASK.format(end=end))
    task = f"{tmp_path}/task.py:make"
    spec = sweeps.spec(task=task, model=None, train={"epochs": 1, "batch_size": 10}, optimizers=["sgd"])

    def called() -> object:
        faulthandler.disable()  # that of pytest prints all frames
        if command == "dry run":
            return sweeps.estimate(tmp_path, spec)
        if command == "init":
            return starter.for_task(task, tmp_path / "sweep.yaml")
        return api.lr_finder(spec, results=tmp_path, device="cpu")

    assert sweeps.forked(called) == 2
    told = capfd.readouterr().err
    assert f"task {task}: the process {how} while " in told
    assert "its task was made at task.py:18 in make" in told
