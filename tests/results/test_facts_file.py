"""Facts that were kept are the facts of the tables, or none."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrsweep import plan, plot
from lrsweep.analysis import analyse
from lrsweep.analysis.facts import SweepFacts
from lrsweep.plot import draw
from lrsweep.report import page
from lrsweep.results import facts_file, tables
from lrsweep.run_result import RunResult
from lrsweep.spec.load import load_spec
from lrsweep.store import journal, plan_record
from lrsweep.store.journal import Journal
from tests.support import generated
from tests.support import tables as fabricate

RUNS = 360


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up runs with two axes, failed and diverged ones too."""
    spec = generated.spec(1000, rows=4) | {
        "lr": {"min": 1e-4, "max": 10.0, "points": 10},
        "optimizers": ["sgd", "adam", {"name": "sgd", "momentum": 0.9, "weight_decay": 1, "label": 'é,"sgd"'}],
        "seeds": 3,
        "axes": {"train.batch_size": [8, 16], "task.std": [0.5, 1.0]},
    }
    loaded = load_spec(spec)
    made = plan.build(loaded, plan.fingerprints(loaded))
    path = tmp_path_factory.mktemp("facts") / "generated"
    path.mkdir()
    outcomes = [*generated.results(replace(made, runs=[_known(run) for run in made.runs]))]
    outcomes[7] = RunResult(run_id=outcomes[7].run_id, status="failed", error="ValueError: made up")
    writer = Journal(path)
    writer.append([plan_record.plan_record(made, path, None), *(journal.outcome_record(one, "g") for one in outcomes)])
    writer.close()
    return path


def _known(run: plan.Run) -> plan.Run:
    """With a label that has a largest stable rate."""
    return replace(run, label=run.label if run.label in generated.STABLE else "sgd")


@pytest.fixture
def folder(_made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(facts_file, "LEAST_RUNS", 100)
    for name in (tables.RUNS, tables.SUMMARY):
        (_made / name).unlink(missing_ok=True)
    tables.ensure(_made)
    return _made


def kept(folder: Path) -> SweepFacts | None:
    return facts_file.read(folder, tables.digest_of(folder))


def computed(folder: Path) -> SweepFacts:
    from lrsweep.spec.load import read_resolved

    summary = tables.read_summary(folder)
    rates = {str(label): float(lr) for label, lr in zip(summary["optimizer"], summary["default_lr"], strict=True)}
    spec = read_resolved(folder / tables.SPEC)
    return analyse(tables.read_runs(folder), tables.read_curves(folder), spec, rates)


def test_they_are_those_of_the_tables_to_the_bit(folder: Path) -> None:
    found = kept(folder)
    assert repr(found) == repr(computed(folder))  # nan equals nan, 1 is not 1.0, a tuple is no list
    assert found is not None
    assert any(math.isnan(point.time) or math.isinf(point.time) for row in found.rows for point in row.rates)
    assert {run.status for row in found.rows for run in row.runs} == {"ok", "diverged", "failed"}


def no_analysis(*_: object, **__: object) -> SweepFacts:
    raise AssertionError("the tables were analysed")


def test_plots_and_report_of_them_are_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> tuple[dict[str, bytes], str]:
        drawn = plot.rendered(plot.load(folder), ("png", "svg"), ("u_curve", "loss_curves", "sensitivity"))
        return {f"{one.name}.{kind}": data for one in drawn for kind, data in one.files.items()}, page.make(
            folder, ()
        ).text

    with monkeypatch.context() as patched:
        patched.setattr(draw, "analyse", no_analysis)
        of_kept = made()
    (folder / journal.FOLDER / facts_file.FILE).unlink()
    assert made() == of_kept


def test_another_objective_is_analysed(folder: Path) -> None:
    assert plot.load(folder, metric="val_loss", at="final").facts.at == "final"
    assert plot.load(folder, metric="val_accuracy").facts.metric == "val_accuracy"
    assert plot.load(folder, at="best").facts.at == "best"
    only = plot.load(folder, optimizers=["adam"]).facts
    assert {row.optimizer for row in only.rows} == {"adam"}


def test_those_of_other_tables_are_passed_over(folder: Path) -> None:
    table = folder / tables.CURVES
    data = table.read_bytes()
    table.write_bytes(data + b" ")
    assert kept(folder) is None
    table.write_bytes(data)
    assert kept(folder) is not None


def test_a_sweep_that_became_small_keeps_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_file, "LEAST_RUNS", 10_000)
    (folder / tables.SUMMARY).unlink()
    tables.ensure(folder)
    assert not (folder / journal.FOLDER / facts_file.FILE).exists()


def changed(data: bytes, change: Callable[[list[Any]], None]) -> bytes:
    """Other content with a checksum that fits, as another's folder may have it."""
    fingerprint, *lines, _ = data.split(b"\n")
    content = [json.loads(line)[0] for line in lines]
    change(content)
    whole = b"".join(line + b"\n" for line in [fingerprint, *(json.dumps([one]).encode() for one in content)])
    return whole + hashlib.sha256(whole).hexdigest().encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[0].update(mode="sideways"),
        lambda lines: lines[0].pop("seeds"),
        lambda lines: lines[1].update(unknown=1),
        lambda lines: lines[1].update(optimizer=3),
        lambda lines: lines[1]["rates"][0].update(lr="0.1"),
        lambda lines: lines[1].update(runs=[{"__reduce__": "os.system"}]),
        lambda lines: lines[1].update(axes=["train.batch_size"]),
        lambda lines: lines.clear(),
    ],
)
def test_facts_of_another_shape_are_passed_over(folder: Path, change: Callable[[list[Any]], None]) -> None:
    path = folder / journal.FOLDER / facts_file.FILE
    data = path.read_bytes()
    path.write_bytes(changed(data, lambda lines: None))
    assert kept(folder) is not None
    path.write_bytes(changed(data, change))
    assert kept(folder) is None
    assert plot.load(folder).facts.n_runs == RUNS


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "a line less", "flipped", "no text"])
def test_damaged_facts_are_passed_over(folder: Path, damage: str) -> None:
    path = folder / journal.FOLDER / facts_file.FILE
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[data.index(b'"best_objective":') + 21] ^= 1  # another digit
    lines = data.split(b"\n")
    path.unlink()
    if damage != "gone":
        found = {"empty": b"", "cut": data[:-9], "a line less": b"\n".join(lines[:-2] + lines[-1:]), "no text": b"\xff"}
        path.write_bytes(found.get(damage, bytes(flipped)))
    assert kept(folder) is None
    assert plot.load(folder).facts.n_runs == RUNS


def test_a_published_copy_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_file, "LEAST_RUNS", 1)
    path = fabricate.folder(tmp_path, optimizers=("sgd",), rates=[0.1, 1.0], seeds=2, rows=3)
    assert plot.load(path).facts.n_runs == 4
    assert not (path / journal.FOLDER).exists()


@pytest.mark.parametrize(
    "altered",
    [
        lambda facts: replace(facts, rows=facts.rows[1:]),
        lambda facts: replace(facts, rows=(replace(facts.rows[0], recommended_lr=0.5), *facts.rows[1:])),
        lambda facts: replace(facts, rows=(replace(facts.rows[0], optimizer="other"), *facts.rows[1:])),
    ],
)
def test_facts_that_contradict_the_summary_are_passed_over(
    folder: Path, altered: Callable[[SweepFacts], SweepFacts]
) -> None:
    """Whoever altered them gave them the right hash."""
    facts_file.write(folder, tables.digest_of(folder), computed(folder))
    assert kept(folder) is not None
    facts_file.write(folder, tables.digest_of(folder), altered(computed(folder)))
    assert kept(folder) is None
