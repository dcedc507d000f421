"""A sweep as a whole: what is trained when, what is said, what is written."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lrsweep
from lrsweep import plot
from lrsweep.analysis.suggest import ROUNDS, refine
from lrsweep.cli import app, output
from lrsweep.compiler import onednn
from lrsweep.errors import SpecError, StoppedError, StorageError, UsageError
from lrsweep.report import page
from lrsweep.results import tables
from lrsweep.results.status import SweepStatus
from lrsweep.run_result import RunResult
from lrsweep.store import journal
from lrsweep.sweep import api, progress
from lrsweep.sweep.progress import Silent, Start, Update
from lrsweep.wording import words
from lrsweep.workers import local, worker
from lrsweep.workers.messages import Job
from tests.support import sweeps
from tests.support import tables as fabricate


@pytest.fixture(autouse=True)
def one_thread() -> None:
    worker.one_thread()


class Watching(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.starts: list[Start] = []
        self.updates: list[Update] = []

    def start(self, start: Start) -> None:
        self.starts.append(start)

    def update(self, update: Update) -> None:
        self.updates.append(update)


def told(reporter: Silent) -> list[str]:
    """What was said, but for the rates above 1 that these specs have on purpose."""
    return [note for note in reporter.notes if "above 1" not in note]


def rows(folder: Path) -> dict[str, str]:
    """Lines of runs.csv by run id."""
    return {line.split(",", 1)[0]: line for line in (folder / "runs.csv").read_text().splitlines()[1:]}


def test_the_facts_that_come_back_are_those_of_the_files(tmp_path: Path) -> None:
    finished = sweeps.run(tmp_path)
    assert repr(finished.facts) == repr(lrsweep.load(finished.path).facts())
    assert sweeps.run(tmp_path).facts is None  # nothing was written anew


def test_a_sweep_leaves_what_the_contract_names(tmp_path: Path) -> None:
    watching = Watching()
    finished = sweeps.run(tmp_path, reporter=watching, draw=True, workers=2)
    folder = tmp_path / "small"
    assert (finished.path, finished.total, finished.trained, finished.failed) == (folder, 12, 12, 0)
    assert finished.diverged == 4
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names >= {
        *("spec.yaml", "runs.csv", "curves.csv", "summary.csv", "manifest.json", "report.html", "journal"),
        *("u_curve.png", "loss_curves.png"),
    }
    runs = tables.read_runs(folder)
    assert len(runs) == 12
    assert runs["status"].tolist().count("diverged") == 4
    curves = tables.read_curves(folder)
    assert (curves.groupby("run_id").size()[runs[runs["status"] == "ok"]["run_id"]] == 3).all()
    assert len(tables.read_summary(folder)) == 2
    last = watching.updates[-1]
    assert (last.done, last.total, last.diverged, last.failed) == (12, 12, 4, 0)
    assert last.run_steps == last.run_steps_total == 12 * 6 * 1
    assert watching.starts[0].total == 12
    assert told(watching) == []


def test_the_manifest_tells_what_may_differ(tmp_path: Path) -> None:
    sweeps.run(tmp_path)
    facts = json.loads((tmp_path / "small" / "manifest.json").read_text())
    assert facts["lrsweep"] == lrsweep.__version__
    assert facts["device"] == "cpu"
    assert sum(engine["runs"] for engine in facts["engines"].values()) == 12
    assert facts["grid"] == {"sgd": [0.01, 0.1, 1e38], "adam": [0.01, 0.1, 1e38]}
    (seeds,) = facts["determinism"]["initial_weights_and_batches"].values()
    assert set(seeds) == {"0", "1"}
    assert seeds["0"] != seeds["1"]
    assert facts["sessions"][0]["packages"]["torch"]
    assert facts["sessions"][0]["products"] == onednn.library()
    (task,) = facts["tasks"].values()
    assert task["train"] > task["val"] > 0


def test_two_sweeps_are_equal_whatever_the_workers(tmp_path: Path) -> None:
    sweeps.run(tmp_path / "a", workers=2)
    sweeps.run(tmp_path / "b", workers=2)
    assert sweeps.tables(tmp_path / "a" / "small") == sweeps.tables(tmp_path / "b" / "small")


def test_a_finished_sweep_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps.run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "small").rglob("*") if path.is_file()}
    monkeypatch.setattr(worker, "workloads", None)  # no task is built
    monkeypatch.setattr(local, "Local", None)
    watching = Watching()
    assert sweeps.run(tmp_path, reporter=watching).trained == 0
    assert watching.starts == told(watching) == []
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "small").rglob("*") if path.is_file()}
    assert after == before


@given(
    first=st.sets(st.sampled_from([0.001, 0.01, 0.1, 1e38]), min_size=1),
    more=st.sets(st.sampled_from([0.001, 0.01, 0.1, 1e38]), min_size=1),
    seeds=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    labels=st.tuples(*[st.sampled_from([["sgd"], ["adam"], ["sgd", "adam"], ["adam", "sgd"]])] * 2),
)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_extending_trains_only_what_is_new(
    tmp_path: Path, first: set[float], more: set[float], seeds: tuple[int, int], labels: tuple[list[str], list[str]]
) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    a = sweeps.spec(lr=sorted(first), seeds=seeds[0], optimizers=labels[0])
    b = sweeps.spec(lr=sorted(more), seeds=seeds[1], optimizers=labels[1])
    assert sweeps.run(tmp_path, a).trained == len(first) * seeds[0] * len(labels[0])
    folder = tmp_path / "small"
    old = rows(folder)
    shared = len(first & more) * min(seeds) * len(set(labels[0]) & set(labels[1]))
    watching = Watching()
    finished = sweeps.run(tmp_path, b, reporter=watching)
    assert finished.total == len(rows(folder)) == len(more) * seeds[1] * len(labels[1])
    assert finished.trained == finished.total - shared
    if finished.trained:
        assert watching.starts[0].run_steps == 6 * finished.trained
    drop = 6 + 1  # the diagnosis may differ: it compares with other runs
    for run_id, line in rows(folder).items():
        if run_id in old:
            assert line.split(",")[:drop][:6] == old[run_id].split(",")[:drop][:6]
            assert line.split(",")[7:] == old[run_id].split(",")[7:]
    assert api.status(folder).outside == len(old) - shared


def test_a_spec_that_shrinks_keeps_its_runs_in_the_journal(tmp_path: Path) -> None:
    sweeps.run(tmp_path)
    whole = sweeps.tables(tmp_path / "small")
    sweeps.run(tmp_path, sweeps.spec(seeds=1))
    assert len(tables.read_runs(tmp_path / "small")) == 6
    status = api.status(tmp_path / "small")
    assert (status.total, status.done, status.outside, status.to_do) == (6, 6, 6, 0)
    assert sweeps.run(tmp_path).trained == 0
    assert sweeps.tables(tmp_path / "small") == whole


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_curves_that_change_by_rounding_alone_are_called_flat(tmp_path: Path, dtype: str) -> None:
    lr = [1e-9, 1e-8, 1e-7] if dtype == "float32" else [1e-17, 1e-16]
    train = {"epochs": 10, "batch_size": "full", "dtype": dtype}
    sweeps.run(tmp_path, sweeps.spec(lr=lr, train=train, optimizers=["sgd"]))
    assert set(tables.read_runs(tmp_path / "small")["diagnosis"]) == {"stuck"}


def test_a_sweep_of_one_run_is_told_of_in_the_singular(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = {"lr": [0.1], "optimizers": ["sgd"], "seeds": 1}
    sweeps.run(tmp_path, sweeps.spec(**one))
    app._print_finished(sweeps.run(tmp_path, sweeps.spec(**one)), quiet=False)
    assert "nothing to train: the run is done (--fresh retrains)" in capfd.readouterr().err
    reporter = Silent()
    changed = sweeps.spec(
        **one, train={"epochs": 3, "batch_size": 20}, objective={"metric": "val_loss", "at": "last_9"}
    )
    sweeps.run(tmp_path, changed, reporter=reporter)
    assert any("(1 run with the old settings stays in the journal)" in note for note in told(reporter))
    changed["train"] = {"epochs": 1, "batch_size": 20}
    assert any("with 1 evaluation after the first" in text for text in lrsweep.load_spec(changed).warnings)


def test_a_changed_recipe_trains_its_own_runs_and_says_which_keys(tmp_path: Path) -> None:
    sweeps.run(tmp_path)
    reporter = Silent()
    changed = sweeps.spec(train={"epochs": 3, "batch_size": 20}, model={"name": "mlp", "hidden": [4]})
    assert sweeps.run(tmp_path, changed, reporter=reporter).trained == 12
    (note,) = told(reporter)
    assert "train.epochs" in note
    assert "model" in note
    assert "batch_size" not in note
    assert "12 runs with the old settings" in note
    reporter = Silent()
    assert sweeps.run(tmp_path, reporter=reporter).trained == 0  # back again: nothing was lost
    assert "train.epochs" in told(reporter)[0]


def test_the_resolved_spec_trains_nothing_new(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    source = tmp_path / "config" / "task.py"
    source.write_text(own_task())
    config = tmp_path / "config" / "mine.yaml"
    config.write_text("task: task.py:make\noptimizers: [sgd]\nlr: [0.1]\nseeds: 2\ntrain: {steps: 3}\n")
    assert sweeps.run(tmp_path / "results here", config).trained == 2
    folder = tmp_path / "results here" / "mine"
    assert sweeps.run(tmp_path / "results here", folder / "spec.yaml").trained == 0
    reporter = Silent()
    source.write_text(own_task() + "\n# changed\n")
    assert sweeps.run(tmp_path / "results here", config, reporter=reporter).trained == 2
    assert "the task file" in told(reporter)[0]


def own_task(body: str = "") -> str:
    return textwrap.dedent("""
        import os
        import torch
        from lrsweep import Task

        def model():
            BODY
            return torch.nn.Linear(2, 1)

        def make():
            x = torch.arange(20.0).reshape(10, 2)
            return Task(train=(x, x[:, :1]), val=(x, x[:, :1]), model=model,
                        loss=lambda output, target: ((output - target) ** 2).mean())
    """).replace("BODY", body or "pass")


def own(folder: Path, body: str, **changed: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "task.py").write_text(own_task(body))
    return sweeps.spec(task=f"{folder}/task.py:make", model=None, train={"steps": 3}, lr=[1e-4, 1e-3], **changed)


def test_a_failing_run_is_in_the_tables_and_tried_again(tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    body = f"if torch.initial_seed() == 1 and not os.path.exists({str(switch)!r}): raise RuntimeError('seed 1 is bad')"
    config = own(tmp_path / "code", body, optimizers=["sgd"])
    finished = sweeps.run(tmp_path, config)
    assert (finished.trained, finished.failed) == (4, 2)
    runs = tables.read_runs(tmp_path / "small")
    assert runs["status"].tolist() == ["ok", "failed", "ok", "failed"]
    assert runs["error"][1].startswith("RuntimeError: seed 1 is bad (task.py:")
    assert runs["error"][0] == ""
    assert api.status(tmp_path / "small").failed == 2
    again = sweeps.run(tmp_path, config)
    assert (again.trained, again.failed) == (2, 2)
    switch.touch()
    last = sweeps.run(tmp_path, config)
    assert (last.trained, last.failed) == (2, 0)
    assert sweeps.run(tmp_path, config).trained == 0
    assert tables.read_runs(tmp_path / "small")["status"].tolist() == ["ok"] * 4


@pytest.mark.slow
def test_a_run_that_ends_its_process_costs_only_itself(tmp_path: Path) -> None:
    """The model builder leaves without a word for one seed; the workers that replace the dead ones start anew."""
    body = f"if torch.initial_seed() == 1 and os.getpid() != {os.getpid()}: os._exit(3)"
    config = own(tmp_path / "code", body, optimizers=["sgd"], seeds=3)
    reporter = Silent()
    finished = sweeps.run(tmp_path, config, reporter=reporter)
    assert (finished.trained, finished.failed) == (6, 2)
    runs = tables.read_runs(tmp_path / "small")
    assert runs[runs["seed"] == 1]["status"].tolist() == ["failed", "failed"]
    assert runs[runs["seed"] != 1]["status"].tolist() == ["ok"] * 4
    assert "exited with code 3" in runs["error"][1]
    assert any("exited with code 3" in note for note in reporter.notes)


def test_a_task_that_cannot_be_built_leaves_nothing_behind(tmp_path: Path) -> None:
    config = own(tmp_path / "code", "")
    (tmp_path / "code" / "task.py").write_text("def make():\n    raise ValueError('no data')\n")
    with pytest.raises(UsageError, match=r"no data[\s\S]*task.py"):
        sweeps.run(tmp_path, config)
    assert not (tmp_path / "small").exists()


def test_an_objective_that_nothing_records_is_refused(tmp_path: Path) -> None:
    config = own(tmp_path / "code", "", objective={"metric": "val_accuracy"})
    with pytest.raises(UsageError, match="val_loss"):
        sweeps.run(tmp_path, config)


def test_a_plateau_that_watches_what_nothing_records_is_refused(tmp_path: Path) -> None:
    plateau = {"name": "plateau", "factor": 0.5, "patience": 1, "metric": "val_accuracy"}
    for changed in ({"schedule": plateau}, {"optimizers": ["sgd", {"name": "adam", "schedule": plateau}]}):
        with pytest.raises(UsageError, match=r"schedule\.metric: .* does not record 'val_accuracy' \(it records"):
            sweeps.run(tmp_path, own(tmp_path / "code", "", **changed))


def test_why_runs_train_alone_is_said_once(tmp_path: Path) -> None:
    reporter = Silent()
    config = sweeps.spec(optimizers=["asgd", "sgd"], lr=[0.01, 0.1])
    sweeps.run(tmp_path, config, reporter=reporter)
    alone = [note for note in reporter.notes if "one at a time" in note]
    assert len(alone) == len(set(alone)) <= 1
    facts = json.loads((tmp_path / "small" / "manifest.json").read_text())
    for note in alone:
        assert any(reason in note for reason in facts["notes"])


def test_fresh_sets_the_journal_aside(tmp_path: Path) -> None:
    sweeps.run(tmp_path)
    before = sweeps.tables(tmp_path / "small")
    assert sweeps.run(tmp_path, fresh=True).trained == 12
    assert sweeps.run(tmp_path, fresh=True).trained == 12
    assert sweeps.tables(tmp_path / "small") == before
    for number in (1, 2):
        assert list((tmp_path / "small" / f"journal.old-{number}").glob("*.jsonl"))
    assert len(journal.replay(tmp_path / "small").entries) == 12


class StopsAfter(Silent):
    """Sends SIGINT once so many runs are done."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self._runs = runs

    def update(self, update: Update) -> None:
        if update.done >= self._runs:
            os.kill(os.getpid(), signal.SIGINT)


def test_audits_of_a_journal_that_was_set_aside_are_no_longer_counted(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    sweeps.run(tmp_path)
    facts = json.loads((folder / "manifest.json").read_text())
    facts["sessions"][0]["audits"] = {"count": 3, "verified": 0, "failed": 1, "where": ["step 2: loss is 1 and 2"]}
    (folder / "manifest.json").write_text(json.dumps(facts))
    found = []
    for options in ({"set": ("seeds=3",)}, {"fresh": True}, {"set": ("seeds=3",)}):
        sweeps.run(tmp_path, **options)
        facts = json.loads((folder / "manifest.json").read_text())
        found.append((facts["audits"]["failed"], facts["audits"]["where"], len(facts["sessions"])))
    assert found == [(1, ["step 2: loss is 1 and 2"], 2), (0, [], 3), (0, [], 4)]


def test_a_fresh_sweep_that_was_stopped_goes_on_by_the_same_command(tmp_path: Path) -> None:
    config = sweeps.spec(axes={"train.batch_size": [5, 6, 7, 8]}, lr=[0.1], optimizers=["sgd"])
    sweeps.run(tmp_path, config)
    expected = sweeps.tables(tmp_path / "small")
    with pytest.raises(StoppedError, match="rerun the command to resume"):
        sweeps.run(tmp_path, config, fresh=True, reporter=StopsAfter(2))
    done = api.status(tmp_path / "small").done
    assert 2 <= done < 8
    assert sweeps.estimate(tmp_path, config, fresh=True).to_do == 8 - done
    reporter = Silent()
    assert sweeps.run(tmp_path, config, fresh=True, reporter=reporter).trained == 8 - done
    assert "resuming the --fresh run that was interrupted" in reporter.notes
    assert sweeps.tables(tmp_path / "small") == expected
    assert len(list((tmp_path / "small").glob("journal.old-*"))) == 1
    assert sweeps.run(tmp_path, config, fresh=True).trained == 8  # that one is complete: this one starts over


def test_a_first_sweep_with_fresh_that_was_stopped_goes_on_by_the_same_command(tmp_path: Path) -> None:
    config = sweeps.spec(axes={"train.batch_size": [5, 6, 7, 8]}, lr=[0.1], optimizers=["sgd"])
    with pytest.raises(StoppedError):
        sweeps.run(tmp_path, config, fresh=True, reporter=StopsAfter(2))
    done = api.status(tmp_path / "small").done
    assert sweeps.run(tmp_path, config, fresh=True).trained == 8 - done
    assert not list((tmp_path / "small").glob("journal.old-*"))


WANDERING = """
import os
import torch
from lrsweep import Task

def make(folder):
    os.chdir(folder)
    x = torch.ones(4, 2)
    return Task(train=(x, x), val=(x, x), model=lambda: torch.nn.Linear(2, 2), loss=torch.nn.functional.mse_loss)
"""


def test_a_task_that_changes_the_current_folder_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task.py").write_text(WANDERING)
    (tmp_path / "elsewhere").mkdir()
    task = f"{{name: task.py:make, folder: {tmp_path / 'elsewhere'}}}"
    Path(tmp_path / "small.yaml").write_text(
        f"{{task: {task}, lr: [0.1, 1.0], optimizers: [sgd], seeds: 1, train: {{epochs: 1}}}}"
    )
    monkeypatch.chdir(tmp_path)
    for trained in (2, 0):
        worker.workloads.cache_clear()
        finished = sweeps.run(Path("results"), "small.yaml", draw=True)
        assert finished.trained == trained
        assert Path.cwd() == tmp_path
    assert (finished.path, finished.shown) == (tmp_path / "results/small", Path("results/small"))
    assert {"runs.csv", "report.html", "u_curve.png", "journal"} <= {path.name for path in finished.path.iterdir()}
    assert list((tmp_path / "elsewhere").iterdir()) == []


SOMETIMES = """
import torch
from pathlib import Path
from lrsweep import Task

def make():
    if Path(__file__).with_name("broken").exists():
        raise ValueError("broken")
    x = torch.ones(4, 2)
    return Task(train=(x, x), val=(x, x), model=lambda: torch.nn.Linear(2, 2), loss=torch.nn.functional.mse_loss)
"""


def test_a_fresh_sweep_that_cannot_start_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(SOMETIMES)
    config = tmp_path / "small.yaml"
    config.write_text("{task: task.py:make, lr: [0.1], optimizers: [sgd], seeds: 1, train: {epochs: 1}}")
    sweeps.run(tmp_path, config)
    (tmp_path / "broken").touch()
    worker.workloads.cache_clear()
    with pytest.raises(UsageError, match="broken"):
        sweeps.run(tmp_path, config, fresh=True)
    assert not list((tmp_path / "small").glob("journal.old-*"))
    assert sweeps.run(tmp_path, config).trained == 0


def test_a_published_copy_is_replaced_when_the_run_ends(tmp_path: Path) -> None:
    sweeps.run(tmp_path)
    before = sweeps.tables(tmp_path / "small")
    shutil.rmtree(tmp_path / "small" / "journal")
    (tmp_path / "small" / "runs.csv").write_bytes(before["runs.csv"].replace(b"sgd", b"foo"))
    reporter = Silent()
    assert sweeps.run(tmp_path, reporter=reporter).trained == 12
    assert "published copy" in told(reporter)[0]
    assert sweeps.tables(tmp_path / "small") == before


def test_refine_adds_rates_that_stay(tmp_path: Path) -> None:
    config = sweeps.spec(lr=[0.001, 0.01], optimizers=["sgd"], train={"epochs": 9, "batch_size": 20})
    assert sweeps.run(tmp_path, config).trained == 4
    reporter = Silent()
    finished = sweeps.run(tmp_path, config, refine=True, reporter=reporter)
    assert finished.trained > 0
    assert any("--refine" in note for note in reporter.notes)
    assert "refined:" in (tmp_path / "small" / "spec.yaml").read_text()
    rates = set(tables.read_runs(tmp_path / "small")["lr"])
    assert rates > {0.001, 0.01}
    assert sweeps.run(tmp_path, config).trained == 0  # they count as part of the spec
    assert set(tables.read_runs(tmp_path / "small")["lr"]) == rates
    sweeps.run(tmp_path, config, fresh=True)
    assert set(tables.read_runs(tmp_path / "small")["lr"]) == {0.001, 0.01}


def test_one_command_refines_until_no_rate_is_missing(tmp_path: Path) -> None:
    config = sweeps.spec(lr=[1e-2, 1e-1], optimizers=["sgd", "asgd"], train={"epochs": 9, "batch_size": 20})
    reporter = Silent()
    finished = sweeps.run(tmp_path, config, refine=True, reporter=reporter)
    added = [note for note in reporter.notes if note.startswith("learning rates added")]
    assert 1 < len(added) <= ROUNDS
    assert reporter.notes[-1].startswith("--refine: nothing to add")
    assert finished.facts is not None
    assert refine(finished.facts) == {}
    assert sum("one at a time" in note for note in reporter.notes) == 1  # not in every round
    again = Silent()
    assert sweeps.run(tmp_path, config, refine=True, reporter=again).trained == 0
    (note,) = again.notes
    assert note.startswith("--refine: nothing to add: each good range has 3 or more learning rates, and there and at ")


def test_refining_ends_after_some_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrsweep.analysis.suggest.ROUNDS", 2)
    config = sweeps.spec(lr=[1e-9, 1e-8], optimizers=["sgd"], seeds=1)
    reporter = Silent()
    sweeps.run(tmp_path, config, refine=True, reporter=reporter)
    assert sum(note.startswith("learning rates added") for note in reporter.notes) == 2
    assert "--refine stopped after 2 rounds; rerun to continue" in reporter.notes[-1]


def test_refining_tries_no_failed_run_again(tmp_path: Path) -> None:
    config = own(tmp_path / "code", "if torch.initial_seed() == 1: raise RuntimeError('bad')", optimizers=["sgd"])
    finished = sweeps.run(tmp_path, config, refine=True)
    assert finished.trained == finished.total > 4
    assert finished.failed == finished.total / 2


def test_refined_rates_survive_the_loss_of_their_record(tmp_path: Path) -> None:
    config = sweeps.spec(lr=[0.001, 0.01], optimizers=["sgd"], train={"epochs": 9, "batch_size": 20})
    sweeps.run(tmp_path, config, refine=True)
    folder = tmp_path / "small"
    whole = sweeps.tables(folder)
    for path in journal.paths(folder):
        path.write_bytes(b"".join(line for line in path.read_bytes().splitlines(True) if b'"kind":"plan"' not in line))
    assert sweeps.run(tmp_path, config).trained == 0
    assert sweeps.tables(folder) == whole
    for path in journal.paths(folder):
        path.write_bytes(b"".join(line for line in path.read_bytes().splitlines(True) if b'"kind":"plan"' not in line))
    (folder / "spec.yaml").write_bytes(b"\0")
    with pytest.raises(StorageError, match="--fresh"):
        sweeps.run(tmp_path, config)


def test_a_sweep_in_which_everything_fails_has_tables(tmp_path: Path) -> None:
    config = own(tmp_path / "code", "raise OSError('no model today')", optimizers=["sgd"])
    finished = sweeps.run(tmp_path, config, draw=True)
    assert (finished.trained, finished.failed) == (4, 4)
    assert tables.read_runs(tmp_path / "small")["error"].str.startswith("OSError: no model today").all()
    assert len(tables.read_curves(tmp_path / "small")) == 0
    assert tables.read_summary(tmp_path / "small")["n_failed"].tolist() == [4]


def test_a_sweep_stopped_before_its_first_run_has_tables(tmp_path: Path) -> None:
    class Impatient(Silent):
        def start(self, start: Start) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError, match="0 of 4 runs") as info:
        sweeps.run(tmp_path, sweeps.spec(train={"steps": 100_000}, lr=[0.1]), reporter=Impatient())
    assert info.value.exit_code == 130
    assert len(tables.read_runs(tmp_path / "small")) == 0
    assert api.status(tmp_path / "small").to_do == 4
    assert "default_lr" in tables.read_summary(tmp_path / "small").columns
    assert plot.draw_all(tmp_path / "small") == []
    assert page.write(tmp_path / "small").is_file()


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    facts = sweeps.estimate(tmp_path)
    assert (facts.runs, facts.done, facts.to_do, facts.run_steps) == (12, 0, 12, 72)
    assert sum(facts.engines.values()) == 12
    assert facts.bytes > 1000
    assert not (tmp_path / "small").exists()
    sweeps.run(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    grown = sweeps.estimate(tmp_path, sweeps.spec(seeds=3))
    assert (grown.runs, grown.done, grown.to_do, grown.run_steps) == (18, 12, 6, 36)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_times_real_steps(tmp_path: Path) -> None:
    config = sweeps.spec(train={"steps": 1_000_000, "batch_size": 20}, lr=[0.01, 0.1])
    facts = sweeps.estimate(tmp_path, config)
    assert facts.seconds > 10
    assert math.isfinite(facts.seconds)
    short = sweeps.estimate(tmp_path, sweeps.spec(train={"steps": 2, "batch_size": 20}))
    assert 0 < short.seconds < 60


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": {"epochs": 2, "batch_size": 500}}, ["train.batch_size 500 exceeds the 54 training examples"]),
        ({"train": {"epochs": 2, "batch_size": "full"}}, []),
        ({"train": {"epochs": 2, "batch_size": 54}, "schedule": {"name": "linear", "warmup": 2}}, []),
        ({"schedule": {"name": "cosine", "warmup": 24}}, ["warmup of 24 steps is longer than the run (6 steps), so "
                                                          "lr only reaches 0.25 of its value"]),
        ({"axes": {"schedule.warmup": [1, 24]}, "schedule": "linear"}, ["warmup of 24 steps"]),
        ({"optimizers": [{"name": "sgd", "momentum": 0.9}], "axes": {"optimizers.momentum": [0.0, 0.5]}},
         ["whatever that label says"]),
        ({"optimizers": [{"name": "sgd", "momentum": 0.9, "label": "m"}], "axes": {"optimizers.momentum": [0.5]}}, []),
    ],
)  # fmt: skip
def test_what_the_spec_allows_but_hardly_means_is_said_once(
    changed: dict[str, Any], said: list[str], tmp_path: Path
) -> None:
    for either in (sweeps.estimate, sweeps.run):
        reporter = Silent()
        either(tmp_path, sweeps.spec(lr=[0.01, 0.1], **changed), reporter=reporter)
        warned = [note for note in reporter.notes if note.startswith("warning")]
        assert len(warned) == len(said)
        assert all(part in note for part, note in zip(said, warned, strict=True))


def test_a_dry_run_tells_what_its_time_is_of(tmp_path: Path) -> None:
    facts = sweeps.estimate(tmp_path)

    def time(seconds: float) -> str:
        told = output.estimate(dataclasses.replace(facts, seconds=seconds, workers=1))
        return next(line.split(maxsplit=1)[1] for line in told.splitlines() if line.startswith("  time"))

    beside = "of training with 1 process on cpu, plus a few seconds for startup and plots"
    assert time(0.2) == f"less than 1 s {beside}"
    assert time(64.2) == f"about 1 min 04 s {beside}"
    assert time(math.nan) == "unknown: no step could be timed"


def test_one_run_is_one_run_and_not_done_before_it_is(tmp_path: Path) -> None:
    stream = io.StringIO()
    plain = progress.PlainReporter(stream, every=0.0)
    plain.update(Update(done=0, total=1, diverged=0, failed=0, run_steps=6, run_steps_total=6))
    assert stream.getvalue() == "0/1 run, 0 diverged, 0 s left\n"
    bar = progress.BarReporter()
    for done, share in ((0, 99.0), (1, 100.0)):
        bar._shown = 0.0
        bar.update(Update(done=done, total=1, diverged=0, failed=0, run_steps=6, run_steps_total=6))
        assert bar._progress.tasks[0].percentage == pytest.approx(share)
    stored = SweepStatus(
        name="s", path=Path("s"), total=1, done=1, to_do=0, diverged=0, failed=0, outside=0, busy=False
    )
    assert output.status(stored).startswith("s (s): 1 of 1 run done, 0 to do")
    alone = fabricate.folder(tmp_path, rates=[0.01], optimizers=["sgd"], seeds=1)
    facts = plot.load(alone).facts
    assert words.budget_line(facts).endswith("1 seed · 1 run, 0 diverged")
    assert "1 seed · 1 run, 0 diverged" in page.write(alone).read_text()


def marked(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_a_finished_sweep_redraws_pictures_of_another_objective(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    config = sweeps.spec(train={"epochs": 2, "batch_size": 20})
    sweeps.run(tmp_path, config, draw=True)
    right, before = (folder / "u_curve.png").read_bytes(), marked(folder)
    sweeps.run(tmp_path, config, draw=True)
    plot.draw_all(folder, ("svg", "png"), metric="val_accuracy")  # none of what `run` draws
    sweeps.run(tmp_path, config, draw=True)
    assert {name: mark for name, mark in marked(folder).items() if "val_accuracy" not in name} == before
    for asked in ({"metric": "val_accuracy"}, {"at": "best"}):
        other = plot.rendered(plot.load(folder, **asked), ("png",))
        plot.save(other, folder, ("png",))  # as an earlier version did
        assert (folder / "u_curve.png").read_bytes() != right
        again = sweeps.run(tmp_path, config, draw=True)
        assert (again.trained, again.facts) == (0, None)
        assert (folder / "u_curve.png").read_bytes() == right


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sweep with all its pictures, in every format, and the same with another seed."""
    worker.one_thread()
    small, grown = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("grown")
    sweeps.run(small, draw=True)
    plot.draw_all(small / "small", ("svg", "pdf"))
    shutil.copytree(small, grown, dirs_exist_ok=True)
    sweeps.run(grown, sweeps.spec(seeds=3), draw=True)
    return small, grown


def pictures(folder: Path) -> dict[str, bytes]:
    kinds = (".png", ".svg", ".pdf", ".html")
    return {path.name: path.read_bytes() for path in sorted((folder / "small").iterdir()) if path.suffix in kinds}


def test_an_extended_sweep_draws_what_there_is_in_every_format(drawn: tuple[Path, Path]) -> None:
    small, grown = (pictures(folder) for folder in drawn)
    assert list(small) == list(grown)
    assert {Path(name).suffix for name in small} == {".png", ".svg", ".pdf", ".html"}
    assert all(small[name] != grown[name] for name in small)
    fingerprint = tables.digest_of(drawn[1] / "small")
    assert all(fingerprint.encode() in data for data in grown.values())


@pytest.mark.parametrize("outdated", [pytest.param("all", marks=pytest.mark.slow), "report.html"])
def test_a_run_with_nothing_to_train_draws_what_is_outdated(
    tmp_path: Path, drawn: tuple[Path, Path], outdated: str
) -> None:
    """Whoever left it so: killed before its pictures, out of disk space, a `plot` that began before and came late."""
    small, grown = (pictures(folder) for folder in drawn)
    shutil.copytree(drawn[1], tmp_path, dirs_exist_ok=True)
    for name in small if outdated == "all" else [outdated]:
        (tmp_path / "small" / name).write_bytes(small[name])
    assert sweeps.run(tmp_path, sweeps.spec(seeds=3), draw=True).trained == 0
    assert pictures(tmp_path) == grown


def test_a_run_killed_between_its_tables_and_its_manifest_writes_that_later(tmp_path: Path) -> None:
    sweeps.run(tmp_path)
    manifest = tmp_path / "small" / "manifest.json"
    before = manifest.read_text()
    sweeps.run(tmp_path, sweeps.spec(seeds=3))
    manifest.write_text(before)
    sweeps.run(tmp_path, sweeps.spec(seeds=3))
    assert json.loads(manifest.read_text())["seeds"] == [0, 1, 2]


def test_the_python_function(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    results = lrsweep.run(sweeps.spec(), results=tmp_path, set=["train.epochs=1", "seeds=1"], device="cpu", workers=1)
    assert results.path == tmp_path / "small"
    assert len(results.runs) == 6
    assert results.spec.train.epochs == 1
    assert lrsweep.load(tmp_path / "small").runs.equals(results.runs)
    with pytest.raises(SpecError):
        lrsweep.run({"optimizers": "x"}, results=tmp_path)
    with pytest.raises(UsageError, match="auto, rich, plain, none"):
        lrsweep.run(sweeps.spec(), results=tmp_path, progress="fancy")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 0}, "whole number"),
        ({"executor": "mail"}, r"\(allowed: local, in-process, ray\)"),
        ({"address": "head:6379"}, "address='head:6379': only the executor ray has an address"),
        ({"device": "tpu"}, "auto, cpu, cuda"),
        ({"compile": "maybe"}, "auto, on or off"),
    ],
)
def test_wrong_options_are_usage_errors(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text) as info:
        sweeps.run(tmp_path, **options)
    assert info.value.exit_code == 2


def test_a_file_in_the_way_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(StorageError, match="choose another folder") as info:
        sweeps.run(tmp_path / "results")
    assert info.value.exit_code == 4


@pytest.mark.parametrize("name", ["with space", "ünïcode ☂", "quote'\"", "-dash", "new\nline", "%s{}$HOME"])
def test_hostile_folder_names(tmp_path: Path, name: str) -> None:
    config = sweeps.spec(seeds=1, lr=[0.1], optimizers=["sgd"])
    assert sweeps.run(tmp_path / name, config).trained == 1
    assert sweeps.run(tmp_path / name, config).trained == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_status_of_an_unfinished_sweep_and_of_a_copy(tmp_path: Path) -> None:
    sweeps.run(tmp_path)
    folder = tmp_path / "small"
    (path,) = journal.paths(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    status = api.status(folder)
    assert (status.total, status.done, status.to_do, status.failed, status.busy) == (12, 10, 2, 0, False)
    shutil.rmtree(folder / "journal")
    copy = api.status(folder)
    assert (copy.total, copy.done, copy.diverged) == (12, 12, 4)


def test_status_needs_no_torch(tmp_path: Path) -> None:
    sweeps.run(tmp_path)
    (tmp_path / "small" / "runs.csv").unlink()
    code = (
        "import sys\nfrom lrsweep.results import tables\nfrom lrsweep.sweep import api as sweep\n"
        f"status = sweep.status({str(tmp_path / 'small')!r})\ntables.ensure({str(tmp_path / 'small')!r})\n"
        "assert status.done == 12\nassert 'torch' not in sys.modules, 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def recording(job: Job, problem: Any, hooks: Any) -> Iterator[RunResult]:
    """An engine that trains nothing; a group's runs all show how many were in it."""
    for run in job.runs:
        hooks.tick(6)
        yield RunResult(
            run_id=run.run_id, status="ok", steps=6, history={"step": [0], "train_loss": [float(len(job.runs))]}
        )


def test_a_resumed_sweep_repeats_the_groups_that_were_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in worker.ENGINES:
        monkeypatch.setitem(worker.ENGINES, name, recording)
    sweeps.run(tmp_path / "whole")
    sweeps.run(tmp_path)
    (path,) = journal.paths(tmp_path / "small")
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"outcome"' not in line]
    outcomes = [line for line in lines if b'"outcome"' in line]
    path.write_bytes(b"".join([*kept, outcomes[0]]))
    finished = sweeps.run(tmp_path, sweeps.spec(seeds=3))
    assert finished.trained == 17
    found = journal.replay(tmp_path / "small")
    whole = journal.replay(tmp_path / "whole" / "small")
    for run_id in whole.entries:
        assert found.outcome(run_id) == whole.outcome(run_id)


OWN_OPTIMIZER = """
import torch

class Plain(torch.optim.SGD):
    def __init__(self, params, lr=0.1, *, decay=0.0):
        super().__init__(params, lr=lr, weight_decay=decay)
"""


def test_an_argument_that_an_own_optimizer_refuses_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_OPTIMIZER)
    spec = "task: blobs\nlr: [0.1]\nseeds: 1\ntrain: {epochs: 1}\noptimizers: [{name: 'own.py:Plain', dekay: 0.1}]\n"
    (tmp_path / "own.yaml").write_text(spec)
    with pytest.raises(UsageError, match=r"dekay.*its arguments are \(\*, decay=0.0\)"):
        lrsweep.run(tmp_path / "own.yaml", results=tmp_path / "results")
    assert not (tmp_path / "results").exists()
    (tmp_path / "own.py").write_text(OWN_OPTIMIZER + "\ndef make(n): ...\n")
    (tmp_path / "own.yaml").write_text(spec.replace("blobs", "{name: 'own.py:make', m: 3}"))
    with pytest.raises(UsageError) as caught:  # both are told
        lrsweep.run(tmp_path / "own.yaml", results=tmp_path / "results")
    assert re.search(r"own\.py:make: own\.py:8: .*\n.*dekay", str(caught.value))
    (tmp_path / "own.yaml").write_text(spec.replace("dekay", "decay"))
    assert list(lrsweep.run(tmp_path / "own.yaml", results=tmp_path / "results").runs["status"]) == ["ok"]


OWN_TASKS = """
def make(n): ...

def make_it():
    import lrsweep
    x = torch.zeros(8, 2)
    y = torch.zeros(8, 1)
    model = lambda: torch.nn.Linear(2, 1)
    mae = lambda out, target: (out - target).abs().mean()
    loss = lambda out, target: ((out - target) ** 2).mean()
    return lrsweep.Task(train=(x, y), val=(x, y), model=model, loss=loss, metrics={"mae": mae})
"""

MISPLACED = {
    "no rows left": ("task: {name: iris, @val: 0.6, test: 0.5}", "task.val", "leaving none for train"),
    "no part of the rows": ("task: {name: iris, @test: 2.5}", "task.test", "2.5 is neither"),
    "no such column": ("task: {name: csv, path: d.csv, @target: lable}", "task.target", "did you mean label"),
    "missing cell": ("@task: {name: csv, path: d.csv, target: label}", "task", "d.csv:3: column 'x'"),
    "model of images": ("task: iris\n@model: cnn", "model", "inputs must be images"),
    "model of tokens": ("task: iris\n@model: transformer", "model", "it reads tokens"),
    "model that does not divide": (
        "task: char_lm\n@model: {name: transformer, dim: 10, heads: 3}",
        "model",
        "dim 10 is not a multiple of heads 3",
    ),
    "argument of an own task": ("task: {name: 'own.py:make', n: 1, @m: 3}", "task.m", "own.py:8: got an unexpected"),
    "argument of an own optimizer": (
        "optimizers: [sgd, {name: 'own.py:Plain', @dekay: 0.1}]\ntask: blobs",
        "optimizers[1].dekay",
        "(its arguments are (*, decay=0.0))",
    ),
    "value of an axis": ("task: iris\naxes: {@task.val: [0.9]}", "axes.task.val", "leaving none for train"),
    "metric": (
        "task: 'own.py:make_it'\nobjective: {@metric: val_mse}",
        "objective.metric",
        "does not record 'val_mse'",
    ),
}


@pytest.mark.parametrize("case", MISPLACED)
def test_what_only_data_or_code_show_to_be_wrong_is_told_with_its_place(case: str, tmp_path: Path) -> None:
    text, key, part = MISPLACED[case]
    lines = [*text.split("\n"), "lr: [0.1]", "seeds: 1", "train: {epochs: 1}"]
    lines += [] if "optimizers" in text else ["optimizers: [sgd]"]
    line = next(i for i, one in enumerate(lines) if "@" in one)
    place = f"{line + 1}:{lines[line].index('@') + 1}"
    (tmp_path / "e.yaml").write_text("\n".join(lines).replace("@", ""))
    (tmp_path / "d.csv").write_text("x,label\n1,a\n,b\n")
    (tmp_path / "own.py").write_text(OWN_OPTIMIZER + OWN_TASKS)
    with pytest.raises(UsageError) as caught:
        lrsweep.run(tmp_path / "e.yaml", results=tmp_path / "results", dry_run=True)
    assert str(caught.value).startswith(f"{tmp_path / 'e.yaml'}:{place}: {key}: ")
    assert part in str(caught.value)


def test_a_changed_sweep_redraws_plots_with_options_and_tells_which_it_no_longer_has(tmp_path: Path) -> None:
    sweeps.run(tmp_path, sweeps.spec(seeds=1), draw=True)
    folder = tmp_path / "small"
    options: tuple[dict[str, Any], ...] = (
        {"metric": "val_accuracy", "at": "last_2"},
        {"optimizers": ["sgd"], "width": 3.25, "titled": False},
        {"optimizers": ["adam"]},
    )
    for one in options:
        plot.draw_sweep(plot.load(folder, **one), folder, ("png", "svg"), ["u_curve"])
    before = {path.name: path.read_bytes() for path in folder.glob("*__*")}
    assert len(before) == 6
    reporter = Silent()
    sweeps.run(tmp_path, sweeps.spec(seeds=2, optimizers=["sgd"]), draw=True, reporter=reporter)
    after = {path.name: path.read_bytes() for path in folder.glob("*__*")}
    assert list(after) == list(before)
    assert {name for name in after if after[name] == before[name]} == {"u_curve__adam.png", "u_curve__adam.svg"}
    assert [text.partition(" ")[0] for text in reporter.notes if "delete it" in text] == [
        "u_curve__adam.png",
        "u_curve__adam.svg",
    ]
    for one in options[:2]:
        sweep = plot.load(folder, **one)
        assert sweep.mark.encode() in after[f"u_curve{sweep.suffix}.svg"]
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*__*")}
    sweeps.run(tmp_path, sweeps.spec(seeds=2, optimizers=["sgd"]), draw=True)
    assert times == {path: path.stat().st_mtime_ns for path in times}, "current ones are left"
