"""The sweeps that are timed: as specs for lrsweep, and as the same runs for the plain loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FIVE: list[Any] = ["sgd", {"name": "sgd", "momentum": 0.9}, "adam", "rmsprop", "adagrad"]
RATES = {"min": 1e-6, "max": 1, "per_decade": 2}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`least` and `aim` are the ratios wanted over the plain loop in one process, and in one process per core."""

    spec: dict[str, Any]
    plain: dict[str, Any]
    least: tuple[float, float]
    aim: tuple[float, float]


def sweep(task: Any, model: Any, optimizers: list[Any], lr: Any, seeds: int, **train: Any) -> dict[str, Any]:
    spec = {"task": task, "optimizers": optimizers, "lr": lr, "seeds": seeds, "train": train}
    return spec if model is None else spec | {"model": model}


LION = {"name": f"{Path(__file__).with_name('lion.py')}:Lion"}  # a class of the user's: one object per run
WIDE = {"name": "blobs", "n": 6000, "features": 784, "centers": 10}
WORKLOADS = {
    "a": Workload(
        spec=sweep("blobs", {"name": "mlp", "hidden": [50]}, FIVE, RATES, 3, epochs=100, batch_size=32),
        plain={"model": "mlp", "sizes": [2, 50, 3]},
        least=(18, 9),
        aim=(25, 12),
    ),
    "b": Workload(
        spec=sweep("digits", {"name": "mlp", "hidden": [128, 128]}, FIVE, RATES, 3, epochs=20, batch_size=64),
        plain={"model": "mlp", "sizes": [64, 128, 128, 10]},
        least=(4, 2),
        aim=(6, 3),
    ),
    "c": Workload(
        spec=sweep("digits", {"name": "cnn", "channels": [16, 32]}, FIVE, RATES, 3, epochs=5, batch_size=64),
        plain={"model": "cnn"},
        least=(2.2, 1.2),
        aim=(4, 2),
    ),
    "d": Workload(
        spec=sweep("char_lm", {"name": "transformer"}, FIVE, RATES, 1, steps=200, batch_size=16),
        plain={"model": "language"},
        least=(1.9, 0.97),
        aim=(3, 1.5),
    ),
    "e": Workload(
        spec=sweep(WIDE, {"name": "mlp", "hidden": [512, 512]}, ["adam"], [10**-k for k in range(1, 9)], 1,
                   steps=2000, batch_size=128),
        plain={"model": "mlp", "sizes": [784, 512, 512, 10]},
        least=(1.3, 0.97),
        aim=(1.6, 1.1),
    ),
    "own": Workload(
        spec=sweep("digits", {"name": "mlp", "hidden": [128, 128]}, [LION], {"min": 1e-5, "max": 1e-1, "per_decade": 3},
                   5, epochs=60, batch_size=64),
        plain={"model": "mlp", "sizes": [64, 128, 128, 10]},
        least=(2, 1.5),
        aim=(3, 1.8),
    ),
}  # fmt: skip


def plain_spec(workload: Workload, folder: Path) -> dict[str, Any]:
    """What the plain loop reads: its runs, and a file with the same data that the sweep trains on."""
    from lrsweep import optimizers, plan
    from lrsweep.spec.load import load_spec
    from lrsweep.training import grouping
    from lrsweep.training import workload as problem

    spec = load_spec(workload.spec | {"name": "plain"})
    runs = plan.build(spec, plan.fingerprints(spec)).runs
    prepared = problem.build(runs[0].workload_spec)
    (x, y), (xv, yv) = (prepared.splits[name].tensors for name in ("train", "val"))
    torch.save({"x": x, "y": y, "xv": xv, "yv": yv}, folder / "data.pt")
    more = {"vocab": int(y.max()) + 1, "length": x.shape[-1]} if workload.plain["model"] == "language" else {}
    return {
        **workload.plain,
        **more,
        "data": str(folder / "data.pt"),
        "steps": prepared.total_steps,
        "batch_size": prepared.batch_size,
        "flops": grouping.measure(prepared, 0).flops,
        "runs": [
            {
                "id": run.run_id,
                "optimizer": "Lion" if ":" in run.setting.name else optimizers.OPTIMIZERS[run.setting.name].__name__,
                "lr": run.lr,
                "seed": run.seed,
                "args": {key: value for key, value in run.setting.args.items() if key in ("momentum",)},
            }
            for run in runs
        ],
    }
