"""The journal: what is written comes back, and no damage hides more than the line it hits."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrsweep.errors import StorageError
from lrsweep.run_result import RunResult
from lrsweep.store import journal
from lrsweep.store.journal import Checkpoint, Group, Journal

FLOATS = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)


def outcome(run_id: str, status: Any = "ok", losses: list[float] | None = None, error: str | None = None) -> RunResult:
    losses = [2.5, 1.0] if losses is None else losses
    steps = list(range(len(losses)))
    rows: dict[str, list[Any]] = {"step": steps, "epoch": [float(s) for s in steps], "train_loss": losses}
    return RunResult(run_id=run_id, status=status, steps=len(steps), history=rows, error=error, test={"test_loss": 0.1})


def write(folder: Path, *records: dict[str, Any]) -> Path:
    writer = Journal(folder)
    for record in records:
        writer.append([record])
    writer.close()
    assert writer.path is not None
    return writer.path


def same(a: RunResult, b: RunResult) -> bool:
    return repr(a) == repr(b)  # nan equals nan


@given(losses=st.lists(FLOATS, max_size=6), error=st.none() | st.text(max_size=30), loss=FLOATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_outcomes_come_back_to_the_bit(tmp_path: Path, losses: list[float], error: str | None, loss: float) -> None:
    shutil.rmtree(tmp_path / "journal", ignore_errors=True)
    given_ = outcome("a" * 16, losses=losses, error=error)
    given_.test["test_loss"] = loss
    write(tmp_path, journal.outcome_record(given_, "g"))
    assert same(journal.replay(tmp_path).outcome("a" * 16), given_)


def test_a_writer_that_writes_nothing_leaves_no_file(tmp_path: Path) -> None:
    writer = Journal(tmp_path)
    writer.append([])
    writer.close()
    assert not journal.exists(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_plain_text_without_bare_nan(tmp_path: Path) -> None:
    path = write(tmp_path, journal.outcome_record(outcome("a", losses=[math.nan, math.inf, -math.inf]), "g"))
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert '["nan","inf","-inf"]' in text


def test_the_first_outcome_of_a_run_counts_but_failed_gives_way(tmp_path: Path) -> None:
    first, second = outcome("a", losses=[1.0]), outcome("a", losses=[2.0])
    write(tmp_path, *[journal.outcome_record(o, "g") for o in (outcome("a", "failed"), first, second)])
    write(tmp_path, journal.outcome_record(outcome("a", "failed"), "g"))
    found = journal.replay(tmp_path)
    assert same(found.outcome("a"), first)
    assert found.entries["a"].status == "ok"


def test_groups_checkpoints_and_plans_come_back(tmp_path: Path) -> None:
    a, b = Group(engine="stacked", runs=("1", "2")), Group(engine="single", runs=("3",), reason="why", raised=True)
    write(
        tmp_path,
        {"kind": "plan", "spec": "old"},
        journal.groups_record([a, b]),
        journal.checkpoint_record(a.id, Checkpoint(file="x-1.pt", sha256="0")),
        journal.checkpoint_record(a.id, Checkpoint(file="x-2.pt", sha256="1")),
        {"kind": "plan", "spec": "new"},
    )
    found = journal.replay(tmp_path)
    assert found.groups == {a.id: a, b.id: b}
    assert found.checkpoints == {a.id: Checkpoint(file="x-2.pt", sha256="1")}
    assert found.plan is not None
    assert found.plan["spec"] == "new"


def test_groups_of_older_journals_say_by_their_reason_whether_it_was_an_exception(tmp_path: Path) -> None:
    reasons = ["an error in the trial of the model: KeyError", "the model uses a GRU", None]
    groups = [{"engine": "single", "compile": False, "reason": why, "runs": [str(i)]} for i, why in enumerate(reasons)]
    write(tmp_path, {"kind": "groups", "groups": groups})
    assert [group.raised for group in journal.replay(tmp_path).groups.values()] == [True, False, False]


def test_files_count_in_the_order_of_their_start(tmp_path: Path) -> None:
    late = write(tmp_path, journal.outcome_record(outcome("a", losses=[9.0]), "g"))
    early = write(tmp_path, journal.outcome_record(outcome("a", losses=[1.0]), "g"))
    late.rename(late.with_name("a-1-900.jsonl"))
    early.rename(early.with_name("z-host-1-80.jsonl"))
    assert journal.replay(tmp_path).outcome("a").history["train_loss"] == [1.0]


def sample(folder: Path) -> tuple[Path, list[RunResult]]:
    outcomes = [outcome(name, losses=[0.1, math.nan]) for name in "abc"]
    return write(folder, *[journal.outcome_record(o, "g") for o in outcomes]), outcomes


def test_cut_at_every_byte_only_the_torn_line_is_lost(tmp_path: Path) -> None:
    path, outcomes = sample(tmp_path)
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == 10]  # the header, then a, b, c
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        found = journal.replay(tmp_path)
        whole = sum(end <= cut for end in ends)
        assert list(found.entries) == ["a", "b", "c"][: max(whole - 1, 0)]
        assert len(found.damage) == (cut not in (0, *ends))
        assert all(same(found.outcome(o.run_id), o) for o in outcomes[: max(whole - 1, 0)])


def test_a_flip_of_any_byte_never_changes_an_outcome(tmp_path: Path) -> None:
    path, outcomes = sample(tmp_path)
    data = path.read_bytes()
    for index in range(len(data)):
        for mask in (0x20, data[index] ^ 10):
            if mask == 0:
                continue
            path.write_bytes(data[:index] + bytes([data[index] ^ mask]) + data[index + 1 :])
            found = journal.replay(tmp_path)
            assert found.damage
            assert len(found.entries) >= 1
            assert all(same(found.outcome(o.run_id), o) for o in outcomes if o.run_id in found.entries)


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_duplicated_reordered_and_mixed_lines(tmp_path: Path, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path / "journal", ignore_errors=True)
    path, outcomes = sample(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    noise = st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"") + b"\n")
    mixed = data.draw(st.lists(st.sampled_from(lines) | noise, max_size=12))
    path.write_bytes(b"".join(mixed))
    found = journal.replay(tmp_path)
    present = [o for o in outcomes if lines[1 + outcomes.index(o)] in mixed]
    assert sorted(found.entries) == sorted(o.run_id for o in present)
    assert all(same(found.outcome(o.run_id), o) for o in present)
    assert len(found.damage) == sum(line not in lines for line in mixed)


def test_damage_is_reported_with_file_line_and_cause_and_copied_once(tmp_path: Path) -> None:
    path, _ = sample(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"run":"b"', b'"run":"x"')[:-5])
    found = journal.replay(tmp_path)
    assert [(d.file, d.line) for d in found.damage] == [(path, 3), (path, 4)]
    assert "checksum" in found.damage[0].cause
    assert "incomplete" in found.damage[1].cause
    assert journal.keep_damaged(found) == found.damage
    copy = path.with_name(path.name + ".corrupt").read_bytes()
    assert copy.count(b"\n") == 2
    assert b'"run":"x"' in copy
    again = journal.replay(tmp_path)
    assert journal.keep_damaged(again) == []
    assert list(again.entries) == ["a"]


def test_a_newer_format_is_refused_with_advice(tmp_path: Path) -> None:
    path, _ = sample(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(journal.encode({"kind": "header", "format": 2, "lrsweep": "9.9"}) + b"".join(lines[1:]))
    with pytest.raises(StorageError, match=r"format 2.*upgrade") as info:
        journal.replay(tmp_path)
    assert info.value.exit_code == 4


def test_unknown_kinds_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"kind": "weather", "sun": True}, journal.outcome_record(outcome("a"), "g"))
    assert list(journal.replay(tmp_path).entries) == ["a"]


def test_a_line_is_one_write_and_one_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_write, real_sync = os.write, os.fsync
    writer = Journal(tmp_path)
    writer.append([{"kind": "plan"}])
    monkeypatch.setattr(os, "write", lambda fd, data: (calls.append("write"), real_write(fd, data))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), real_sync(fd))[1])
    writer.append([journal.outcome_record(outcome(name), "g") for name in "abc"])
    assert calls == ["write", "fsync"]
    writer.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="permission denied"):
            Journal(tmp_path).append([{"kind": "plan"}])
    finally:
        tmp_path.chmod(0o700)
