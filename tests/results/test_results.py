"""Results: what a script gets from a finished sweep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

import lrsweep
from lrsweep.errors import UsageError
from tests.support import tables as fabricate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate.folder(tmp_path_factory.mktemp("results"), optimizers=("sgd", "adam"), failed=(1,), rows=8)


def test_the_frames_hold_what_the_files_hold(folder: Path) -> None:
    results = lrsweep.load(folder)
    assert isinstance(results, lrsweep.Results)
    assert results.path == folder
    assert results.spec.name == "made_up"
    assert [optimizer.label for optimizer in results.spec.optimizers] == ["sgd", "adam"]
    for name, frame in (("runs", results.runs), ("curves", results.curves), ("summary", results.summary)):
        plain = pd.read_csv(folder / f"{name}.csv")
        assert list(frame.columns) == list(plain.columns)
        assert len(frame) == len(plain)
    assert results.runs["lr"].tolist() == pd.read_csv(folder / "runs.csv")["lr"].tolist()


def test_failed_and_diverged_runs_are_rows(folder: Path) -> None:
    assert set(lrsweep.load(folder).runs["status"]) == {"ok", "diverged", "failed"}


def test_figures_are_matplotlib_figures_that_a_script_can_save(folder: Path, tmp_path: Path) -> None:
    results = lrsweep.load(str(folder))
    for number, figure in enumerate((results.u_curve(), results.loss_curves(), results.u_curve(metric="val_accuracy"))):
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")


def test_facts_are_those_of_the_summary(folder: Path) -> None:
    results = lrsweep.load(folder)
    assert [row.best_lr.value for row in results.facts().rows] == results.summary["best_lr"].tolist()


def test_an_unknown_metric_is_a_usage_error(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"nonsense is not a column of curves\.csv"):
        lrsweep.load(folder).u_curve(metric="nonsense")


def test_what_was_read_stays_when_the_files_go(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("adam",), rates=[1e-3, 1e-2, 1e-1], seeds=1, rows=8)
    results = lrsweep.load(folder)
    for name in ("runs.csv", "curves.csv", "summary.csv", "spec.yaml"):
        (folder / name).unlink()
    assert len(results.u_curve().axes) == 1


def test_no_sweep_no_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sweep"):
        lrsweep.load(tmp_path)


def test_reading_results_needs_neither_torch_nor_matplotlib(folder: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(lrsweep.__file__).parents[1])!r})
import lrsweep
lrsweep.load({str(folder)!r}).facts()
assert not {{"torch", "matplotlib"}} & set(sys.modules), "too much is imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
