"""Made-up sweeps: frames and folders with the contract's columns, for tests of everything after the training.

The losses follow a crude model (exponential descent, noise that grows with the rate, blow-up beyond an optimizer's
largest stable rate), so the curves have the arms, the divergences and the seed spread of real ones.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lrsweep.analysis import analyse
from lrsweep.analysis.facts import SweepFacts
from lrsweep.analysis.summary import summary_rows
from lrsweep.results import run_tables, tables
from lrsweep.spec.load import read_resolved

STABLE = {"sgd": 0.6, "sgd(momentum=0.9)": 0.12, "rmsprop": 0.012, "adagrad": 0.3, "adadelta": 20.0, "adam": 0.02}
DEFAULTS = {"sgd": 1e-3, "adam": 1e-3, "rmsprop": 1e-2, "adagrad": 1e-2, "adadelta": 1.0, "nadam": 2e-3}
EPOCH_STEPS = 17


def summary_frame(facts: SweepFacts) -> pd.DataFrame:
    """summary.csv of these facts as a frame."""
    header, rows = summary_rows(facts)
    return pd.DataFrame(rows, columns=header)


def grid(low: float = 1e-6, high: float = 1.0, per_decade: int = 2) -> list[float]:
    """Log-spaced rates with 6 significant digits, both ends included."""
    points = round(np.log10(high / low) * per_decade) + 1
    return [float(f"{rate:.6g}") for rate in np.geomspace(low, high, points)]


def losses(stable: float, lr: float, seed: int, rows: int, shift: float = 0.0) -> np.ndarray:
    """Train and validation loss at rows 0..rows, shape (2, rows + 1); it may overflow."""
    random = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(repr((stable, lr)).encode()).digest()[:4])])
    x, k = lr / stable, np.arange(rows + 1)
    start = 2.3 + 0.05 * (seed % 5)
    if x > 1.3 + 0.6 * (seed % 3):
        with np.errstate(over="ignore"):
            train = start * np.exp(k * 2.5 * x)
        train[~np.isfinite(train)] = np.nan
        return np.stack([train, train * 1.1 + shift])
    floor = 0.05 + 0.9 * min(x, 2.0) ** 2
    train = floor + (start - floor) * np.exp(-k * 12.0 * x / rows)
    train[1:] += random.normal(0.0, 0.004 + 0.12 * floor * x, rows) + 0.01 * random.normal()
    train = np.maximum(train, 0.01)
    gap = 0.15 * (1.0 - np.exp(-k * 12.0 * x / rows))
    val = train + gap + np.where(k > 0, 0.02 * random.normal(size=rows + 1), 0.0)
    return np.stack([train, val]) + shift


def frames(
    optimizers: Sequence[str] = ("sgd", "sgd(momentum=0.9)", "rmsprop", "adagrad", "adam"),
    rates: Sequence[float] | None = None,
    seeds: int = 3,
    rows: int = 20,
    axes: Mapping[str, Sequence[Any]] | None = None,
    failed: Sequence[int] = (),
    shift: float = 0.0,
    stable: Mapping[str, float] = STABLE,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`runs.csv` and `curves.csv` of a made-up sweep; `failed`: runs by position; `shift` is added to all losses."""
    rates = grid() if rates is None else rates
    axes = dict(axes or {})
    run_rows: list[dict[str, Any]] = []
    curve_rows: list[dict[str, Any]] = []
    cells = list(itertools.product(*axes.values()))
    for number, (cell, label, lr, seed) in enumerate(itertools.product(cells, optimizers, rates, range(seeds))):
        run_id = hashlib.sha256(repr((cell, label, lr, seed)).encode()).hexdigest()[:16]
        head = {"run_id": run_id, "optimizer": label, "lr": lr, "seed": seed, **dict(zip(axes, cell, strict=True))}
        factor = float(np.prod([value for value in cell if isinstance(value, int | float)] or [1.0]))
        limit = stable.get(label, 0.05) * max(factor, 1e-12) ** 0.4 / (64**0.4 if axes else 1.0)
        y = losses(limit, lr, seed, rows, shift)
        bad = np.flatnonzero(~np.isfinite(y).all(axis=0))
        status = "failed" if number in failed else "diverged" if bad.size or y[0, -1] > 1e3 else "ok"
        last = int(bad[0]) if bad.size else rows
        y = y[:, : last + 1] if status != "failed" else y[:, :0]
        run_rows.append(_run(head, status, y, last))
        curve_rows.extend(_rows(head, y, shift))
    runs, curves = pd.DataFrame(run_rows), pd.DataFrame(curve_rows)
    return runs, curves


def accuracy(val_loss: float, shift: float) -> float:
    return float(np.exp(-(val_loss - shift))) if np.isfinite(val_loss) else float("nan")


def _rows(head: dict[str, Any], y: np.ndarray, shift: float) -> list[dict[str, Any]]:
    return [
        {
            **head,
            "step": k * EPOCH_STEPS,
            "epoch": float(k),
            "lr_now": head["lr"],
            "train_loss": y[0, k],
            "val_loss": y[1, k],
            "val_accuracy": accuracy(y[1, k], shift),
        }
        for k in range(y.shape[1])
    ]


def _run(head: dict[str, Any], status: str, y: np.ndarray, last: int) -> dict[str, Any]:
    done = status != "failed"
    nan = float("nan")
    finite = y[1, 1:][np.isfinite(y[1, 1:])]
    return {
        **head,
        "status": status,
        "diverged_step": last * EPOCH_STEPS if status == "diverged" else pd.NA,
        "diagnosis": status if status != "ok" else "converged",
        "steps": last * EPOCH_STEPS if done else 0,
        "epochs": float(last) if done else 0.0,
        "initial_train_loss": y[0, 0] if done else nan,
        "initial_val_loss": y[1, 0] if done else nan,
        "final_train_loss": y[0, -1] if done else nan,
        "final_val_loss": y[1, -1] if done else nan,
        "best_val_loss": finite.min() if finite.size else nan,
        "best_epoch": float(np.nanargmin(y[1, 1:]) + 1) if finite.size else nan,
        "final_val_accuracy": accuracy(y[1, -1], 0.0) if done else nan,
        "best_val_accuracy": accuracy(finite.min(), 0.0) if finite.size else nan,
        "objective": y[1, -1] if done else nan,
        "error": "" if done else "ValueError: <script>alert(1)</script> made up",
    }


def spec(
    optimizers: Sequence[str] = ("sgd", "sgd(momentum=0.9)", "rmsprop", "adagrad", "adam"),
    rates: Sequence[float] | None = None,
    seeds: int = 3,
    rows: int = 20,
    axes: Mapping[str, Sequence[Any]] | None = None,
    name: str = "made_up",
) -> dict[str, Any]:
    """The spec of the same sweep as a mapping. A label that is no built-in name becomes a kind of sgd."""
    return {
        "name": name,
        "task": {"name": "digits"},
        "model": {"name": "mlp", "hidden": [128, 128]},
        "lr": list(grid() if rates is None else rates),
        "optimizers": [_optimizer(label, number) for number, label in enumerate(optimizers)],
        "schedule": "constant",
        "seeds": list(range(seeds)),
        "train": {"epochs": rows, "batch_size": 64},
        "axes": {path: list(values) for path, values in (axes or {}).items()},
    }


def _optimizer(label: str, number: int) -> dict[str, Any]:
    if label == "sgd(momentum=0.9)":
        return {"name": "sgd", "momentum": 0.9, "label": label}
    known = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "nadam", "radam", "adamax", "asgd", "rprop")
    if label in known:
        return {"name": label, "label": label}
    return {"name": "sgd", "label": label, "weight_decay": 1e-3 * (number + 1)}


def folder(root: Path, **settings: Any) -> Path:
    """Write a made-up sweep as a published results folder (tables without a journal) and return it."""
    spec_keys = {"optimizers", "rates", "seeds", "rows", "axes", "name"}
    path = root / settings.get("name", "made_up")
    path.mkdir(parents=True, exist_ok=True)
    frame_settings = {key: value for key, value in settings.items() if key != "name"}
    runs, curves = frames(**frame_settings)
    runs.to_csv(path / "runs.csv", index=False, na_rep="nan")
    curves.to_csv(path / "curves.csv", index=False, na_rep="nan")
    mapping = spec(**{key: value for key, value in settings.items() if key in spec_keys})
    (path / "spec.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False), encoding="utf-8")
    facts = analyse(tables.read_runs(path), tables.read_curves(path), read_resolved(path / "spec.yaml"), DEFAULTS)
    run_tables.write_frame(path / "summary.csv", *summary_rows(facts))
    return path


def facts_of(runs: pd.DataFrame, curves: pd.DataFrame, optimizers: Sequence[str], **settings: Any) -> SweepFacts:
    """The facts of frames made here; `optimizers` and `settings` as of `spec`."""
    rates = sorted({float(lr) for lr in runs["lr"]})
    mapping = spec(optimizers, rates, seeds=runs["seed"].nunique(), **settings)
    return analyse(runs, curves, read_resolved(yaml.safe_dump(mapping)), DEFAULTS)


def facts_of_medians(
    rates: Sequence[float],
    medians: Mapping[str, Sequence[float]],
    *,
    start: float,
    mode: str = "min",
    spread: float = 0.0,
) -> SweepFacts:
    """The facts of a sweep of three seeds whose medians are given; an infinite one is a rate at which all diverged."""
    metric = "val_loss" if mode == "min" else "val_accuracy"
    rows = []
    for label, values in medians.items():
        for lr, median in zip(rates, values, strict=True):
            for seed in range(3):
                bad = not np.isfinite(median)
                objective = float("nan") if bad else median + (seed - 1) * spread
                rows.append(
                    {
                        "run_id": f"{label}-{lr!r}-{seed}",
                        "optimizer": label,
                        "lr": lr,
                        "seed": seed,
                        "status": "diverged" if bad else "ok",
                        "diverged_step": 1 if bad else pd.NA,
                        "diagnosis": "diverged" if bad else "converged",
                        "objective": objective,
                        f"final_{metric}": objective,
                        f"initial_{metric}": start,
                    }
                )
    heads = ["run_id", "optimizer", "lr", "seed", "status", "diverged_step", "diagnosis", "objective"]
    runs = pd.DataFrame(rows, columns=None if rows else heads)
    curves = pd.DataFrame(
        {
            "run_id": [row["run_id"] for row in rows for _ in range(2)],
            "step": [step for _ in rows for step in (0, 10)],
            metric: [value for row in rows for value in (start, row["objective"])],
        }
    )
    mapping = spec(list(medians) or ["sgd"], rates, seeds=3)
    mapping["objective"] = {"metric": metric, "at": "final", "mode": mode}
    return analyse(runs, curves, read_resolved(yaml.safe_dump(mapping)), DEFAULTS)
