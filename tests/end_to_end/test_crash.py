"""SIGKILL, full disks and damaged files, anywhere: the same command then ends in the same bytes."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lrsweep.errors import StorageError
from lrsweep.store import checkpoints, failpoints, journal
from lrsweep.sweep import runner
from lrsweep.sweep.progress import Silent
from lrsweep.workers import worker
from tests.support import sweeps

GROWN = sweeps.spec(seeds=3)
REFINED = sweeps.spec(lr=[0.001, 0.01, 0.1, 1e38], optimizers=["sgd"], train={"epochs": 20, "batch_size": 20})


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked sweeps need a process without threads; checkpoints come after every update."""
    worker.one_thread()
    monkeypatch.setattr(runner, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(worker, "CHECKPOINT_SHARE", 1e9)


def extended(folder: Path) -> None:
    """A sweep, then the same with another seed."""
    sweeps.run(folder)
    sweeps.run(folder, GROWN)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    worker.one_thread()
    folder = tmp_path_factory.mktemp("reference")
    sweeps.run(folder)
    plain = sweeps.tables(folder / "small")
    sweeps.run(folder, GROWN)
    return {"plain": plain, "grown": sweeps.tables(folder / "small")}


def armed(function: Callable[[], object], **environment: str) -> int:
    """Exit code of a forked process whose crash points are set by the environment."""

    def call() -> None:
        failpoints._plan = failpoints._Plan(environment)
        function()

    return sweeps.forked(call)


def points(folder: Path) -> list[tuple[str, int]]:
    """Every crash point that the sweeping process itself reaches, with its ordinal."""
    count = folder / "count"
    assert armed(lambda: extended(folder / "counted"), LRSWEEP_CRASH_COUNT=str(count)) == 0
    lines = [line.split() for line in count.read_text().splitlines()]
    main = lines[0][0]
    reached = Counter(name for pid, name in lines if pid == main)
    assert {name for pid, name in lines if pid != main} >= {"checkpoint.write"}
    return [(name, ordinal + 1) for name in sorted(reached) for ordinal in range(reached[name])]


def check_killed_at(folder: Path, name: str, ordinal: int, expected: dict[str, bytes]) -> bool:
    """Was it killed? Records that come together are written together, so now and then there are fewer writes."""
    code = armed(lambda: extended(folder), LRSWEEP_CRASH=f"{name}:{ordinal}")
    assert code in (sweeps.KILLED, 0)
    extended(folder)
    assert sweeps.tables(folder / "small") == expected, f"killed at {name}:{ordinal}"
    assert not list((folder / "small").rglob(".tmp-*"))
    assert not list((folder / "small" / "checkpoints").glob("*"))
    return code == sweeps.KILLED


def test_killed_at_sampled_writes(tmp_path: Path, reference: dict[str, dict[str, bytes]]) -> None:
    reached = points(tmp_path)
    assert len(reached) > 60
    names = {name for name, _ in reached}
    assert names >= {"journal.write", "journal.fsync", "journal.synced", "journal.open", "file.replace"}
    chosen = random.Random(1).sample(reached, 5)
    killed = [check_killed_at(tmp_path / str(i), *point, reference["grown"]) for i, point in enumerate(chosen)]
    assert sum(killed) >= 3


@pytest.mark.slow
def test_killed_at_every_write(tmp_path: Path, reference: dict[str, dict[str, bytes]]) -> None:
    killed = []
    for number, (name, ordinal) in enumerate(points(tmp_path)):
        killed.append(check_killed_at(tmp_path / str(number), name, ordinal, reference["grown"]))
        shutil.rmtree(tmp_path / str(number))
    assert sum(killed) >= 0.9 * len(killed)


def test_killed_at_random_times(tmp_path: Path, reference: dict[str, dict[str, bytes]]) -> None:
    """Again and again until it comes through: every start goes on from what the one before left."""
    chance = random.Random(2)
    for _ in range(60):
        pid = os.fork()
        if pid == 0:
            try:
                extended(tmp_path)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0.1, 0.5))
        os.kill(pid, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            break
    extended(tmp_path)
    assert sweeps.tables(tmp_path / "small") == reference["grown"]


def test_a_worker_killed_while_it_saves_costs_nothing(
    tmp_path: Path, reference: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoints.write
    flag = tmp_path / "killed"

    def write(folder: Path, group: str, state: dict[str, Any]) -> journal.Checkpoint:
        if state_step(state) >= 4 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(folder, group, state)

    monkeypatch.setattr(checkpoints, "write", write)
    reporter = Silent()
    sweeps.run(tmp_path, reporter=reporter)
    assert flag.exists()
    assert any("SIGKILL" in note for note in reporter.notes)
    assert sweeps.tables(tmp_path / "small") == reference["plain"]


def state_step(state: dict[str, Any]) -> int:
    return int(state["step"])


def test_a_damaged_checkpoint_costs_time_only(tmp_path: Path, reference: dict[str, dict[str, bytes]]) -> None:
    assert armed(lambda: sweeps.run(tmp_path), LRSWEEP_CRASH="checkpoint.delete:3") == sweeps.KILLED
    saved = list((tmp_path / "small" / "checkpoints").glob("*.pt"))
    assert saved
    for path in saved:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    sweeps.run(tmp_path)
    assert sweeps.tables(tmp_path / "small") == reference["plain"]


@pytest.mark.parametrize("point", ["journal.aside:1", "journal.write:1", "journal.open:1", "journal.synced:2"])
@pytest.mark.parametrize("again", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_fresh_sweep_killed_anywhere_never_brings_back_refined_rates(tmp_path: Path, point: str, again: bool) -> None:
    folder = tmp_path / "small"
    sweeps.run(tmp_path, REFINED)
    plain = sweeps.tables(folder)
    sweeps.run(tmp_path, REFINED, refine=True)
    assert sweeps.tables(folder) != plain
    assert armed(lambda: sweeps.run(tmp_path, REFINED, fresh=True), LRSWEEP_CRASH=point) == sweeps.KILLED
    begun = point != "journal.aside:1"  # until then nothing has happened, and without --fresh nothing does
    sweeps.run(tmp_path, REFINED, fresh=again)
    assert (sweeps.tables(folder) == plain) == (begun or again)
    assert len(list(folder.glob("journal.old-*"))) == (begun or again)


# Damage to the journal.


def interrupted(folder: Path, ordinal: int) -> Path:
    """A journal of a sweep that was killed in the second of two commands."""
    for _ in range(5):  # on a busy machine results come together, in fewer writes than are counted on
        shutil.rmtree(folder, ignore_errors=True)
        if armed(lambda: extended(folder), LRSWEEP_CRASH=f"journal.synced:{ordinal}") == sweeps.KILLED:
            break
    else:
        pytest.fail("the sweep was never killed")
    return folder / "small" / "journal"


def damaged(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    lines = data.splitlines(keepends=True)
    kind = chance.choice(["cut", "flip", "zero", "lose", "twice"])
    if kind == "cut":
        return data[:at]
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
    if kind == "zero":
        return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]
    line = chance.randrange(len(lines))
    return b"".join(lines[:line] + lines[line + 1 :] if kind == "lose" else [*lines, lines[line]])


def test_a_damaged_journal_is_healed_or_refused(tmp_path: Path, reference: dict[str, dict[str, bytes]]) -> None:
    chance = random.Random(3)
    start = tmp_path / "start"
    interrupted(start, 19)
    refused: list[str] = []
    for number in range(8):
        folder = tmp_path / str(number)
        shutil.copytree(start, folder)
        for path in journal.paths(folder / "small"):
            path.write_bytes(damaged(path.read_bytes(), chance))
        try:
            extended(folder)
        except StorageError as error:
            refused.append(str(error))
        else:
            assert sweeps.tables(folder / "small") == reference["grown"]
    assert all("--fresh" in text for text in refused)
    assert len(refused) <= 2


@pytest.mark.parametrize("which", [0, 1])
def test_a_deleted_journal_file_is_told_and_what_it_held_is_trained_again(
    tmp_path: Path, reference: dict[str, dict[str, bytes]], which: int
) -> None:
    extended(tmp_path)
    journal.paths(tmp_path / "small")[which].unlink()
    reporter = Silent()
    assert sweeps.run(tmp_path, GROWN, reporter=reporter).trained == (12, 6)[which]
    assert any("the journal lost" in note for note in reporter.notes)
    assert sweeps.tables(tmp_path / "small") == reference["grown"]
    reporter = Silent()
    sweeps.run(tmp_path, GROWN, reporter=reporter)
    assert not any("lost" in note for note in reporter.notes)


def test_refined_rates_are_not_lost_with_the_journal_file_that_asked_for_them(tmp_path: Path) -> None:
    sweeps.run(tmp_path, REFINED)
    sweeps.run(tmp_path, REFINED, refine=True)
    before = sweeps.tables(tmp_path / "small")
    _, last = journal.paths(tmp_path / "small")
    last.unlink()
    assert sweeps.run(tmp_path, REFINED).trained > 0
    assert sweeps.tables(tmp_path / "small") == before


def test_a_clock_that_is_set_back_changes_nothing(
    tmp_path: Path, reference: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps.run(tmp_path)
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() - 10**14)
    sweeps.run(tmp_path, GROWN)
    (tmp_path / "small" / "runs.csv").unlink()
    assert sweeps.run(tmp_path, GROWN).trained == 0
    assert len(journal.paths(tmp_path / "small")) == 2
    assert sweeps.tables(tmp_path / "small") == reference["grown"]


@pytest.mark.parametrize("name", ["spec.yaml", "runs.csv", "manifest.json", "journal/tables.json"])
def test_a_damaged_derived_file_is_healed(tmp_path: Path, reference: dict[str, dict[str, bytes]], name: str) -> None:
    sweeps.run(tmp_path)
    (tmp_path / "small" / name).write_bytes(b"\0" * 50)
    sweeps.run(tmp_path)
    assert sweeps.tables(tmp_path / "small") == reference["plain"]
    assert b"\0" not in (tmp_path / "small" / "spec.yaml").read_bytes()


@pytest.mark.parametrize("harm", ["deleted", "cut", "the whole journal"])
def test_a_journal_that_is_harmed_while_the_sweep_runs_costs_no_tables(
    tmp_path: Path, reference: dict[str, dict[str, bytes]], harm: str
) -> None:
    sweeps.run(tmp_path)

    class Harming(Silent):
        def finish(self) -> None:
            newest = journal.paths(tmp_path / "small")[-1]
            if harm == "the whole journal":
                shutil.rmtree(newest.parent)
            elif harm == "deleted":
                newest.unlink()
            else:
                lines = newest.read_bytes().splitlines(keepends=True)
                newest.write_bytes(b"".join(lines[:-3]))

    with pytest.raises(StorageError, match="holds only") as info:
        sweeps.run(tmp_path, GROWN, reporter=Harming())
    assert info.value.exit_code == 4
    assert sweeps.tables(tmp_path / "small") == reference["plain"]
    sweeps.run(tmp_path, GROWN)
    assert sweeps.tables(tmp_path / "small") == reference["grown"]


# Disks that do not take it.


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, int], list[int]]:
    def arm(function: str, number: int, code: int) -> list[int]:
        """Let the `number`-th call (from 0; -1: none) of an os function fail in this process; counts the calls."""
        real, main, calls = getattr(os, function), os.getpid(), [0]

        def call(*args: Any, **kwargs: Any) -> Any:
            if os.getpid() == main:
                calls[0] += 1
                if calls[0] == number + 1:
                    if function == "write":  # a true disk takes a part of the last write
                        real(args[0], bytes(args[1])[: len(args[1]) // 2])
                    raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, function, call)
        return calls

    return arm


@pytest.mark.parametrize(("function", "code"), [
    ("write", errno.ENOSPC), ("replace", errno.EDQUOT),
    pytest.param("fsync", errno.EIO, marks=pytest.mark.slow),
    pytest.param("open", errno.EACCES, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_full_disk_at_any_call_is_exit_4_and_loses_nothing(
    tmp_path: Path,
    reference: dict[str, dict[str, bytes]],
    failing: Callable[[str, int, int], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    code: int,
) -> None:
    calls = failing(function, -1, code)
    sweeps.run(tmp_path / "count")
    total = calls[0]
    assert total >= 3
    failures: list[StorageError] = []
    for number in range(total):
        monkeypatch.undo()
        failing(function, number, code)
        folder = tmp_path / str(number)
        try:
            sweeps.run(folder)
        except StorageError as error:
            failures.append(error)
        monkeypatch.undo()
        sweeps.run(folder)
        assert sweeps.tables(folder / "small") == reference["plain"]
    assert failures or function == "open"
    assert all(error.exit_code == 4 and str(tmp_path) in str(error) for error in failures)


def test_a_limit_on_file_sizes_is_exit_4_and_loses_nothing(
    tmp_path: Path, reference: dict[str, dict[str, bytes]]
) -> None:
    for limit in (100, 2000, 5000):
        reader, writer = os.pipe()

        def limited(limit: int = limit, writer: int = writer) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                sweeps.run(tmp_path / str(limit))
            except StorageError as error:
                os.write(writer, str(error).encode())
                raise

        assert sweeps.forked(limited) == 4
        assert b"ulimit -f" in os.read(reader, 10000)
        os.close(reader)
        os.close(writer)
        sweeps.run(tmp_path / str(limit))
        assert sweeps.tables(tmp_path / str(limit) / "small") == reference["plain"]
