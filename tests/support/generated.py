"""Results folders of as many runs as asked for, with nothing trained: the journal that such a sweep would have left.

The records are made by the functions that a sweep writes them with; only their numbers are made up, by a crude
model of loss curves (exponential descent, divergence far above an optimizer's largest stable rate).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lrsweep import plan as planning
from lrsweep.plan import Plan, Run
from lrsweep.run_result import RunResult
from lrsweep.spec.load import load_spec
from lrsweep.store import journal, plan_record
from lrsweep.store.journal import Group, Journal, Replay
from lrsweep.store.tally import Tally

STABLE = {"sgd": 0.6, "adam": 0.02, "rmsprop": 0.012, "adagrad": 0.3}
RATES = 25
SEEDS = 10
"""Of a sweep with axes."""
AXES: dict[str, list[Any]] = {
    "train.batch_size": [8, 16, 24, 32, 48, 64, 96, 128, 192, 256],
    "optimizers.weight_decay": [0.0, *(float(f"{10 ** (k / 2 - 6):.3g}") for k in range(9))],
    "task.std": [0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0],
}
TOGETHER = 250
"""Runs in a group."""
AT_ONCE = 5000
"""Records in a write: a sweep writes fewer, with an fsync for each."""
FAILED_ONE_IN = 5003
EPOCH_STEPS = 16
T = TypeVar("T")
COLUMNS = ("step", "epoch", "lr_now", "train_loss", "val_loss", "val_accuracy")


def spec(runs: int, *, axes: bool = True, rows: int = 4) -> dict[str, Any]:
    """Of a sweep of exactly so many runs: 4 optimizers, 25 rates, and 10 seeds at each place of up to three axes, or
    without `axes` as many seeds as it takes. Raises ValueError for a number that no such grid has."""
    seeds, left = divmod(runs, len(STABLE) * RATES)
    places, more = divmod(seeds, SEEDS) if axes else (1, 0)
    sizes = [len(AXES["train.batch_size"])] * (len(str(places)) - 1)
    if left or more or places < 1 or np.prod(sizes, dtype=int) != places or len(sizes) > len(AXES):
        step = "1,000, 10,000, 100,000 or 1,000,000" if axes else "a multiple of 100"
        raise ValueError(f"no grid has {runs} runs: choose {step}")
    return {
        "name": "generated",
        "task": {"name": "blobs", "n": 400},
        "model": {"name": "mlp", "hidden": [8]},
        "lr": {"min": 1e-5, "max": 10.0, "points": RATES},
        "optimizers": list(STABLE),
        "seeds": SEEDS if axes else seeds,
        "train": {"epochs": rows},
        "axes": dict(itertools.islice(AXES.items(), len(sizes))),
    }


def folder(root: Path, runs: int, *, axes: bool = True, rows: int = 4) -> Path:
    """Write the journal of a finished sweep below `root` and return the folder of the sweep; `rows` epochs a run."""
    loaded = load_spec(spec(runs, axes=axes, rows=rows))
    plan = planning.build(loaded, planning.fingerprints(loaded))
    path = root / loaded.name
    path.mkdir(parents=True)
    write(path, plan)
    return path


def write(path: Path, plan: Plan) -> None:
    """Begin a file of the journal in `path` and write all runs of the plan into it."""
    groups = [Group(engine="stacked", runs=tuple(run.run_id for run in some)) for some in _batches(plan.runs, TOGETHER)]
    of_run = {run: group.id for group in groups for run in group.runs}
    record = plan_record.plan_record(plan, path, None)
    writer = Journal(path)
    writer.append([record, record, *[journal.groups_record(groups)] * 2])
    writer.tally = Tally(path, plan.spec.name, plan.by_id, Replay())
    for some in _batches(results(plan), AT_ONCE):
        writer.append(journal.outcome_record(one, of_run[one.run_id]) for one in some)
    writer.close()


def results(plan: Plan) -> Iterator[RunResult]:
    """What each run of the plan came to, in the order of the plan."""
    epochs = plan.spec.train.epochs
    assert epochs is not None
    random = np.random.default_rng(0)
    for number, run in enumerate(plan.runs):
        yield _failed(run) if number % FAILED_ONE_IN == FAILED_ONE_IN - 1 else _result(run, epochs, random)


def _failed(run: Run) -> RunResult:
    text = "ValueError: made up\n\nTraceback (most recent call last): ..."
    return RunResult(run_id=run.run_id, status="failed", error=text)


def _result(run: Run, epochs: int, random: np.random.Generator) -> RunResult:
    """Rows in single precision, as most sweeps have them."""
    x, count = run.lr / STABLE[run.label], np.arange(epochs + 1)
    noise = random.normal(size=(2, epochs + 1)).astype(np.float32)
    start = 1.1 + 0.02 * (run.seed % 7)
    diverged = x > 4.0 + run.seed % 3
    floor = 0.05 + 0.9 * min(x, 1.0) ** 2
    train = floor + (start - floor) * np.exp(-count * 12.0 * min(x, 3.0) / epochs) + 0.01 * noise[0]
    val = train + 0.05 + 0.01 * noise[1]
    train[0], val[0] = start, start + 0.01
    if diverged:
        count = count[: 2 + run.seed % 2]
        train, val = train[: len(count)] * 3.0**count, val[: len(count)] * 3.0**count
        train[-1], val[-1] = np.nan, np.inf
    columns = (
        (EPOCH_STEPS * count).tolist(),
        count.astype(float).tolist(),
        [run.lr] * len(count),
        train.astype(np.float32).tolist(),
        val.astype(np.float32).tolist(),
        np.exp(-val).astype(np.float32).tolist(),
    )
    last = EPOCH_STEPS * int(count[-1])
    return RunResult(
        run_id=run.run_id,
        status="diverged" if diverged else "ok",
        diverged_step=last if diverged else None,
        steps=last,
        history=dict(zip(COLUMNS, columns, strict=True)),
        test={} if diverged else {"test_loss": columns[4][-1], "test_accuracy": columns[5][-1]},
        weights_hash=f"{run.seed:016x}",
        batches_hash=f"{run.seed + 1:016x}",
    )


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(itertools.islice(left, size)):
        yield some
