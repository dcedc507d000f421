"""Optimizers of packages train as in plain torch: every class that runs with a learning rate alone."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from torch.optim import Optimizer

from tests.support import plain_loop, sweeps
from tests.training.kinds.test_kinds import HERE, TOLERANCE

STEPS, BATCH, SEEDS = 200, 16, 2
RATES = (1e-3, 1e-1)
LEAST = {"pytorch_optimizer": 100, "schedulefree": 3, "prodigyopt": 1, "lion_pytorch": 1}
"""Classes that have to be found in each package, so that none is left out in silence."""

TASK = f"{HERE}/kinds_common.py:smooth"


def _classes(package: ModuleType) -> dict[str, type[Optimizer]]:
    """The optimizers a package offers, by name, without torch's own; a class under two names once."""
    found = {value: name for name, value in vars(package).items() if isinstance(value, type)}
    own = {name: cls for cls, name in found.items() if issubclass(cls, Optimizer) and not _is_torchs(cls)}
    return dict(sorted(own.items()))


def _is_torchs(cls: type[Optimizer]) -> bool:
    return cls.__module__.partition(".")[0] == "torch"


def _plain(cls: type[Optimizer], lr: float, seed: int) -> list[plain_loop.Row] | None:
    """The rows of a run in plain torch; None if the class cannot be trained so, with what it needs besides a rate."""
    recipe = plain_loop.Recipe(
        task=TASK, optimizer=cls, task_args={}, optimizer_args={}, steps=STEPS, batch_size=BATCH, shuffle=True
    )
    try:
        return plain_loop.train(recipe, lr, seed)
    except Exception:  # noqa: BLE001 - whatever a package raises
        return None


def _finite(rows: list[plain_loop.Row]) -> bool:
    return all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", LEAST)
def test_the_optimizers_of_a_package(tmp_path: Path, package: str) -> None:
    classes = _classes(pytest.importorskip(package))
    wanted: dict[tuple[str, float, int], list[plain_loop.Row]] = {}
    for name, cls in classes.items():
        for lr in RATES:
            for seed in range(SEEDS):
                rows = _plain(cls, lr, seed)
                if rows is not None and _finite(rows):
                    wanted[name, lr, seed] = rows
    trained = {name for name, _, _ in wanted}
    assert len(trained) >= LEAST[package]
    spec: dict[str, Any] = {
        "name": "packages",
        "task": TASK,
        "lr": list(RATES),
        "optimizers": [{"name": f"{package}:{name}", "label": name} for name in sorted(trained)],
        "seeds": SEEDS,
        "train": {"steps": STEPS, "batch_size": BATCH, "dtype": "float64"},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finished = sweeps.run(tmp_path, spec, workers=2)
    curves = pd.read_csv(finished.path / "curves.csv")
    by_run = {key: rows.to_dict("records") for key, rows in curves.groupby(["optimizer", "lr", "seed"])}
    wrong = []
    for key, rows in wanted.items():
        mine = by_run.get(key, [])
        off = max(
            (
                abs(one[column] - right[column]) / max(abs(right[column]), 1e-300)
                for one, right in zip(mine, rows, strict=False)
                for column in ("train_loss", "val_loss")
            ),
            default=math.inf,
        )
        if len(mine) != len(rows) or not off <= TOLERANCE:
            wrong.append(f"{key}: {len(mine)} of {len(rows)} evaluations, relative difference {off:.1e}")
    assert not wrong, f"{len(wrong)} of {len(wanted)} runs\n" + "\n".join(wrong)
