"""The examples of configs/own train as in plain torch (tests/support/plain_loop.py), and say what they show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from lrsweep.workers import worker
from tests.support import own_work, spec_runs, sweeps
from tests.support.own_work import EXAMPLES, FOLDER

TOGETHER, ALONE = 1e-8, 1e-12
SHORT = ("train.dtype=float64", "lr=[0.001, 0.01]")
QUICK = ("lstm", "vae", "contrastive", "physics", "diffusion", "layerwise", "entrants")
COOKBOOK = (FOLDER.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    worker.one_thread()


def check(folder: Path, name: str, overrides: Sequence[str]) -> None:
    """Every run of the shortened spec, in every row."""
    example = EXAMPLES[name]
    for package in example.needs:
        pytest.importorskip(package)
    finished = sweeps.run(folder, own_work.path(name), set=overrides)
    manifest = json.loads((finished.path / "manifest.json").read_text())
    assert set(manifest["engines"]) == {"single" if example.alone else "stacked"}, manifest["notes"]
    assert manifest["audits"]["failed"] == 0
    if example.alone:
        assert any(note.startswith(example.alone) for note in manifest["notes"]), manifest["notes"]
    assert set(pd.read_csv(finished.path / "runs.csv")["status"]) == {"ok"}
    runs = spec_runs.of_spec(own_work.path(name), overrides, differentiates=example.differentiates)
    off = spec_runs.difference(pd.read_csv(finished.path / "curves.csv"), runs)
    assert off <= (ALONE if example.alone else TOGETHER)


@pytest.mark.process
@pytest.mark.parametrize("name", QUICK)
def test_a_few_steps_are_those_of_plain_torch(name: str, tmp_path: Path) -> None:
    check(tmp_path, name, [*SHORT, "train.epochs=null", "train.steps=5", "seeds=1"])


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_epoch_is_that_of_plain_torch(name: str, tmp_path: Path) -> None:
    check(tmp_path, name, [*SHORT, "train.epochs=1", "seeds=2"])


def test_every_spec_is_an_example() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_says_what_it_shows(name: str) -> None:
    comment = own_work.path(name).read_text(encoding="utf-8").split("task:")[0]
    assert "?" in comment
    assert "Look at u_curve.png: " in comment
    assert "Time: " in comment
    assert f"](own/{name}.yaml)" in COOKBOOK
