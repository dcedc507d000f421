"""What every executor keeps: jobs are placed, dead workers are replaced, a stop saves, and the bytes are the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lrsweep.errors import StoppedError
from lrsweep.store import lock
from lrsweep.sweep import runner, supervisor
from lrsweep.sweep.progress import Silent, Update
from lrsweep.workers import executors
from lrsweep.workers.executors import Place
from lrsweep.workers.messages import Job
from tests.support import places, sweeps

GROWN = sweeps.spec(seeds=3)
STEPS = 8_000
LONG = sweeps.spec(train={"steps": STEPS, "batch_size": 20, "eval_every": {"steps": STEPS // 2}}, optimizers=["sgd"])


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, Place]]:
    yield from places.opened()


@pytest.fixture(params=places.EVERY)
def executor(request: pytest.FixtureRequest, opened: dict[str, Place], monkeypatch: pytest.MonkeyPatch) -> str:
    """Its name; the sweeps of the test share one place."""
    name: str = request.param
    shared = places.Shared(opened[name])
    monkeypatch.setattr(executors, "place", lambda name, address: shared)
    monkeypatch.setattr(runner, "CHECKPOINT_SECONDS", 0.0)
    return name


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The tables of sweeps that nothing befell, on this machine."""
    folder = tmp_path_factory.mktemp("reference")
    found = {}
    for name, spec in (("plain", sweeps.spec()), ("grown", GROWN), ("long", LONG)):
        if name != "grown":
            sweeps.run(folder / name, spec, workers=2)
        else:
            sweeps.run(folder / name, workers=2)
            sweeps.run(folder / name, spec, workers=2)
        found[name] = sweeps.tables(folder / name / "small")
    return found


def workers() -> list[int]:
    """The processes that train below this one."""
    found, families = [], {os.getpid()}
    for entry in sorted(int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()):
        try:
            command = Path(f"/proc/{entry}/cmdline").read_text()
            state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        forked = int(parent) in families and not any(name in command for name in ("ray_driver", "ray::", "/ray/"))
        if state != "Z" and ("lrsweep.workers.worker import main" in command or forked):
            found.append(entry)
    return found


def at_once(executor: str) -> int:
    """So many workers train in these tests."""
    return 1 if executor == "in-process" else 2


class Acting(Silent):
    """Sends a signal to a worker once steps have been made, or to this process once half of them have."""

    def __init__(self, number: signal.Signals, *, to_worker: bool) -> None:
        super().__init__()
        self._number, self._to_worker, self.done = number, to_worker, False

    def update(self, update: Update) -> None:
        if not self.done and update.run_steps > (0 if self._to_worker else update.run_steps_total / 2):
            self.done = True
            os.kill(workers()[0] if self._to_worker else os.getpid(), self._number)


def test_it_gives_the_bytes_of_every_other(
    executor: str, tmp_path: Path, reference: dict[str, dict[str, bytes]]
) -> None:
    sweeps.run(tmp_path, executor=executor, workers=at_once(executor))
    assert sweeps.tables(tmp_path / "small") == reference["plain"]
    (session,) = json.loads((tmp_path / "small" / "manifest.json").read_text())["sessions"]
    assert session["executor"] == executor
    assert len(session["throughput"]) == at_once(executor)
    assert sum(worker["runs"] for worker in session["throughput"]) == 12
    assert 0 < sum(worker["optimizer_steps"] for worker in session["throughput"]) <= 12 * 6
    finished = sweeps.run(tmp_path, GROWN, executor=executor, workers=at_once(executor))
    assert finished.trained == 6
    assert sweeps.tables(tmp_path / "small") == reference["grown"]


def test_a_worker_that_is_killed_costs_nothing(
    executor: str, tmp_path: Path, reference: dict[str, dict[str, bytes]]
) -> None:
    if executor == "in-process":
        pytest.skip("its worker is the command")
    reporter = Acting(signal.SIGKILL, to_worker=True)
    sweeps.run(tmp_path, LONG, executor=executor, workers=at_once(executor), reporter=reporter)
    assert reporter.done
    assert any("the worker was killed by SIGKILL" in note for note in reporter.notes)
    assert sweeps.tables(tmp_path / "small") == reference["long"]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
def test_a_stop_saves_and_the_next_command_goes_on(
    executor: str,
    shared: bool,
    tmp_path: Path,
    reference: dict[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`apart`: the machines that train do not see the folder of the sweep."""
    if not shared:
        if executor != "ray":
            pytest.skip("its workers are on this machine")
        monkeypatch.setattr(lock, "holder", lambda folder: b"of another machine")
    with pytest.raises(StoppedError) as info:
        sweeps.run(
            tmp_path,
            LONG,
            executor=executor,
            workers=at_once(executor),
            reporter=Acting(signal.SIGTERM, to_worker=False),
        )
    assert info.value.exit_code == 143
    assert "more trained in part" in str(info.value)
    assert list((tmp_path / "small" / "checkpoints").glob("*.pt"))
    made: list[int] = []
    tick = supervisor._Counts.tick

    def counted(self: Any, job: Job, steps: int) -> None:
        made.append(steps)
        tick(self, job, steps)

    monkeypatch.setattr(supervisor._Counts, "tick", counted)
    sweeps.run(tmp_path, LONG, executor=executor, workers=at_once(executor))
    assert 0 < sum(made) < 0.8 * 4 * STEPS, "it did not go on from its checkpoints"
    assert sweeps.tables(tmp_path / "small") == reference["long"]


def test_what_is_left_of_a_killed_command_is_done_by_the_next(
    executor: str, tmp_path: Path, reference: dict[str, dict[str, bytes]]
) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(LONG))
    journal = tmp_path / "results" / "small" / "journal"
    command = [sys.executable, "-m", "lrsweep", "run", "spec.json", "--device", "cpu", "--workers"]
    with subprocess.Popen(
        [*command, f"{at_once(executor)}", "--executor", executor, "--compile", "off", "--progress", "none"],
        cwd=tmp_path,
    ) as process:
        until = time.monotonic() + 120
        while not any(b"diverged" in file.read_bytes() for file in journal.glob("*.jsonl")):
            assert time.monotonic() < until
            time.sleep(0.05)
        leaders = driver_of(process.pid)
        process.kill()
    until = time.monotonic() + 20
    while (left := [pid for one in leaders for pid in places.processes_of_session(one)]) and until > time.monotonic():
        time.sleep(0.1)
    assert not left
    sweeps.run(tmp_path / "results", LONG, executor=executor, workers=at_once(executor))
    assert sweeps.tables(tmp_path / "results" / "small") == reference["long"]


def driver_of(pid: int) -> list[int]:
    """The process of Ray's driver below a sweep."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if "ray_driver" in Path(f"/proc/{child}/cmdline").read_text()]


def test_what_user_code_prints_is_shown(executor: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(OWN)
    sweeps.run(tmp_path, own(tmp_path), executor=executor, workers=at_once(executor))
    heard = capfd.readouterr()
    # What is forked here writes where pytest collects it, whatever the number of its descriptor.
    assert (heard.err if executor == "ray" else heard.out).count("a model is built") >= 4


OWN = """
import torch
from torch import nn

import beside
from lrsweep import Task

def build():
    print("a model is built")
    return nn.Linear(3, 1)

def make_task():
    x = torch.arange(60.0).reshape(20, 3) / 60
    return Task(train=(x, x[:, :1]), val=(x, x[:, :1]), model=build, loss=beside.loss)
"""


def own(folder: Path) -> dict[str, Any]:
    (folder / "beside.py").write_text("from torch.nn.functional import mse_loss as loss\n")
    train = {"steps": 5, "batch_size": 10}
    return {"name": "own", "task": f"{folder}/own.py:make_task", "lr": [0.1, 0.2], "optimizers": ["sgd"], "seeds": 2,
            "train": train}  # fmt: skip
