"""Signals: what is done is in the tables, the rest goes on from where it stood. And: one process a sweep."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lrsweep.errors import BusyError, StoppedError
from lrsweep.results import tables
from lrsweep.store import checkpoints, lock
from lrsweep.sweep import runner
from lrsweep.sweep.progress import Silent, Update
from lrsweep.system.signals import ENDING, Stopping
from lrsweep.workers import worker
from tests.support import sweeps

LONG = sweeps.spec(train={"steps": 150_000, "batch_size": 20, "eval_every": {"steps": 50_000}}, optimizers=["sgd"])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    worker.one_thread()


class Telling(Silent):
    """Writes a byte to a pipe once the first updates have been made, and once `done` runs are done."""

    def __init__(self, descriptor: int, done: int = 0) -> None:
        super().__init__()
        self._descriptor, self._done, self._told = descriptor, done, False

    def update(self, update: Update) -> None:
        if not self._told and update.run_steps > 0 and update.done >= self._done:
            self._told = True
            os.write(self._descriptor, b"x")


def started(folder: Path, config: Any, done: int = 0, *, own_group: bool = False) -> int:
    """Process id of a forked sweep that has begun to train."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        if own_group:
            os.setpgid(0, 0)
        code = sweeps.forked_code(lambda: sweeps.run(folder, config, reporter=Telling(writer, done)))
        os._exit(code)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    return pid


def ended(pid: int, seconds: float) -> int:
    """Exit code; fails if it takes longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"still there after {seconds} s")


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids: list[int], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if Path(f"/proc/{pid}").exists() and not zombie(pid)]
        if not alive:
            return True
        time.sleep(0.02)
    return False


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_ends_the_sweep_with_its_runs_in_the_tables(
    tmp_path: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = started(tmp_path, LONG, done=2)  # those that diverge at once
    workers = children(pid)
    assert workers
    os.kill(pid, number)
    assert ended(pid, 15) == 128 + number  # 5 s on a machine with nothing else to do
    cause = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    line = f"{cause}: 2 of 6 runs saved in {tmp_path / 'small'} and 4 more trained in part; rerun the command to resume"
    assert capfd.readouterr().err.splitlines()[-1] == line
    assert gone(workers)
    runs = tables.read_runs(tmp_path / "small")
    assert runs["status"].tolist() == ["diverged", "diverged"]
    assert runs["lr"].tolist() == [1e38, 1e38]
    assert list((tmp_path / "small" / "checkpoints").glob("*.pt"))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU], ids=lambda number: number.name)
def test_a_signal_to_the_whole_process_group_and_again_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """A closed terminal hangs up on the workers too, and twice; batch systems signal whole jobs."""
    pid = started(tmp_path, LONG, own_group=True)
    for _ in range(3):
        os.killpg(pid, number)
        time.sleep(0.05)
    assert ended(pid, 15) == 128 + number
    assert list((tmp_path / "small" / "checkpoints").glob("*.pt"))
    assert (tmp_path / "small" / "runs.csv").is_file()


def test_a_worker_at_its_limit_of_cpu_time_ends_the_sweep(tmp_path: Path) -> None:
    pid = started(tmp_path, LONG)
    os.kill(children(pid)[0], signal.SIGXCPU)
    assert ended(pid, 15) == 128 + signal.SIGXCPU
    assert list((tmp_path / "small" / "checkpoints").glob("*.pt"))


def test_under_nohup_a_sweep_outlives_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        pid = started(tmp_path, LONG)
    finally:
        signal.signal(signal.SIGHUP, before)
    os.kill(pid, signal.SIGHUP)
    time.sleep(0.5)
    assert children(pid)
    os.kill(pid, signal.SIGTERM)
    assert ended(pid, 15) == 128 + signal.SIGTERM


def test_a_stopped_sweep_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    config = sweeps.spec(train={"steps": 3000, "batch_size": 20, "eval_every": {"steps": 1000}}, lr=[0.01, 1e38])
    sweeps.run(tmp_path / "whole", config)
    for _ in range(2):
        pid = started(tmp_path / "parts", config)
        os.kill(pid, signal.SIGTERM)
        assert ended(pid, 20) == 143
    sweeps.run(tmp_path / "parts", config)
    assert sweeps.tables(tmp_path / "parts" / "small") == sweeps.tables(tmp_path / "whole" / "small")


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> Any:
        time.sleep(60)

    monkeypatch.setattr(checkpoints, "write", hang)  # saving takes for ever
    pid = started(tmp_path, LONG)
    workers = children(pid)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    os.kill(pid, signal.SIGINT)
    assert ended(pid, 2) == 130
    assert gone(workers)


def test_workers_that_do_not_leave_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> Any:
        time.sleep(60)

    monkeypatch.setattr(checkpoints, "write", hang)
    pid = started(tmp_path, LONG)
    os.kill(pid, signal.SIGTERM)
    assert ended(pid, 10) == 143


def test_workers_die_with_a_killed_parent_and_the_next_may_start(tmp_path: Path) -> None:
    pid = started(tmp_path, LONG)
    workers = children(pid)
    assert workers
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with lock.hold(tmp_path / "small"):  # at once
        pass
    assert gone(workers)


def test_a_second_process_is_told_who_is_at_work(tmp_path: Path) -> None:
    pid = started(tmp_path, LONG)
    try:
        with pytest.raises(BusyError, match=f"process {pid} on ") as info:
            sweeps.run(tmp_path, LONG)
        assert info.value.exit_code == 5
        assert lock.is_held(tmp_path / "small")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not lock.is_held(tmp_path / "small")


def test_no_except_of_others_holds_a_signal_up() -> None:
    with suppress(StoppedError), Stopping().installed():
        with suppress(Exception):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        pytest.fail("it went on")


def test_a_signal_waits_for_the_imports() -> None:
    done = []
    stopping = Stopping()

    def imports() -> None:
        with stopping.installed(), stopping.importing():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
                done.append(1)

    with pytest.raises(StoppedError) as info:
        imports()
    assert info.value.exit_code == 143
    assert len(done) == 2


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    sweeps.run(tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_a_library_in_c_handles_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGUSR1 else real(number))
    with Stopping().installed():
        taken = [number for number in ENDING if getattr(real(number), "__self__", None)]
    assert signal.SIGUSR2 in taken
    assert signal.SIGUSR1 not in taken


def test_a_sweep_runs_in_another_thread(tmp_path: Path) -> None:
    """Signals cannot be handled there, and workers cannot be forked: both have another way."""
    import threading

    found: list[Callable[..., Any] | Any] = []
    thread = threading.Thread(target=lambda: found.append(sweeps.run(tmp_path)))
    thread.start()
    thread.join()
    assert found[0].trained == 12
    assert runner.CHECKPOINT_SECONDS > 1
