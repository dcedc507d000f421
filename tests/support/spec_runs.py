"""The runs of a spec as recipes of the plain loop, and how far the tables of a sweep are from what it comes to."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lrsweep import plan
from lrsweep.optimizers import OPTIMIZERS
from lrsweep.plan import Run
from lrsweep.spec.load import load_spec
from tests.support import plain_loop


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a spec."""

    run_id: str
    recipe: plain_loop.Recipe
    lr: float
    seed: int

    def rows(self) -> list[plain_loop.Row]:
        return plain_loop.train(self.recipe, self.lr, self.seed)


def of_spec(
    spec: Path | dict[str, Any], overrides: Sequence[str] = (), *, differentiates: bool = False
) -> list[Planned]:
    """Specs of a task of the user's own with the model of that task, at constant rates, a row per epoch.

    Optimizers are torch's own, or of an installed package, or of a file. `overrides`: as `--set` takes them.
    """
    loaded = load_spec(spec, overrides=overrides)
    runs = plan.build(loaded, plan.fingerprints(loaded)).runs
    return [Planned(run_id=run.run_id, recipe=_recipe(run, differentiates), lr=run.lr, seed=run.seed) for run in runs]


def _recipe(run: Run, differentiates: bool) -> plain_loop.Recipe:
    assert run.workload_spec.model is None
    assert run.setting.schedule["name"] == "constant"
    task, train = dict(run.workload_spec.task), run.workload_spec.train
    return plain_loop.Recipe(
        task=task.pop("name"),
        task_args=task,
        optimizer=_optimizer(run.setting.name),
        optimizer_args=run.setting.args,
        steps=train["steps"] or 0,
        epochs=train["epochs"] or 0,
        batch_size=train["batch_size"],
        eval_batch_size=train["eval_batch_size"],
        shuffle=train["shuffle"],
        clip_norm=train["clip_norm"],
        dtype=getattr(torch, train["dtype"]),
        differentiates=differentiates,
    )


def _optimizer(name: str) -> str | type[torch.optim.Optimizer]:
    place, _, attribute = name.rpartition(":")
    if not place:
        return OPTIMIZERS[name]
    if place.endswith(".py"):
        return name
    found: type[torch.optim.Optimizer] = getattr(importlib.import_module(place), attribute)
    return found


def difference(curves: pd.DataFrame, runs: Iterable[Planned]) -> float:
    """The largest relative difference of a loss or metric in the rows of these runs; inf where rows are missing."""
    by_run = {key: rows.to_dict("records") for key, rows in curves.groupby("run_id")}
    return max(_off(by_run.get(run.run_id, []), run.rows()) for run in runs)


def _off(rows: Sequence[dict[Any, Any]], wanted: Sequence[plain_loop.Row]) -> float:
    if [row["step"] for row in rows] != [row["step"] for row in wanted]:
        return math.inf
    pairs = [(row[name], value) for row, right in zip(rows, wanted, strict=True) for name, value in right.items()]
    return max(0.0 if mine == value else abs(mine - value) / max(abs(value), 1e-12) for mine, value in pairs)
