"""A sweep of 100,000 runs, made up and not trained: nothing of it is lost on the way to tables and report, and the
report stays a page that opens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from lrsweep.report import page
from lrsweep.results import facts_file, tables
from lrsweep.results.status import status
from lrsweep.store import journal, tally
from tests.support import generated

RUNS, ROWS = 100_000, 4


@pytest.mark.slow
def test_a_sweep_of_100_000_runs(tmp_path: Path) -> None:
    folder = generated.folder(tmp_path, RUNS, rows=ROWS)
    replay = journal.replay(folder)
    statuses = Counter(entry.status for entry in replay.entries.values())
    assert statuses.total() == RUNS
    assert min(statuses["ok"], statuses["diverged"], statuses["failed"]) > 0
    before = status(folder)
    assert (before.total, before.diverged, before.failed) == (RUNS, statuses["diverged"], statuses["failed"])
    (folder / journal.FOLDER / tally.FILE).unlink()
    assert status(folder) == before

    tables.ensure(folder)
    assert status(folder) == before
    runs = tables.read_runs(folder)
    assert Counter(runs["status"]) == statuses
    assert runs["run_id"].is_unique
    assert set(runs["run_id"]) == set(replay.entries)
    rows = pd.concat(chunk.groupby("run_id").size() for chunk in tables.curve_chunks(folder)).groupby(level=0).sum()
    assert set(rows.index) == set(runs["run_id"][runs["status"] != "failed"])
    assert (rows[runs["run_id"][runs["status"] == "ok"]] == ROWS + 1).all()
    assert len(tables.read_summary(folder)) == RUNS // (generated.RATES * generated.SEEDS)

    kept = facts_file.read(folder, tables.digest_of(folder))
    assert replay.plan is not None
    spec, rates = tables.spec_of(replay.plan, folder), tables.default_rates(replay.plan)
    assert repr(kept) == repr(tables.summarise(folder, spec, rates).facts)
    text = page.write(folder).read_text()
    assert len(text.encode()) < 3_000_000
    assert "Tables and lists show the 200 best of 400 curves; summary.csv has all of them." in text
    assert "draws of the seeds instead of 10,000" not in text  # of up to 500 curves
    assert "Every caveat of the 200 best of 400 curves" in text
