"""Sweeps with a known answer: tables made from formulas, in the columns that lrsweep writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from lrsweep.analysis.facts import Budget, OptimizerFacts, SweepFacts
from lrsweep.wording import advice
from lrsweep.wording.verdict import verdict

HALF_DECADES = tuple(float(f"{10 ** (k / 2 - 6):.6g}") for k in range(13))
STEPS = tuple(range(0, 210, 10))


def named(name: str, **args: Any) -> SimpleNamespace:
    return SimpleNamespace(name=name, args=args)


def spec(
    *labels: str,
    metric: str = "val_loss",
    at: str = "final",
    mode: str = "min",
    axes: dict[str, list[Any]] | None = None,
    schedule: str = "constant",
    rates: Sequence[float] = (),
) -> Any:
    """What the analysis reads of a spec; `rates` are those that it asks for, () for all that there are."""
    return SimpleNamespace(
        name="planted",
        objective=SimpleNamespace(metric=metric, at=at, mode=mode),
        optimizers=[
            SimpleNamespace(label=label, name=label.partition("(")[0], args={}, schedule=None, lr=None)
            for label in labels
        ],
        schedule=named(schedule),
        lr=SimpleNamespace(rates=rates),
        axes=axes or {},
        train=SimpleNamespace(epochs=20, steps=None, dtype="float64"),
    )


def run(
    label: str, lr: float, seed: int, final: float, *, start: float = 2.0, status: str = "ok", step: float = math.nan,
    **axes: Any,
) -> dict[str, Any]:  # fmt: skip
    """A row of runs.csv that went from `start` to `final`."""
    return {
        "run_id": f"{label}|{lr!r}|{seed}|{sorted(axes.items())}",
        "optimizer": label,
        "lr": lr,
        "seed": seed,
        **axes,
        "status": status,
        "diverged_step": step,
        "diagnosis": "diverged" if status == "diverged" else "converged",
        "steps": STEPS[-1],
        "epochs": 20.0,
        "initial_train_loss": start,
        "initial_val_loss": start,
        "final_train_loss": final,
        "final_val_loss": final,
        "objective": final,
        "error": "",
    }


def table(
    label: str, lrs: Sequence[float], values: Any, starts: Sequence[float] = (2.0,), **axes: Any
) -> list[dict[str, Any]]:
    """Runs with the final values (rates, seeds); nan and inf are diverged runs, None is a failed one."""
    out = []
    for lr, row in zip(lrs, values, strict=True):
        for seed, value in enumerate(row):
            start = starts[seed % len(starts)]
            if value is None:
                out.append(run(label, lr, seed, math.nan, start=start, status="failed", **axes))
            else:
                ok = math.isfinite(value)
                state = "ok" if ok else "diverged"
                out.append(run(label, lr, seed, value, start=start, status=state, step=math.nan if ok else 5.0, **axes))
    return out


def frame(*tables: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in tables for row in rows])


def curves(runs: pd.DataFrame, shape: Callable[[float, np.ndarray], np.ndarray]) -> pd.DataFrame:
    """Rows of curves.csv: `shape(lr, share of the budget)` goes from 0 to 1 on the way from start to final value."""
    parts = []
    share = np.array(STEPS) / STEPS[-1]
    for row in runs[runs["status"] != "failed"].to_dict("records"):
        values = row["initial_val_loss"] + (row["objective"] - row["initial_val_loss"]) * shape(row["lr"], share)
        values[0] = row["initial_val_loss"]
        parts.append(pd.DataFrame({"run_id": row["run_id"], "step": STEPS, "val_loss": values, "train_loss": values}))
    return pd.concat(parts, ignore_index=True)


def valley(lrs: Sequence[float], best: float, *, floor: float = 0.5, depth: float = 0.4) -> np.ndarray:
    """A parabola in log lr around `best`, capped at the untrained 2.0."""
    return np.minimum(floor + depth * (np.log10(np.array(lrs)) - math.log10(best)) ** 2, 2.0)


def said(row: OptimizerFacts) -> str:
    """What one row of a planted sweep says."""
    return advice.sentence(row, Budget(amount=20, unit="epochs"))


def opening(facts: SweepFacts) -> str:
    """What the report and the terminal say first."""
    return " ".join(verdict(facts))
