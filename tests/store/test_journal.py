"""The journal: what is written comes back, and no damage hides more than the line it hits."""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrsweep.errors import StorageError
from lrsweep.run_result import RunResult
from lrsweep.store import journal, records
from lrsweep.store.journal import Checkpoint, Group, Journal

PLAN: dict[str, Any] = {"kind": "plan", "spec": "name: x", "fingerprints": {}, "default_lr": {"sgd": 0.001}}
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


def two_writers(folder: Path, *, swapped: bool = False) -> None:
    """Files of two processes that were begun together: runs b and c were trained by both, c with other results, and d
    failed in the first alone."""
    theirs = {
        "host1-1-100.jsonl": [outcome("a", losses=[1.0]), outcome("b", losses=[2.0]), outcome("d", "failed")],
        "host2-1-200.jsonl": [outcome("c", losses=[9.0]), outcome("b", losses=[2.0]), outcome("d", losses=[4.0])],
    }
    theirs["host1-1-100.jsonl"].append(outcome("c", losses=[3.0]))
    for name, outcomes in reversed(theirs.items()) if swapped else theirs.items():
        path = write(folder, *[journal.outcome_record(one, "g") for one in outcomes])
        renumbered(path, name, number=1, files_before=0, bytes_before=0)


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_writers_every_reader_takes_the_outcomes_of_the_file_that_was_begun_first(
    tmp_path: Path, swapped: bool
) -> None:
    two_writers(tmp_path, swapped=swapped)
    found = journal.replay(tmp_path)
    losses = {run: found.outcome(run).history["train_loss"] for run in sorted(found.entries)}
    assert losses == {"a": [1.0], "b": [2.0], "c": [3.0], "d": [4.0]}
    assert found.damage == []
    assert found.lost == ""


def test_two_writers_that_append_in_turn_lose_nothing(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    for number in range(6):
        for writer, shift in ((first, 0), (second, 3)):
            writer.append([journal.outcome_record(outcome(str(number + shift), losses=[float(number + shift)]), "g")])
    first.close()
    second.close()
    found = journal.replay(tmp_path)
    assert {run: found.outcome(run).history["train_loss"] for run in found.entries} == {
        str(number): [float(number)] for number in range(9)
    }
    assert found.lost == ""


def test_groups_checkpoints_and_plans_come_back(tmp_path: Path) -> None:
    a, b = Group(engine="stacked", runs=("1", "2")), Group(engine="single", runs=("3",), reason="why", raised=True)
    write(
        tmp_path,
        {**PLAN, "spec": "old"},
        journal.groups_record([a, b]),
        journal.checkpoint_record(a.id, Checkpoint(file="x-1.pt", sha256="0")),
        journal.checkpoint_record(a.id, Checkpoint(file="x-2.pt", sha256="1")),
        {**PLAN, "spec": "new"},
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


def renumbered(path: Path, name: str, **header: Any) -> None:
    """Give a file another name and other keys in its header; None removes one."""
    _, *lines = path.read_bytes().splitlines(keepends=True)
    facts = {"kind": "header", "format": 1, "lrsweep": "0.1.0", **header}
    path.write_bytes(
        records.encode({key: value for key, value in facts.items() if value is not None}) + b"".join(lines)
    )
    path.rename(path.with_name(name))


def test_files_count_in_the_order_in_which_they_were_begun_whatever_the_clock_says(tmp_path: Path) -> None:
    first = write(tmp_path, {**PLAN, "spec": "old"}, journal.outcome_record(outcome("a", losses=[1.0]), "g"))
    second = write(tmp_path, {**PLAN, "spec": "new"}, journal.outcome_record(outcome("a", losses=[9.0]), "g"))
    first.rename(first.with_name("a-1-900.jsonl"))
    second.rename(second.with_name("z-host-1-80.jsonl"))
    found = journal.replay(tmp_path)
    assert found.outcome("a").history["train_loss"] == [1.0]
    assert found.plan is not None
    assert found.plan["spec"] == "new"


def test_files_of_older_versions_count_by_their_clock_and_before_newer_ones(tmp_path: Path) -> None:
    texts = {"later": "a-1-900.jsonl", "earlier": "z-host-1-80.jsonl"}
    for text, name in texts.items():
        renumbered(write(tmp_path, {**PLAN, "spec": text}), name)
    assert [path.name for path in journal.paths(tmp_path)] == ["z-host-1-80.jsonl", "a-1-900.jsonl"]
    newest = write(tmp_path, {**PLAN, "spec": "newest"})
    newest.rename(newest.with_name("a-1-10.jsonl"))
    assert (journal.replay(tmp_path).plan or {})["spec"] == "newest"


def test_a_file_whose_header_is_damaged_counts_by_its_clock(tmp_path: Path) -> None:
    files = [write(tmp_path, {**PLAN, "spec": text}) for text in ("1", "2", "3")]
    files[1].write_bytes(b"x" + files[1].read_bytes()[1:])
    assert journal.paths(tmp_path) == files
    assert (journal.replay(tmp_path).plan or {})["spec"] == "3"


def test_a_file_that_is_gone_is_missed_until_a_new_one_is_begun(tmp_path: Path) -> None:
    files = [write(tmp_path, journal.outcome_record(outcome(name), "g")) for name in "abc"]
    assert journal.replay(tmp_path).lost == ""
    files[0].unlink()
    assert journal.replay(tmp_path).lost == "1 of its 3 files"
    write(tmp_path, journal.outcome_record(outcome("a"), "g"))
    assert journal.replay(tmp_path).lost == ""


def test_a_file_that_was_cut_at_the_end_of_a_line_is_missed(tmp_path: Path) -> None:
    first, _ = write(tmp_path, *[journal.outcome_record(outcome(name), "g") for name in "ab"]), write(tmp_path, PLAN)
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join(lines[:-1]))
    found = journal.replay(tmp_path)
    assert found.damage == []
    assert found.lost == f"{len(lines[-1])} bytes of its files"


OUTCOME = journal.outcome_record(outcome("a"), "g")
HEADER = {"kind": "header", "format": 1}
GROUP = {"engine": "stacked", "compile": False, "reason": None, "runs": ["a"]}
CHECKPOINT = {"kind": "checkpoint", "group": "g", "file": "g-1.pt", "sha256": "0"}
DEEP = b"[" * 100_000 + b"]" * 100_000

WRONG: list[Any] = [
    *(b"nonsense", b"\xff\xfe", b'{"kind":' + DEEP + b"}", b'{"kind":"header","format":' + b"9" * 5000 + b"}"),
    *([1], 3, None, {}, {"kind": []}, {"kind": None}, {"kind": 5}, "header"),
    *({"kind": kind} for kind in ("header", "plan", "groups", "checkpoint", "outcome")),
    *({**HEADER, "format": value} for value in ("9", True, 1.5, -1, None)),
    *({**HEADER, key: "1"} for key in ("number", "files_before", "bytes_before")),
    *({**PLAN, "spec": value} for value in (5, None, ["x"])),
    *({**PLAN, "fingerprints": value} for value in (None, [], {"task": 5})),
    *({**PLAN, "default_lr": value} for value in (None, 0.1, {"sgd": "abc"}, {"sgd": None})),
    *({key: value for key, value in PLAN.items() if key != gone} for gone in ("spec", "fingerprints", "default_lr")),
    *({"kind": "groups", "groups": value} for value in (5, {}, ["g"], [[]], [{}])),
    *({"kind": "groups", "groups": [{**GROUP, "runs": value}]} for value in (5, None, [5], {"a": 1}, "ab")),
    *({"kind": "groups", "groups": [{**GROUP, key: 7}]} for key in ("engine", "compile", "reason", "raised")),
    *({**CHECKPOINT, "file": value} for value in (5, None, "", "..", "x", "../x-1.pt", "/etc/x-1.pt", "a/b-1.pt")),
    *({**CHECKPOINT, key: 5} for key in ("group", "sha256")),
    *({**OUTCOME, "status": value} for value in ("odd", None, 1)),
    *({**OUTCOME, key: []} for key in ("run", "group", "worker_died", "error", "weights_hash", "batches_hash")),
    *({**OUTCOME, key: value} for key in ("steps", "diverged_step") for value in ("7", -1, 1.5, 10**30)),
    *({**OUTCOME, "columns": value} for value in (None, "step", [1])),
    *({**OUTCOME, "test": value} for value in (None, [], {"test_loss": "low"})),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:60])
def test_a_record_with_wrong_content_is_set_aside(tmp_path: Path, wrong: Any) -> None:
    path = write(tmp_path, PLAN, journal.outcome_record(outcome("b"), "g"))
    data = wrong if isinstance(wrong, bytes) else json.dumps(wrong, separators=(",", ":")).encode()
    with path.open("ab") as stream:
        stream.write(b"%08x %b\n" % (zlib.crc32(data), data))
    found = journal.replay(tmp_path)
    assert list(found.entries) == ["b"]
    assert (found.plan or {})["spec"] == PLAN["spec"]
    assert not found.groups
    assert not found.checkpoints
    (damage,) = found.damage
    assert "not a valid record" in str(damage)
    assert str(damage).isprintable()


@pytest.mark.parametrize(
    "rows",
    [
        [],
        {"step": ["a"]},
        {"step": [0, 1], "epoch": [0.0], "train_loss": [1.0]},
        {"step": [0.5], "epoch": [0.0], "train_loss": [1.0]},
        {"epoch": [0.0], "train_loss": [1.0]},
        {"step": [0], "val_loss": [1.0]},
        {"step": [0], "epoch": [0.0], "odd": [1.0]},
        {"step": [0], "epoch": [None], "train_loss": [1.0]},
    ],
    ids=str,
)
def test_a_curve_with_wrong_content_is_a_storage_error(tmp_path: Path, rows: Any) -> None:
    columns = [*rows] if "odd" not in rows else OUTCOME["columns"]
    write(tmp_path, {**OUTCOME, "columns": columns, "rows": rows})
    with pytest.raises(StorageError, match=r"cannot read the result of run a.*--fresh"):
        journal.replay(tmp_path).outcome("a")


def test_texts_with_lone_surrogates_are_read(tmp_path: Path) -> None:
    write(tmp_path, journal.outcome_record(outcome("a", "failed", error="no file 'b\udcff'"), "g"))
    found = journal.replay(tmp_path)
    assert found.damage == []
    assert found.outcome("a").error == r"no file 'b\udcff'"


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
        assert [damage.tail for damage in found.damage] == [True] * (cut not in (0, *ends))
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
    path.write_bytes(records.encode({"kind": "header", "format": 2, "lrsweep": "9.9"}) + b"".join(lines[1:]))
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
    writer.append([PLAN])
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
            Journal(tmp_path).append([PLAN])
    finally:
        tmp_path.chmod(0o700)
