"""What another process wrote into the same journal: results that differ, and results that it has thrown away."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lrsweep import plan
from lrsweep.plan import Run
from lrsweep.results import tables
from lrsweep.results.status import status
from lrsweep.spec.load import load_spec
from lrsweep.store import journal, records
from lrsweep.store.journal import Journal, Replay
from lrsweep.sweep.progress import Silent
from tests.support import sweeps


def trained(folder: Path) -> Path:
    return sweeps.run(folder).path


def planned() -> tuple[Run, ...]:
    spec = load_spec(sweeps.spec())
    return plan.build(spec, plan.fingerprints(spec)).runs


def write(sweep: Path, *lines: dict[str, object]) -> Path:
    """A file of another process."""
    writer = Journal(sweep)
    writer.append(lines)
    writer.close()
    assert writer.path is not None
    return writer.path


def trained_runs(replay: Replay) -> list[str]:
    return [run for run, entry in replay.entries.items() if entry.status == "ok"][:2]


def again(sweep: Path, loss: float | None = None) -> Path:
    """The first two runs once more, in a file of another process; with `loss`, the second ends with that loss."""
    replay = journal.replay(sweep)
    results = list(replay.outcomes(trained_runs(replay)))
    if loss is not None:
        results[1].history["val_loss"][-1] = loss
    return write(sweep, *[journal.outcome_record(one, "other") for one in results])


def test_results_of_two_processes_that_differ_are_told_and_the_older_ones_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = trained(tmp_path)
    before = sweeps.tables(sweep)
    run_id = trained_runs(journal.replay(sweep))[1]
    ours = next(path.name for path in journal.paths(sweep))
    theirs = again(sweep, 0.5)
    with caplog.at_level(logging.WARNING, "lrsweep"):
        tables.ensure(sweep)
    (told,) = [record.getMessage() for record in caplog.records]
    assert "of 2 runs that some process trained a second time, 1 came out differently: val_loss 0." in told
    assert f" and 0.5 at step 6 in {ours} and {theirs.name} (run {run_id})" in told
    assert sweeps.tables(sweep) == before
    again(sweep, 0.25)
    reporter = Silent()
    sweeps.run(tmp_path, reporter=reporter)  # `run` tells it, too
    assert sum("came out differently" in note for note in reporter.notes) == 1


def test_nothing_is_told_of_equal_results(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sweep = trained(tmp_path)
    again(sweep)
    with caplog.at_level(logging.WARNING, "lrsweep"):
        tables.ensure(sweep)
    assert not caplog.records


def test_what_another_process_has_thrown_away_is_trained_alone_whoever_trained_it(tmp_path: Path) -> None:
    sweep = trained(tmp_path)
    runs = planned()
    key = runs[0].workload_spec.key
    write(sweep, journal.void_record(key, "adam", "an audit failed at step 7", []))
    assert (status(sweep).done, status(sweep).to_do) == (6, 6)
    tables.ensure(sweep)
    assert {row["optimizer"] for row in tables.read_runs(sweep).to_dict("records")} == {"sgd"}
    reporter = Silent()
    assert sweeps.run(tmp_path, reporter=reporter).trained == 6
    assert "6 runs trained one at a time: an audit failed at step 7" in reporter.notes
    found = journal.replay(sweep)
    engines = {run.label: found.groups[found.entries[run.run_id].group].engine for run in runs}
    assert engines == {"sgd": "stacked", "adam": "single"}
    assert status(sweep).done == 12
    assert sweeps.run(tmp_path).trained == 0  # nothing is thrown away twice


def test_a_result_of_a_run_alone_takes_the_place_of_one_that_is_thrown_away(tmp_path: Path) -> None:
    sweep = trained(tmp_path)
    run = planned()[0]
    (result,) = journal.replay(sweep).outcomes([run.run_id])
    result.history["val_loss"][-1] = 0.125
    group = journal.Group(engine="single", runs=(run.run_id,))
    lines = [journal.groups_record([group]), journal.outcome_record(result, group.id)]
    write(sweep, journal.void_record(run.workload_spec.key, None, "an audit failed", []))
    path = write(sweep, *lines)
    assert isinstance(records.decode(path.read_bytes().splitlines(keepends=True)[0]), records.Header)
    assert (status(sweep).done, status(sweep).to_do) == (1, 11)
    tables.ensure(sweep)
    assert tables.read_runs(sweep)["final_val_loss"].tolist() == [0.125]
