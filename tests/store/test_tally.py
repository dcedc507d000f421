"""The tally of a large sweep: the counts that its journal gives, or none."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lrsweep import plan
from lrsweep.plan import Plan
from lrsweep.results import tables
from lrsweep.results.status import status
from lrsweep.run_result import RunResult
from lrsweep.spec.load import load_spec
from lrsweep.store import journal, plan_record, tally
from lrsweep.store.journal import Journal
from lrsweep.store.tally import Tally


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "LEAST_RUNS", 4)


def planned(seeds: int = 6) -> Plan:
    spec = load_spec(
        {
            "name": "made",
            "task": "digits",
            "lr": [0.1],
            "optimizers": ["sgd", "adam"],
            "seeds": seeds,
            "train": {"epochs": 2},
        }
    )
    return plan.build(spec, plan.fingerprints(spec))


def outcome(run: str, state: Any = "ok") -> dict[str, Any]:
    return journal.outcome_record(RunResult(run_id=run, status=state, error="x" if state == "failed" else None), "g")


def begun(folder: Path, of: Plan, *records: dict[str, Any]) -> Journal:
    """A journal that is being written, as a sweep does it."""
    folder.mkdir(exist_ok=True)
    replay = journal.replay(folder)
    writer = Journal(folder)
    writer.append([plan_record.plan_record(of, folder, None), *records])
    writer.tally = Tally(folder, of.spec.name, of.by_id, replay)
    return writer


def unread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`status` without its journal."""
    with monkeypatch.context() as patched:
        patched.delattr(journal, "replay")
        return status(folder)


def whole(folder: Path) -> Any:
    """`status` from its journal."""
    kept = (folder / journal.FOLDER / tally.FILE).rename(folder / "aside")
    found = status(folder)
    kept.rename(folder / journal.FOLDER / tally.FILE)
    return found


def test_it_counts_what_was_written_while_the_journal_grew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = planned()
    ids = [run.run_id for run in of.runs]
    writer = begun(tmp_path, of)
    writer.append([outcome(ids[0]), outcome(ids[1], "failed"), outcome(ids[2], "diverged")])
    assert not (tmp_path / journal.FOLDER / tally.FILE).exists()
    writer.append([outcome(ids[3], "failed")])
    assert unread(tmp_path, monkeypatch) == whole(tmp_path)
    # Since then: a new run, one that failed before, one that counts as it was, and one that failed again.
    writer.append([outcome(ids[4], "diverged"), outcome(ids[1]), outcome(ids[2])])
    found = unread(tmp_path, monkeypatch)
    assert found == whole(tmp_path)
    assert (found.total, found.done, found.diverged, found.failed, found.to_do) == (12, 4, 2, 1, 8)


def test_it_counts_what_older_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, other = planned(), planned(seeds=2)
    ids = [run.run_id for run in of.runs]
    begun(tmp_path, of, *(outcome(run) for run in ids[:5]), outcome("f" * 16)).close()
    writer = begun(tmp_path, of)
    writer.append([outcome(run) for run in ids[5:10]])
    writer.append([outcome(ids[10], "failed")])
    found = unread(tmp_path, monkeypatch)
    assert found == whole(tmp_path)
    assert (found.done, found.failed, found.outside) == (10, 1, 1)
    # A plan of fewer runs begins: the tally is of another.
    begun(tmp_path, other)
    assert status(tmp_path) == whole(tmp_path)
    assert status(tmp_path).total == 4


def test_results_that_were_thrown_away_count_no_longer(tmp_path: Path) -> None:
    of = planned()
    ids = [run.run_id for run in of.runs]
    writer = begun(tmp_path, of, outcome("f" * 16))
    writer.append([outcome(run) for run in ids[:5]])
    void = journal.void_record("w", None, "an audit failed", [*ids[:2], "f" * 16])
    writer.append([void, void])
    assert status(tmp_path) == whole(tmp_path)
    assert status(tmp_path).done == 3
    writer.append([outcome(ids[0]), *(outcome(run) for run in ids[6:])])
    assert status(tmp_path) == whole(tmp_path)  # from the journal
    assert status(tmp_path).done == 10


def test_a_killed_writer_leaves_what_its_last_tally_and_the_rest_of_its_file_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = planned()
    writer = begun(tmp_path, of)
    writer.append([outcome(run.run_id) for run in of.runs[:7]])
    assert writer.path is not None
    with writer.path.open("ab") as stream:
        stream.write(b"0000")
    # The sweep no longer runs, so that this is damage, of which only the journal tells.
    assert tally.counts(tmp_path, running=False) is None
    found = tally.counts(tmp_path, running=True)
    assert found is not None
    assert found[1]["ok"] == 7


def altered(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A tally that somebody made with a checksum that fits."""
    told = json.loads(path.read_bytes().partition(b"\n")[0])
    change(told)
    line = json.dumps(told).encode()
    path.write_bytes(line + b"\n" + hashlib.sha256(line).hexdigest().encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(lrsweep="0.0.1"),
        lambda told: told.update(name=3),
        lambda told: told.update(size=told["size"] + 1),
        lambda told: told.update(size=-1),
        lambda told: told.update(size=float("inf")),
        lambda told: told.update(outside=None),
        lambda told: told.update(sha256="0" * 64),
        lambda told: told.update(file="other.jsonl"),
        lambda told: told.update(before={"other.jsonl": [1, 2]}),
        lambda told: told.update(before=[]),
        lambda told: told.update(runs={}),
        lambda told: told["runs"].update(ok="../../etc/passwd"),
        lambda told: told["runs"].update(ok=7),
        lambda told: told.pop("runs"),
    ],
)
def test_a_tally_that_is_not_of_this_journal_is_passed_over(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    of = planned()
    writer = begun(tmp_path, of)
    writer.append([outcome(run.run_id) for run in of.runs[:7]])
    path = tmp_path / journal.FOLDER / tally.FILE
    altered(path, lambda told: None)
    assert tally.counts(tmp_path, running=False) is not None
    altered(path, change)
    assert tally.counts(tmp_path, running=False) is None
    assert status(tmp_path).done == 7


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]\n", b"\xff\n\xff", b"cut", b"flipped"])
def test_a_damaged_tally_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    of = planned()
    writer = begun(tmp_path, of)
    writer.append([outcome(run.run_id) for run in of.runs[:7]])
    path = tmp_path / journal.FOLDER / tally.FILE
    data = bytearray(path.read_bytes())
    data[data.index(b'"ok": "') + 9] ^= 1
    path.write_bytes({b"cut": path.read_bytes()[:-9], b"flipped": bytes(data)}.get(damage, damage))
    assert tally.counts(tmp_path, running=False) is None
    assert status(tmp_path).done == 7


@pytest.mark.parametrize("which", ["of the tally", "before"])
def test_a_file_of_which_a_byte_was_changed_is_read(
    tmp_path: Path, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    of = planned()
    ids = [run.run_id for run in of.runs]
    first = begun(tmp_path, of, *(outcome(run) for run in ids[:5]))
    second = begun(tmp_path, of)
    second.append([outcome(run) for run in ids[5:]])
    path = second.path if which == "of the tally" else first.path
    assert path is not None
    assert tally.counts(tmp_path, running=False) is not None
    data, stat = path.read_bytes(), path.stat()
    path.write_bytes(data[:-9] + b"#" + data[-8:])
    if which == "of the tally":  # a change of an older file is told by its time, as by the stamp of the tables
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert status(tmp_path).to_do == 1
    assert "rerun `lrsweep run`" in caplog.text


def test_a_file_of_the_journal_that_is_gone_is_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    of = planned()
    ids = [run.run_id for run in of.runs]
    first = begun(tmp_path, of, *(outcome(run) for run in ids[:5]))
    tables.ensure(tmp_path)
    second = begun(tmp_path, of)
    second.append([outcome(run) for run in ids[5:]])
    assert first.path is not None
    first.path.unlink()
    assert status(tmp_path).done == 7
    assert "deleted or cut" in caplog.text


def test_nothing_is_written_of_a_journal_that_has_lost_lines(tmp_path: Path) -> None:
    of = planned()
    first = begun(tmp_path, of, outcome(of.runs[0].run_id))
    assert first.path is not None
    with first.path.open("ab") as stream:
        stream.write(b"nonsense\n")
    begun(tmp_path, of).append([outcome(run.run_id) for run in of.runs[1:]])
    assert not (tmp_path / journal.FOLDER / tally.FILE).exists()


def test_a_small_sweep_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    of = planned()
    writer = begun(tmp_path, of)
    writer.append([outcome(run.run_id) for run in of.runs])
    writer.close()
    assert [path.suffix for path in (tmp_path / journal.FOLDER).iterdir()] == [".jsonl"]
