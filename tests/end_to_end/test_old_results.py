"""Results of released formats stay readable.

`tests/data/results-v1` was written by version 0.1.0. Never write it anew to make a test pass: a difference here means
that users' results are no longer what they were. A new format gets a folder of its own: copy `task.py` and
`stored.yaml` there and run `python -m tests.end_to_end.test_old_results tests/data/results-vN`.
"""

from __future__ import annotations

import csv
import shutil
import socket
import sys
from pathlib import Path

import pytest

from lrsweep import load, plan
from lrsweep.results import tables
from lrsweep.spec.load import load_spec
from lrsweep.store import journal
from lrsweep.sweep import api

DATA = Path(__file__).parents[1] / "data"
STORED = sorted(DATA.glob("results-v*"))


@pytest.fixture(params=STORED, ids=lambda path: path.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copytree(request.param, tmp_path / "results")
    return tmp_path / "results" / "stored"


def cells(path: Path, columns: list[str] | None = None) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [{name: row[name] for name in columns or row} for row in csv.DictReader(stream)]


@pytest.mark.parametrize("name", ["runs.csv", "curves.csv", "summary.csv"])
def test_tables_rebuilt_from_the_journal_hold_what_they_held(folder: Path, name: str) -> None:
    before = cells(folder / name)
    for table in tables.RUNS, tables.CURVES, tables.SUMMARY:
        (folder / table).unlink()
    tables.ensure(folder)
    # A slope over budgets whose best rates lie at the grid's edge, as all of these do, is given no longer.
    kept = [column for column in before[0] if not column.startswith("drift_")]
    assert cells(folder / name, kept) == [{column: row[column] for column in kept} for row in before]


def test_the_runs_are_known_by_the_same_ids(folder: Path) -> None:
    spec = load_spec(folder / "spec.yaml")
    ids = [run.run_id for run in plan.build(spec, plan.fingerprints(spec)).runs]
    assert ids == [row["run_id"] for row in cells(folder / "runs.csv")]
    assert set(ids) == set(journal.replay(folder).entries)


def test_status_and_statuses(folder: Path) -> None:
    status = api.status(folder)
    assert (status.total, status.done, status.diverged, status.failed, status.to_do) == (12, 8, 4, 4, 4)
    results = load(folder)
    assert results.runs["status"].value_counts().to_dict() == {"ok": 4, "failed": 4, "diverged": 4}
    assert results.runs["error"].str.startswith('RuntimeError: seed 1 is "bad",\nand says').sum() == 4


def test_a_copy_without_its_journal_reads_the_same(folder: Path) -> None:
    whole = load(folder)
    shutil.rmtree(folder / "journal")
    copy = load(folder)
    assert copy.runs.equals(whole.runs)
    assert copy.curves.equals(whole.curves)
    assert copy.summary.equals(whole.summary)


def write(folder: Path) -> None:
    """Run `stored.yaml` and keep what is the format's, without what tells of the machine."""
    from lrsweep.workers import worker
    from tests.support.sweeps import run

    socket.gethostname = lambda: "host"
    worker.one_thread()
    run(folder, folder / "stored.yaml")
    for name in ("manifest.json", "report.html", ".lock", ".tables.lock", "journal/tables.json"):
        (folder / "stored" / name).unlink(missing_ok=True)
    (written,) = (folder / "stored" / "journal").iterdir()
    written.rename(written.with_name("host-1-1.jsonl"))


if __name__ == "__main__":
    write(Path(sys.argv[1]).resolve())
