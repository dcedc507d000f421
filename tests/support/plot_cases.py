"""Sweeps that are hard to draw, made up without training: one rate, huge losses, nothing trained, two axes, ...

`python -m tests.support.plot_cases FOLDER` draws every plot of every case into a folder, to be looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lrsweep import plot
from lrsweep.analysis import analyse
from lrsweep.plot import style
from lrsweep.spec.load import read_resolved
from tests.support import tables as fabricate

NAMES = ("relu", "leaky_relu with a small slope", "gelu", "silu", "tanh", "sigmoid", "softplus", "elu")
GRID = fabricate.grid(1e-4, 1.0, 2)
TWO = ("sgd", "adam")
TWELVE = ("sgd", "sgd(momentum=0.9)", "rmsprop", "adagrad", "adam", "adadelta", "nadam", "radam", "adamax", *"xyz")
LONG = (
    "sgd with momentum, Nesterov and decoupled weight decay 0.0001",
    "sgd with momentum, Nesterov and decoupled weight decay 0.0005",
    "adam(betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, ams)",
)


def sweep(
    optimizers: tuple[str, ...] = TWO,
    *,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
    metric: str = "val_loss",
    frames: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    schedule: Any = "constant",
    **settings: Any,
) -> plot.SweepFigures:
    """The figures of a made-up sweep; `change` maps all its losses, `settings` are those of `tables.frames`."""
    settings = {"rates": GRID, "rows": 12, **settings}
    runs, curves = frames or fabricate.frames(optimizers, **settings)
    if change is not None:
        runs, curves = (_changed(frame, change) for frame in (runs, curves))
    spec_keys = {key: settings[key] for key in ("rates", "seeds", "rows", "axes") if key in settings}
    if metric != "val_loss":
        runs = runs.assign(objective=runs[f"final_{metric}"])
    base = fabricate.spec(optimizers, **spec_keys)
    base["train"]["dtype"] = "float64"  # in float32 an offset of 1e6 leaves nothing but rounding
    mapping = {**base, "schedule": schedule, "objective": {"metric": metric}}
    spec = read_resolved(yaml.safe_dump(mapping))
    facts = analyse(runs, curves, spec, fabricate.DEFAULTS, metric=metric)
    return plot.sweep_from(facts, spec, curves)


def _changed(frame: pd.DataFrame, change: Callable[[np.ndarray], np.ndarray]) -> pd.DataFrame:
    """The frame with `change` applied to its losses."""
    losses = [name for name in frame if name == "objective" or name.endswith("_loss")]
    with np.errstate(over="ignore"):
        return frame.assign(**{name: change(frame[name].to_numpy(dtype=float)) for name in losses})


def nothing_trained() -> plot.SweepFigures:
    """Rates so small that every run ends a little above its start."""
    rates = fabricate.grid(1e-12, 1e-8, 1)
    runs, curves = fabricate.frames(TWO, rates=rates, rows=12)
    start = dict(zip(runs["run_id"], runs["initial_val_loss"], strict=True))
    for name in ("train_loss", "val_loss"):
        risen = curves["run_id"].map(start) * (1 + 1e-4 * curves["epoch"] / 12)
        curves = curves.assign(**{name: risen})
    end = runs["initial_val_loss"] * (1 + 1e-4)
    runs = runs.assign(final_val_loss=end, final_train_loss=end, best_val_loss=end, objective=end)
    return sweep(TWO, frames=(runs, curves), rates=rates)


def strings(rates: list[float] = GRID) -> plot.SweepFigures:
    """An axis of texts, each with another best rate."""
    values = {"relu": 0.6, "tanh": 0.2, "gelu": 0.05}
    axis, stable = "model.activation", {"sgd": 4.0, "adam": 0.4}
    parts = [
        fabricate.frames(TWO, rates, rows=12, axes={axis: [name]}, stable={k: v * scale for k, v in stable.items()})
        for name, scale in values.items()
    ]
    runs, curves = (pd.concat(some, ignore_index=True) for some in zip(*parts, strict=True))
    return sweep(TWO, frames=(runs, curves), rates=rates, axes={axis: list(values)})


def one_rate(axis: str, values: list[Any], **settings: Any) -> plot.SweepFigures:
    """A study of another number than the rate."""
    return sweep(**{"rates": [0.01], "axes": {axis: values}, "seeds": 5, **settings})


def plateau() -> plot.SweepFigures:
    """The patience of a plateau schedule: the rate in use falls by 10 where the schedule cuts it."""
    axes = {"schedule.patience": [1, 2, 5, 10]}
    runs, curves = fabricate.frames(TWO, rates=[0.01], rows=12, axes=axes, stable={"sgd": 0.3, "adam": 0.05})
    cuts = curves["epoch"] // (curves["schedule.patience"] + 1)
    curves = curves.assign(lr_now=curves["lr_now"] * 0.1 ** cuts.clip(upper=4))
    schedule = {"name": "plateau", "factor": 0.1, "patience": 1}
    return sweep(TWO, frames=(runs, curves), rates=[0.01], axes=axes, schedule=schedule)


def close(metric: str = "val_loss") -> plot.SweepFigures:
    """All values of the axis do about as well, far from the untrained model."""
    axes = {"optimizers.momentum": [0, 0.5, 0.9]}
    runs, curves = fabricate.frames(("sgd",), rates=[0.001], rows=12, axes=axes, seeds=5)
    ends = 0.4 + 0.01 * runs["optimizers.momentum"] + 0.005 * runs["seed"]
    runs = runs.assign(final_val_loss=ends, objective=ends, final_val_accuracy=1 - ends, status="ok")
    return sweep(("sgd",), frames=(runs, curves), rates=[0.001], axes=axes, seeds=5, metric=metric)


CASES: dict[str, Callable[[], plot.SweepFigures]] = {
    "one_rate": lambda: sweep(rates=[0.1]),
    "one_seed": lambda: sweep(seeds=1),
    "seeds_20": lambda: sweep(seeds=20),
    "optimizers_12": lambda: sweep(TWELVE),
    "rates_60": lambda: sweep(rates=[float(f"{rate:.6g}") for rate in np.geomspace(1e-6, 1, 60)]),
    "long_labels": lambda: sweep(LONG),
    "accuracy": lambda: sweep(metric="val_accuracy"),
    "losses_1e9": lambda: sweep(change=lambda loss: loss * 1e9),
    "losses_1e-9": lambda: sweep(change=lambda loss: loss * 1e-9),
    "negative": lambda: sweep(change=lambda loss: loss - 50),
    "offset_1e6": lambda: sweep(change=lambda loss: loss + 1e6),
    "all_diverged": lambda: sweep(rates=[100.0, 1000.0, 1e4]),
    "nothing_trained": nothing_trained,
    "one_axis": lambda: sweep(axes={"train.batch_size": [16, 64, 256]}),
    "two_axes": lambda: sweep(axes={"train.batch_size": [16, 64, 256], "model.dropout": [0.1, 0.2]}),
    "strings": strings,
    "momentum": lambda: one_rate("optimizers.momentum", [0.3, 0.5, 0.9, 0.99], optimizers=("sgd",)),
    "batch_size": lambda: one_rate("train.batch_size", [8, 32, 128, 512]),
    "patience": plateau,
    "activations": lambda: strings([0.1]),
    "close": close,
    "eight_names": lambda: one_rate("model.activation", list(NAMES), seeds=8, optimizers=("sgd",)),
}
"""By name of the case. The last six have one rate: the axis is what they study."""


def draw(folder: Path, names: list[str]) -> None:
    """Every plot of these cases as PNG files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or CASES:
        for picture in plot.pictures(CASES[name]()):
            (folder / f"{name}.{picture.name}.png").write_bytes(style.rendered(picture.figure, "png"))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), sys.argv[2:])
