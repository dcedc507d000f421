"""What a type checker says of a user's program: nothing, and it knows what comes back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

import lrsweep

pytestmark = pytest.mark.slow

PROGRAM = """
from pathlib import Path
from typing import assert_type

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lrsweep


def make(n: int = 100) -> lrsweep.Task:
    x = torch.randn(n, 4)
    loss = torch.nn.functional.mse_loss
    return lrsweep.Task(train=(x, x), val=(x, x), model=lambda: torch.nn.Linear(4, 4), loss=loss)


def told(issue: lrsweep.SpecIssue) -> str:
    return f"{issue.file}:{issue.line}: {issue.path}: {issue.message}"


def sweep(folder: Path) -> lrsweep.Results | None:
    spec = lrsweep.load_spec({"task": make, "optimizers": ["adam"], "train": {"epochs": 1}}, overrides=["seeds=2"])
    assert_type(spec, lrsweep.Spec)
    estimate = lrsweep.dry_run(spec, workers=1)
    assert_type(estimate, lrsweep.CostEstimate)
    assert_type(lrsweep.run(spec, dry_run=True), lrsweep.CostEstimate)
    try:
        return lrsweep.run(spec, results=folder, workers=2, progress="plain", set=["seeds=3"], fresh=True)
    except lrsweep.SpecError as error:
        print(*map(told, error.issues))
    except lrsweep.WrongInSpec as error:
        print(error.found)
    except lrsweep.WrongOption as error:
        assert_type(error.option, str)
    except lrsweep.UsageError as error:
        print(error)
    except (lrsweep.StorageError, lrsweep.BusyError, lrsweep.StoppedError) as error:
        raise SystemExit(error.exit_code) from error
    except lrsweep.LrsweepError:
        pass
    return None


def look(results: lrsweep.Results, ax: Axes) -> None:
    assert_type(results.u_curve(), Figure)
    assert_type(results.u_curve(ax, metric="val_accuracy", at="best", optimizer="adam"), Axes)
    assert_type(results.loss_curves(), Figure)
    assert_type(results.loss_curves(ax=ax), Axes)
    assert_type(results.time_to_target(ax=ax, optimizer="adam"), Axes)
    assert_type(results.sensitivity(), Figure)
    assert_type(results.figure("u_curve_aligned"), Figure)
    print(results.recommended["recommended_lr"], results.best("adam")["best_lr"])
    print(results.runs.groupby("optimizer")["final_val_loss"].median(), results.curves.shape, results.summary.columns)
    verdict: lrsweep.Verdict = lrsweep.check(results, max_sensitivity=0.5, best_lr_within=(1e-3, 1))
    comparison: lrsweep.Comparison = lrsweep.compare(results, Path("results/other"))
    ramps: lrsweep.RangeTest = lrsweep.lr_finder("sweep.yaml", steps=50)
    print(verdict.ok, comparison.text(), [ramp.suggested["steepest"] for ramp in ramps.results])
    assert_type(lrsweep.load("results/other"), lrsweep.Results)
    assert_type(lrsweep.__version__, str)
"""


def checked(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    program = folder / "program.py"
    program.write_text(text)
    monkeypatch.setenv("MYPYPATH", str(Path(lrsweep.__file__).parents[1]))
    said, wrong, _ = api.run(["--strict", "--config-file=", "--cache-dir", str(folder.parent / "mypy"), str(program)])
    assert wrong == ""
    return "\n".join(line for line in said.splitlines() if line.startswith(str(program)))


def test_a_program_that_uses_everything_public_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(re.findall(r"lrsweep\.(\w+)", PROGRAM)) - {"__version__"} == set(lrsweep._HOMES)
    assert checked(PROGRAM, tmp_path, monkeypatch) == ""


def test_a_wrong_option_is_found_without_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = checked(
        "import lrsweep\nlrsweep.run('a.yaml', worker=2)\nlrsweep.dry_run('a.yaml', fresh='yes')\n",
        tmp_path,
        monkeypatch,
    )
    assert re.search(r"program\.py:2: error: .*\"run\"", said)
    assert re.search(r"program\.py:3: error: Argument \"fresh\" to \"dry_run\" has incompatible type \"str\"", said)
