"""The tables: what the journal says, in the contract's columns, read back to the bit."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lrsweep import plan
from lrsweep.errors import StorageError, UsageError, paragraph
from lrsweep.plan import Plan
from lrsweep.results import run_tables, tables
from lrsweep.results.status import status
from lrsweep.run_result import RunResult
from lrsweep.spec.load import load_spec
from lrsweep.store import journal, lock, plan_record
from lrsweep.store.journal import Journal
from lrsweep.system.parallel import in_processes

FLOATS = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
RUN_COLUMNS = [
    *("run_id", "optimizer", "lr", "seed", "status", "diverged_step", "diagnosis", "steps", "epochs"),
    *("initial_train_loss", "initial_val_loss", "final_train_loss", "final_val_loss", "best_val_loss", "best_epoch"),
    *("final_val_accuracy", "best_val_accuracy", "final_test_loss", "final_test_accuracy", "objective", "error"),
]


def spec(**changed: Any) -> dict[str, Any]:
    return {
        "name": "made",
        "task": "digits",
        "lr": [0.1, 1.0],
        "optimizers": ["sgd", "adam"],
        "seeds": 2,
        "train": {"epochs": 2},
        **changed,
    }


def planned(**changed: Any) -> Plan:
    loaded = load_spec(spec(**changed))
    return plan.build(loaded, plan.fingerprints(loaded))


def outcome(run_id: str, losses: list[float], **facts: Any) -> RunResult:
    """A run of 17 updates an epoch whose columns all follow `losses`."""
    count = range(len(losses))
    rows: dict[str, list[Any]] = {
        "step": [17 * k for k in count],
        "epoch": [float(k) for k in count],
        "lr_now": [0.1 for _ in count],
        "train_loss": losses,
        "val_loss": [loss + 1.0 for loss in losses],
        "val_accuracy": [1.0 / (k + 2) for k in count],
    }
    given_ = {"status": "ok", "steps": 17 * max(len(losses) - 1, 0), "history": rows}
    given_["test"] = {"test_accuracy": 0.25, "test_loss": 9.0}
    return RunResult(run_id=run_id, **{**given_, **facts})


def write(folder: Path, of: Plan, outcomes: list[RunResult]) -> None:
    folder.mkdir(exist_ok=True)
    writer = Journal(folder)
    record = plan_record.plan_record(of, folder, None)
    writer.append([record, *(journal.outcome_record(one, "g") for one in outcomes)])
    writer.close()
    tables.write(folder, of, journal.replay(folder), record)


def raw(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_columns_and_values_of_runs_csv(tmp_path: Path) -> None:
    of = planned()
    ids = [run.run_id for run in of.runs]
    diverged = outcome(
        ids[1], [2.0, 5.0, math.nan], status="diverged", diverged_step=34, steps=33, test={"test_loss": math.inf}
    )
    failed = outcome(ids[2], [2.0], status="failed", error='ValueError: "a, b"\nsecond line', steps=3, test={})
    write(tmp_path, of, [failed, diverged, outcome(ids[0], [2.0, 0.5, 1.0])])
    header = (tmp_path / "runs.csv").read_text().split("\n", 1)[0]
    assert header.split(",") == RUN_COLUMNS
    first, second, third = raw(tmp_path / "runs.csv")  # the order of the plan, not of the journal
    assert [row["run_id"] for row in (first, second, third)] == ids[:3]
    assert (first["optimizer"], first["lr"], first["seed"]) == ("sgd", "0.1", "0")
    assert first["status"] == "ok"
    assert first["diverged_step"] == ""
    assert (first["steps"], first["epochs"]) == ("34", "2.0")
    assert (first["initial_train_loss"], first["final_train_loss"]) == ("2.0", "1.0")
    assert (first["best_val_loss"], first["best_epoch"]) == ("1.5", "1.0")
    assert first["final_val_accuracy"] == "0.25"
    assert first["best_val_accuracy"] == repr(1 / 3)  # the column's own best, the larger the better
    assert (first["final_test_loss"], first["final_test_accuracy"]) == ("9.0", "0.25")
    assert first["objective"] == "2.0"
    assert (second["status"], second["diverged_step"], second["steps"]) == ("diverged", "34", "33")
    assert second["epochs"] == repr(33 / 17)
    assert (second["final_train_loss"], second["best_val_loss"], second["objective"]) == ("nan", "6.0", "nan")
    assert (second["final_test_loss"], second["diagnosis"]) == ("inf", "diverged")
    assert third["error"] == 'ValueError: "a, b"\nsecond line'
    assert (third["status"], third["initial_train_loss"]) == ("failed", "2.0")
    assert third["final_val_loss"] == third["objective"] == third["best_val_loss"] == ""


def test_columns_and_values_of_curves_csv(tmp_path: Path) -> None:
    of = planned(axes={"train.batch_size": [16, 64]})
    ids = [run.run_id for run in of.runs]
    write(tmp_path, of, [outcome(ids[-1], [2.0, math.inf]), outcome(ids[0], [1e-300, -0.0, 5e-324])])
    head = ["run_id", "optimizer", "lr", "seed", "train.batch_size", "step", "epoch", "lr_now", "train_loss"]
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines[0].split(",") == [*head, "val_loss", "val_accuracy"]
    assert lines[1] == f"{ids[0]},sgd,0.1,0,16,0,0.0,0.1,1e-300,1.0,0.5"
    assert [line.split(",")[8] for line in lines[1:]] == ["1e-300", "-0.0", "5e-324", "2.0", "inf"]
    assert lines[-1].startswith(f"{ids[-1]},adam,1.0,1,64,17,1.0,0.1,inf,inf,")
    assert pd.read_csv(tmp_path / "runs.csv").columns[4] == "train.batch_size"
    frame = tables.read_curves(tmp_path)
    assert frame["train.batch_size"].tolist() == [16, 16, 16, 64, 64]
    assert frame["step"].dtype == np.int64


@example(losses=[0.0, 0.0, 8.98846567431158e307, 0.0], error="")
@example(losses=[1.7976717049456367e308], error="")
@given(losses=st.lists(FLOATS, min_size=1, max_size=5), error=st.text(max_size=20) | st.sampled_from(["nan", "none"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_back_is_what_was_measured(tmp_path: Path, losses: list[float], error: str) -> None:
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    of = planned(optimizers=[{"name": "sgd", "label": "nan"}, {"name": "adam", "label": 'none, "x"'}])
    ids = [run.run_id for run in of.runs]
    write(tmp_path / "x", of, [outcome(ids[0], losses), outcome(ids[-1], [], status="failed", error=error, test={})])
    runs, curves = tables.read_runs(tmp_path / "x"), tables.read_curves(tmp_path / "x")
    assert curves["train_loss"].tolist() == pytest.approx(losses, abs=0, rel=0, nan_ok=True)
    assert [math.copysign(1, v) for v in curves["train_loss"] if v == v] == [
        math.copysign(1, v) for v in losses if v == v
    ]
    assert runs["optimizer"].tolist() == ["nan", 'none, "x"']
    assert curves["optimizer"].unique().tolist() == ["nan"]
    escaped = paragraph(error).replace("\0", "\\x00")
    assert runs["error"].tolist()[1] == escaped.encode("utf-8", "backslashreplace").decode()
    assert runs["final_val_loss"].isna().tolist()[1]


def test_axes_that_hold_text_stay_text(tmp_path: Path) -> None:
    of = planned(axes={"train.clip_norm": [None, 1.0], "train.shuffle": [True, False]})
    write(tmp_path, of, [outcome(run.run_id, [2.0, 1.0]) for run in of.runs])
    runs = tables.read_runs(tmp_path)
    assert set(runs["train.clip_norm"]) == {"null", "1.0"}
    assert set(runs["train.shuffle"]) == {"true", "false"}
    summary = tables.read_summary(tmp_path)
    assert len(summary) == 8
    assert summary["at_edge"].dtype == bool


def test_equal_journals_give_equal_bytes(tmp_path: Path) -> None:
    of = planned()
    outcomes = [outcome(run.run_id, [2.0, 1.0 / (k + 1)]) for k, run in enumerate(of.runs)]
    write(tmp_path / "a", of, outcomes)
    write(tmp_path / "b", of, outcomes[::-1])
    for name in ("runs.csv", "curves.csv", "summary.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("broken_off", [False, True], ids=["by two processes", "begun twice"])
def test_tables_of_many_runs_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_off: bool
) -> None:
    axes = {"train.batch_size": [16, 32, 64], "task.scale": ["none", "standard"]}
    optimizers = ["sgd", {"name": "sgd", "momentum": 0.9, "label": 'a "b", c'}]
    of = planned(optimizers=optimizers, axes=axes)
    outcomes = [
        outcome(run.run_id, [2.0, 1.0 + number / 7], weights_hash=f"w{number}", batches_hash="b")
        for number, run in enumerate(of.runs)
    ]
    outcomes[3] = outcome(of.runs[3].run_id, [], status="failed", error="ValueError: \nmade, up", test={}, history={})
    outcomes[5] = outcome(of.runs[5].run_id, [2.0, math.nan], status="diverged", diverged_step=17)
    write(tmp_path / "alone", of, outcomes[:-5])
    replay, calls = journal.replay(tmp_path / "alone"), 0

    def each(some: list[Any], processes: int) -> list[Any]:
        nonlocal calls
        calls = len(some)
        if not broken_off:
            return in_processes(some, processes)
        for call in some:
            call()
            for file in call.args[-1]:
                file.write(b"more than that")
        return [call() for call in some]

    (tmp_path / "shared").mkdir()
    hashes = json.dumps(run_tables.write(tmp_path / "alone", of, replay))
    monkeypatch.setattr(run_tables, "LEAST_SHARED", 1)
    monkeypatch.setattr(run_tables, "available_cores", lambda: 2)
    monkeypatch.setattr(run_tables, "in_processes", each)
    assert json.dumps(run_tables.write(tmp_path / "shared", of, replay)) == hashes
    assert calls == 12
    for name in (tables.RUNS, tables.CURVES):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {tables.RUNS, tables.CURVES}


def test_runs_that_two_writers_trained_are_in_the_tables_once(tmp_path: Path) -> None:
    of = planned()
    outcomes = [outcome(run.run_id, [3.0, 1.0 + number]) for number, run in enumerate(of.runs)]
    write(tmp_path / "alone", of, outcomes)
    for name, some in (("first", outcomes[:5]), ("second", outcomes[3:])):
        write(tmp_path / name, of, some)
    for path in (tmp_path / "second" / journal.FOLDER).glob("*.jsonl"):
        shutil.copy(path, tmp_path / "first" / journal.FOLDER)
    tables.ensure(tmp_path / "first")
    assert content(tmp_path / "first") == content(tmp_path / "alone")


def test_of_a_run_with_two_results_the_tables_hold_that_of_the_file_begun_first(tmp_path: Path) -> None:
    of = planned()
    outcomes = [outcome(run.run_id, [3.0, 1.0]) for run in of.runs]
    others = [outcome(run.run_id, [3.0, 2.0]) for run in of.runs]
    write(tmp_path / "alone", of, outcomes)
    write(tmp_path / "both", of, outcomes)
    before = content(tmp_path / "both")
    append(tmp_path / "both", *(journal.outcome_record(one, "g") for one in others))
    tables.ensure(tmp_path / "both")
    assert content(tmp_path / "both") == before == content(tmp_path / "alone")
    assert sum(path.read_bytes().count(b'"kind":"outcome"') for path in journal.paths(tmp_path / "both")) == 16


def test_status_need_not_read_a_journal_that_has_not_changed_since_the_tables_were_written(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = status(finished)
    with monkeypatch.context() as patched:
        patched.delattr(journal, "replay")
        assert status(finished) == whole
    append(finished, journal.outcome_record(outcome("0" * 16, [1.0]), "g"))
    assert status(finished) == replace(whole, outside=whole.outside + 1)


def test_status_reads_a_journal_again_of_which_a_byte_was_changed(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = journal.paths(finished)
    data = path.read_bytes()
    path.write_bytes(data[:-9] + b"#" + data[-8:])
    os.utime(path, ns=(1, 1))
    assert status(finished).to_do == 1
    assert "rerun `lrsweep run`" in caplog.text


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("runs.csv", "curves.csv", "summary.csv", "spec.yaml")}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    of = planned()
    write(tmp_path / "made", of, [outcome(run.run_id, [2.0, 1.0]) for run in of.runs])
    return tmp_path / "made"


@pytest.mark.parametrize("name", ["runs.csv", "curves.csv", "summary.csv", "spec.yaml"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "empty"])
def test_damaged_tables_are_rebuilt(finished: Path, name: str, damage: str) -> None:
    before = content(finished)
    data = bytearray(before[name])
    if damage == "gone":
        (finished / name).unlink()
    else:
        data[len(data) // 2] ^= 1
        (finished / name).write_bytes({"cut": data[:-9], "flipped": data, "empty": b""}[damage])
    tables.ensure(finished)
    assert content(finished) == before


def test_a_summary_of_older_rules_is_derived_again(finished: Path) -> None:
    summary, stamp = finished / tables.SUMMARY, finished / journal.FOLDER / tables.STAMP
    wanted = summary.read_bytes()
    old = wanted.replace(b",unusable_from", b"")
    summary.write_bytes(old)
    told = json.loads(stamp.read_text())
    told["files"][tables.SUMMARY] = hashlib.sha256(old).hexdigest()
    del told["format"]
    stamp.write_text(json.dumps(told))
    tables.ensure(finished)
    assert summary.read_bytes() == wanted


def test_tables_that_are_current_are_left_alone(finished: Path) -> None:
    stamps = {name: (finished / name).stat().st_ino for name in content(finished)}
    tables.ensure(finished)
    assert {name: (finished / name).stat().st_ino for name in content(finished)} == stamps


def test_new_outcomes_reach_the_tables(finished: Path) -> None:
    of = planned()
    shutil.rmtree(finished)
    write(finished, of, [outcome(run.run_id, [2.0, 1.0]) for run in of.runs[:-1]])
    writer = Journal(finished)
    writer.append([journal.outcome_record(outcome(of.runs[-1].run_id, [2.0, 7.0]), "g")])
    writer.close()
    tables.ensure(finished)
    assert tables.read_runs(finished)["final_train_loss"].tolist() == [1.0] * 7 + [7.0]


def test_the_stamp_names_what_was_read_not_what_came_since(tmp_path: Path) -> None:
    of = planned()
    write(tmp_path, of, [outcome(of.runs[0].run_id, [2.0, 1.0])])
    replay = journal.replay(tmp_path)
    append(tmp_path, journal.outcome_record(outcome(of.runs[1].run_id, [2.0, 1.0]), "g"))
    tables.write(tmp_path, of, replay, replay.plan or {})
    tables.ensure(tmp_path)
    assert tables.read_runs(tmp_path)["run_id"].tolist() == [run.run_id for run in of.runs[:2]]


def append(folder: Path, *records: dict[str, Any]) -> Path:
    """Records in a journal file of their own."""
    writer = Journal(folder)
    writer.append(records)
    writer.close()
    assert writer.path is not None
    return writer.path


@pytest.mark.parametrize("damage", ["first deleted", "last deleted", "first cut"])
def test_a_journal_that_lost_something_gives_no_tables(
    finished: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    before = content(finished)
    append(finished, journal.outcome_record(outcome(planned().runs[0].run_id, [9.0]), "g"))
    tables.ensure(finished)
    caplog.clear()
    first, last = journal.paths(finished)
    if damage == "first cut":
        first.write_bytes(b"".join(first.read_bytes().splitlines(keepends=True)[:4]))
    else:
        (first if damage == "first deleted" else last).unlink()
    lost = (last if damage == "last deleted" else first).name
    with pytest.raises(StorageError, match=rf"the journal lost {re.escape(lost)} .*rerun `lrsweep run`"):
        tables.ensure(finished)
    assert content(finished) == before
    (finished / "journal" / "tables.json").unlink()
    if damage != "last deleted":
        with pytest.raises(StorageError, match=r"the journal lost .* of its .*files"):
            tables.ensure(finished)
    assert content(finished) == before
    assert not caplog.text


def test_a_journal_of_which_every_file_is_gone_is_no_published_copy(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = journal.paths(finished)
    path.unlink()
    with pytest.raises(StorageError, match=rf"the journal lost {re.escape(path.name)} .* delete this folder"):
        tables.ensure(finished)
    assert status(finished).to_do == 0
    assert f"the journal lost {path.name}" in caplog.text
    shutil.rmtree(path.parent)
    tables.ensure(finished)


def test_status_tells_of_a_journal_file_that_is_gone(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = journal.paths(finished)
    append(finished, *[record for record in [journal.replay(finished).plan] if record])
    path.unlink()
    assert status(finished).to_do == 8
    assert f"the journal lost {path.name}" in caplog.text


@pytest.mark.parametrize("damage", [b"nonsense\n", b"\n", b"0 {}\n"])
def test_damage_that_may_have_been_a_result_gives_no_tables_until_a_run_has_seen_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    of = planned()
    write(tmp_path, of, [outcome(run.run_id, [2.0, 1.0]) for run in of.runs[:-1]])
    before = content(tmp_path)
    path = append(tmp_path, journal.outcome_record(outcome(of.runs[0].run_id, [2.0, 1.0]), "g"))
    with path.open("ab") as stream:
        stream.write(damage)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"line 3: .*rerun `lrsweep run`"):
            tables.ensure(tmp_path)
    assert content(tmp_path) == before
    assert status(tmp_path).to_do == 1
    assert "line 3: " in caplog.text
    journal.keep_damaged(journal.replay(tmp_path))  # as `run` does
    tables.ensure(tmp_path)
    assert content(tmp_path) == before


def test_damage_that_took_nothing_is_told_once(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = content(finished)
    path = append(finished, journal.outcome_record(outcome(planned().runs[0].run_id, [9.0]), "g"))
    with path.open("ab") as stream:
        stream.write(b"nonsense\n")
    tables.ensure(finished)
    (finished / "runs.csv").unlink()
    tables.ensure(finished)
    assert content(finished) == before
    assert caplog.text.count("not a journal line") == 1


def test_a_line_that_a_running_sweep_is_writing_is_no_damage(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = planned().runs
    path = append(finished, journal.outcome_record(outcome(runs[0].run_id, [2.0, 1.0]), "g"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    (finished / "runs.csv").unlink()
    with lock.hold(finished):
        tables.ensure(finished)
    assert not caplog.text
    assert not path.with_name(path.name + ".corrupt").exists()
    tables.ensure(finished)  # whoever wrote it has stopped, and the tables show all that there is
    (finished / "runs.csv").unlink()
    tables.ensure(finished)
    assert "incomplete" in caplog.text


def test_a_moved_folder_is_rebuilt_without_its_files(finished: Path, tmp_path: Path) -> None:
    before = content(finished)
    moved = finished.rename(tmp_path / "elsewhere and ünïcode")
    (moved / "runs.csv").unlink()
    tables.ensure(moved)
    assert content(moved) == before


def test_an_edited_spec_is_kept_beside(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (finished / "spec.yaml").read_text()
    (finished / "spec.yaml").write_text(text.replace("epochs: 2", "epochs: 3"))
    tables.ensure(finished)
    assert (finished / "spec.yaml").read_text() == text
    assert "epochs: 3" in (finished / "spec.edited.yaml").read_text()
    assert "spec.edited.yaml" in caplog.text


def test_a_published_copy_is_left_alone(finished: Path) -> None:
    shutil.rmtree(finished / "journal")
    with (finished / "runs.csv").open("a") as stream:
        stream.write("")
    before = content(finished)
    tables.ensure(finished)
    assert content(finished) == before


@pytest.mark.parametrize("text", ["nothing\n", None], ids=["damaged", "missing"])
def test_a_table_that_cannot_be_made_again_gets_advice_that_works(finished: Path, text: str | None) -> None:
    path = finished / "curves.csv"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises((StorageError, UsageError), match="delete it and rerun the command"):
        tables.read_curves(finished)
    shutil.rmtree(finished / "journal")
    with pytest.raises((StorageError, UsageError), match="has no journal to make it from again: copy the file again"):
        tables.read_curves(finished)


def test_folders_without_a_sweep_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sweep"):
        tables.ensure(tmp_path)
    with pytest.raises(UsageError, match="no sweep"):
        tables.sweeps_below(tmp_path)
    (tmp_path / "file").write_text("")
    for find in (tables.ensure, tables.sweeps_below):
        with pytest.raises(UsageError, match="no such folder"):
            find(tmp_path / "none")
        with pytest.raises(UsageError, match="this is a file; give the folder"):
            find(tmp_path / "file")


def test_sweeps_are_found_below_a_folder(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "deep" / "er")
    assert tables.sweeps_below(finished) == [finished]
    assert tables.sweeps_below(tmp_path) == [tmp_path / "deep" / "er", finished]


def test_a_table_that_is_no_table_is_a_storage_error(finished: Path) -> None:
    shutil.rmtree(finished / "journal")
    (finished / "runs.csv").write_text("hello\nworld\n")
    with pytest.raises(StorageError, match="damaged"):
        tables.read_runs(finished)
