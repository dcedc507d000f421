"""Results: what a script gets from a finished sweep."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

import lrsweep
from lrsweep import load
from lrsweep.errors import UsageError
from lrsweep.plot import style
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
    with pytest.raises(UsageError, match=r"metric='nonsense': not a column of curves\.csv"):
        lrsweep.load(folder).u_curve(metric="nonsense")


def test_what_was_read_stays_when_the_files_go(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("adam",), rates=[1e-3, 1e-2, 1e-1], seeds=1, rows=8)
    results = lrsweep.load(folder)
    for name in ("runs.csv", "curves.csv", "summary.csv", "spec.yaml"):
        (folder / name).unlink()
    assert len(results.u_curve().axes) == 1


def test_check_and_compare_take_results_as_well_as_folders(folder: Path) -> None:
    results = lrsweep.load(folder)
    assert lrsweep.check(results) == lrsweep.check(folder)
    assert lrsweep.compare(results, str(folder)) == lrsweep.compare(folder, folder)


@pytest.mark.parametrize("wrong", [None, 3, {"task": "digits"}])
def test_what_is_no_sweep_is_a_usage_error(folder: Path, wrong: Any) -> None:
    for read in (lrsweep.load, lrsweep.check, lambda sweep: lrsweep.compare(folder, sweep)):
        with pytest.raises(UsageError, match=r"is no sweep; give the folder of one"):
            read(wrong)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_sensitivity": "0.5"}, "max_sensitivity='0.5': must be a finite number, 0 or more"),
        ({"min_basin_decades": -1}, "min_basin_decades=-1: must be"),
        ({"max_diverged": 2}, "max_diverged=2: must be a fraction of the runs, from 0 to 1"),
        ({"max_diverged": True}, "max_diverged=True: must be"),
        ({"best_lr_within": (1, 0.1)}, "best_lr_within=(1, 0.1): give two learning rates above 0"),
        ({"best_lr_within": 0.1}, "best_lr_within=0.1: give two"),
        ({"optimizer": "lion"}, "optimizer='lion': no such optimizer label (have: "),
    ],
)
def test_limits_are_named_as_python_has_them(folder: Path, limits: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as info:
        lrsweep.check(folder, **limits)
    assert str(info.value).startswith(said)


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


def test_what_to_use_is_the_row_of_the_summary_with_the_best_median_there(folder: Path) -> None:
    results = load(folder)
    facts = results.facts()
    best = min((row for row in facts.rows if row.trained), key=lambda row: row.recommended_objective)
    assert results.recommended["optimizer"] == best.optimizer
    assert results.recommended["recommended_lr"] == best.recommended_lr
    for row in facts.rows:
        assert results.best(row.optimizer)["best_lr"] == row.best_lr.value
    with pytest.raises(UsageError, match="no optimizer 'lion' in this sweep"):
        results.best("lion")


def test_where_nothing_trained_there_is_nothing_to_recommend(tmp_path: Path) -> None:
    results = load(fabricate.folder(tmp_path, optimizers=("sgd",), rates=[100.0, 1000.0]))
    with pytest.raises(UsageError, match="nothing trained"):
        _ = results.recommended
    with pytest.raises(UsageError, match="nothing trained with sgd"):
        results.best("sgd")
    assert "<img" in results._repr_html_()


def test_a_notebook_shows_the_answer_and_the_u_curve(folder: Path) -> None:
    results = load(folder)
    html = results._repr_html_()
    assert f"Use {results.recommended['optimizer']} at lr" in html
    for optimizer in results.summary["optimizer"]:
        assert f"<td>{optimizer}</td>" in html
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert base64.b64decode(data) == style.rendered(results.u_curve(), "png")
    assert "<script" not in html


def test_a_figure_shows_itself_and_leaves_pyplot_and_its_settings_alone(folder: Path) -> None:
    """A notebook asks for `_repr_png_`; without it a figure is seen only where pyplot was imported."""
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    results = load(folder)
    for name in ("u_curve", "loss_curves", "sensitivity", "time_to_target"):
        figure = getattr(results, name)()
        assert figure._repr_png_() == style.rendered(figure, "png")
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
