"""User code that ends its process is told of by the commands that only try it."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lrsweep.sweep import api, starter
from lrsweep.system import child
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


BUILT = """
import ctypes, os, signal
import torch
from lrsweep import Task

{at_import}

def make():
    {in_make}
    data = torch.zeros(8, 3), torch.zeros(8, 1)
    return Task(train=data, val=data, model=lambda: torch.nn.Linear(3, 1), loss=torch.nn.functional.mse_loss)

class Own(torch.optim.SGD):
    pass
"""


def _called(command: str, folder: Path, *, optimizers: list[str]) -> object:
    faulthandler.disable()  # that of pytest prints all frames
    task = f"{folder}/task.py:make"
    spec = sweeps.spec(task=task, model=None, optimizers=optimizers)
    if command == "init":
        return starter.for_task(task, folder / "sweep.yaml")
    if command == "range test":
        return api.lr_finder(spec, results=folder, device="cpu")
    return sweeps.run(folder, spec) if command == "run" else sweeps.estimate(folder, spec)


@pytest.mark.parametrize("command", ["run", "dry run", "init", "range test"])
@pytest.mark.parametrize("place", ["at_import", "in_make"])
def test_a_task_that_leaves_while_it_is_built_ends_the_command_with_2_and_the_place(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, place: str
) -> None:
    (tmp_path / "task.py").write_text(BUILT.format(**{"at_import": "", "in_make": "", place: "os._exit(0)"}))
    assert sweeps.forked(lambda: _called(command, tmp_path, optimizers=["sgd"])) == 2
    told = capfd.readouterr().err
    assert "ProcessExit: os._exit(0) was called, which ends the whole command; raise an exception instead" in told
    assert f"task.py:{9 if place == 'in_make' else 6}" in told
    assert not (tmp_path / "small" / "journal").exists()


def test_an_optimizer_whose_file_leaves_ends_the_command_with_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "task.py").write_text(BUILT.format(at_import="", in_make="pass"))
    (tmp_path / "own.py").write_text("import os\nos._exit(0)\nclass Own: pass\n")
    assert sweeps.forked(lambda: _called("run", tmp_path, optimizers=[f"{tmp_path}/own.py:Own"])) == 2
    assert "own.py:2: cannot be loaded: ProcessExit: os._exit(0) was called" in capfd.readouterr().err


@pytest.mark.parametrize("source", ["os._exit(0)\ndef f(): pass", "def f(step, total_steps): os._exit(0)"])
def test_a_schedule_that_leaves_ends_the_command_with_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], source: str
) -> None:
    (tmp_path / "own.py").write_text(f"import os\n{source}\n")
    given = {"schedule": f"{tmp_path}/own.py:f", "optimizers": ["sgd"]}
    assert sweeps.forked(lambda: sweeps.run(tmp_path, sweeps.spec(**given))) == 2
    assert "ProcessExit: os._exit(0) was called" in capfd.readouterr().err
    assert not (tmp_path / "small" / "journal").exists()


@pytest.mark.parametrize(("end", "signal_number"), [("ctypes.string_at(0)", 11), ("os.kill(os.getpid(), 9)", 9)])
@pytest.mark.parametrize("command", ["run", "dry run", "init", "range test"])
def test_a_crash_while_a_task_is_built_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, end: str, signal_number: int
) -> None:
    (tmp_path / "task.py").write_text(BUILT.format(at_import="", in_make=end))
    assert sweeps.forked(lambda: _called(command, tmp_path, optimizers=["sgd"])) == -signal_number
    told, end = "", time.monotonic() + 10
    while "built" not in told and time.monotonic() < end:  # another process says so after the end of this one
        time.sleep(0.05)
        told += capfd.readouterr().err
    text = f"the process ended while task {tmp_path}/task.py:make was being built (a crash in native code, or out of"
    assert text in told


def test_a_task_is_built_where_the_system_has_no_pidfd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    (tmp_path / "task.py").write_text(BUILT.format(at_import="", in_make="pass"))
    assert sweeps.forked(lambda: _called("run", tmp_path, optimizers=["sgd"])) == 0


def test_a_task_may_wait_for_all_its_processes(tmp_path: Path) -> None:
    """The one that would tell of a crash is none of them."""
    code = "while True:\n        try: os.waitpid(-1, 0)\n        except ChildProcessError: break"
    (tmp_path / "task.py").write_text(BUILT.format(at_import="", in_make=code))
    assert sweeps.forked(lambda: _called("run", tmp_path, optimizers=["sgd"])) == 0


def test_a_task_may_start_processes_that_leave_with_os_exit(tmp_path: Path) -> None:
    code = "pid = os.fork()\n    if pid == 0: os._exit(7)\n    assert os.waitpid(pid, 0)[1] == 7 << 8"
    (tmp_path / "task.py").write_text(BUILT.format(at_import="", in_make=code))
    assert sweeps.forked(lambda: _called("run", tmp_path, optimizers=["sgd"])) == 0


def test_a_signal_while_a_task_is_built_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        BUILT.format(at_import="import time", in_make="print('built', flush=True); time.sleep(60)")
    )
    (tmp_path / "sweep.yaml").write_text("task: task.py:make\noptimizers: [sgd]\ntrain: {epochs: 1}\n")
    for command in ("run", "range-test"):
        process = subprocess.Popen(
            [sys.executable, "-m", "lrsweep", command, "sweep.yaml"], cwd=tmp_path, stderr=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert process.stderr is not None
        assert "built\n" in iter(process.stderr.readline, "")  # what the user's code prints is no output of the command
        process.terminate()
        _, told = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "stopped by SIGTERM" in told
        assert "the process ended" not in told


def test_where_no_copy_can_be_made_leaving_is_told_all_the_same(tmp_path: Path) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(child.ChildDiedError, match=r"^called os\._exit\(3\)$"):
            child.call(lambda: os._exit(3))
    finally:
        done.set()
        thread.join()
