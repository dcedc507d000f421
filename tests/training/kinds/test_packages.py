"""Optimizers of packages train as in plain torch: every class that runs with a learning rate alone.

Some of them are chaotic at their rate: rounding of the initial weights alone grows to any size within a few steps. A
run that is not within the tolerance is compared with what such rounding does to the plain loop up to that evaluation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import accumulate
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
DRAWS, TIMES_ROUNDING = 3, 10
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


def _plain(cls: type[Optimizer], lr: float, seed: int, perturbation: int | None = None) -> list[plain_loop.Row] | None:
    """The rows of a run in plain torch; None if the class cannot be trained so, with what it needs besides a rate."""
    recipe = plain_loop.Recipe(
        task=TASK, optimizer=cls, task_args={}, optimizer_args={}, steps=STEPS, batch_size=BATCH, shuffle=True
    )
    try:
        return plain_loop.train(recipe, lr, seed, perturbation)
    except Exception:  # noqa: BLE001 - whatever a package raises
        return None


def _finite(rows: list[plain_loop.Row]) -> bool:
    return all(math.isfinite(value) for row in rows for value in row.values())


def _differences(rows: Sequence[Mapping[str, float]], wanted: list[plain_loop.Row]) -> list[float]:
    """Of each evaluation, relative to the wanted one: that of the loss that differs more. One that is NaN is inf."""
    found = []
    for one, right in zip(rows, wanted, strict=True):
        off = [abs(one[name] - right[name]) / max(abs(right[name]), 1e-300) for name in ("train_loss", "val_loss")]
        found.append(math.inf if any(map(math.isnan, off)) else max(off))
    return found


def _rounding(cls: type[Optimizer], lr: float, seed: int, wanted: list[plain_loop.Row]) -> list[float]:
    """The largest difference up to each evaluation that perturbed initial weights make: what is finite of it."""
    largest = [0.0] * len(wanted)
    for draw in range(DRAWS):
        rows = _plain(cls, lr, seed, draw)
        if rows is not None:
            finite = [off if math.isfinite(off) else 0.0 for off in _differences(rows, wanted)]
            largest = [max(pair) for pair in zip(largest, finite, strict=True)]
    return list(accumulate(largest, max))


def _wrong(cls: type[Optimizer], lr: float, seed: int, rows: list[Any], wanted: list[plain_loop.Row]) -> str | None:
    """What is wrong about a run's evaluations."""
    if len(rows) != len(wanted):
        return f"{len(rows)} of {len(wanted)} evaluations"
    differences = _differences(rows, wanted)
    if max(differences) <= TOLERANCE:
        return None
    for row, off, rounding in zip(wanted, differences, _rounding(cls, lr, seed, wanted), strict=True):
        if off > TOLERANCE + TIMES_ROUNDING * rounding:
            return f"step {row['step']}: relative difference {off:.1e}, that of rounding {rounding:.1e}"
    return None


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
    found = {key: _wrong(classes[key[0]], *key[1:], by_run.get(key, []), rows) for key, rows in wanted.items()}
    wrong = [f"{key}: {text}" for key, text in found.items() if text is not None]
    assert not wrong, f"{len(wrong)} of {len(wanted)} runs\n" + "\n".join(wrong)
