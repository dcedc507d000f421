"""Every spec of the cookbook trains, shortened to a few steps, and says what it is for."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from lrsweep.spec.load import load_spec, read_resolved
from lrsweep.workers import worker
from tests.support import sweeps

CONFIGS = Path(__file__).parents[2] / "configs"
SPECS = sorted(CONFIGS.glob("*.yaml"))
COOKBOOK = (CONFIGS / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    worker.one_thread()


def shortened(path: Path) -> list[str]:
    """Overrides: two learning rates, one seed, one epoch or a few steps."""
    spec = load_spec(path)
    overrides = ["lr=[0.001, 0.01]", "seeds=1"]
    if "train.epochs" in spec.axes:
        return [*overrides, "axes={train.epochs: [1, 2]}"]
    return [*overrides, "train.steps=5" if spec.train.steps else "train.epochs=1"]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_trains(path: Path, tmp_path: Path) -> None:
    finished = sweeps.run(tmp_path, path, set=shortened(path))
    spec = read_resolved(finished.path / "spec.yaml")
    runs = pd.read_csv(finished.path / "runs.csv")
    assert len(runs) == 2 * len(spec.optimizers) * math.prod(len(values) for values in spec.axes.values())
    assert not set(runs["error"].dropna())
    assert "ok" in set(runs["status"])


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_opens_with_its_question(path: Path) -> None:
    comment = path.read_text(encoding="utf-8").split("\n\n")[0]
    lines = [line for line in comment.splitlines() if line.startswith("#")]
    assert any("Time: " in line for line in lines)
    assert any("?" in line for line in lines)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_cookbook_lists_every_spec(path: Path) -> None:
    assert f"]({path.name})" in COOKBOOK


def test_the_cookbook_links_to_files_that_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)", COOKBOOK):
        assert (CONFIGS / link).exists(), link
