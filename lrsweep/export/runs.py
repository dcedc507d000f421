"""The runs of a sweep as experiment trackers see them: parameters, series of metrics, outcomes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from lrsweep.results.results import Results

NO_METRICS = ("run_id", "optimizer", "lr", "seed", "step")
"""Columns of curves.csv that are no series; axes aside."""
TEXTS = ("status", "diagnosis", "error")


@dataclass(frozen=True, kw_only=True)
class ExportedRun:
    """`name` says what it is and can name a folder. `params`: optimizer, lr, seed and the axes. `series`: metric ->
    (step, value) per evaluation, row 0 first, values as in curves.csv. `outcomes`: numbers of runs.csv that are there.
    `texts`: status, diagnosis and error."""

    run_id: str
    name: str
    params: dict[str, Any]
    series: dict[str, list[tuple[int, float]]]
    outcomes: dict[str, float]
    texts: dict[str, str]


def runs_of(sweep: Results) -> Iterator[ExportedRun]:
    """The runs in the order of runs.csv. A value that a table leaves empty is left out, nan and inf are not."""
    axes = list(sweep.spec.axes)
    metrics = [name for name in sweep.curves.columns if name not in (*NO_METRICS, *axes)]
    evaluations = dict(iter(sweep.curves.groupby("run_id", sort=False)))
    for row in sweep.runs.to_dict("records"):
        params = {name: row[name] for name in ("optimizer", "lr", "seed", *axes)}
        rows = evaluations.get(row["run_id"])
        diverged = row["status"] == "diverged"
        series = {} if rows is None else {name: _points(rows["step"], rows[name], diverged) for name in metrics}
        numbers = [name for name in row if name not in (*params, *TEXTS, "run_id")]
        yield ExportedRun(
            run_id=row["run_id"],
            name=_name(row["run_id"], params),
            params=params,
            series=series,
            outcomes={str(name): float(row[name]) for name in numbers if not _empty(row, str(name))},
            texts={name: str(row[name]) for name in TEXTS if isinstance(row[name], str) and row[name]},
        )


def _points(steps: pd.Series[int], values: pd.Series[float], diverged: bool) -> list[tuple[int, float]]:
    """nan is what a run that diverged came to; in other runs it stands for an empty cell."""
    pairs = zip(steps.tolist(), values.tolist(), strict=True)
    return [(int(step), float(value)) for step, value in pairs if diverged or not math.isnan(value)]


def _empty(row: dict[Any, Any], name: str) -> bool:
    """nan as found is a number of a run that diverged; elsewhere it stands for an empty cell."""
    value = row[name]
    found = row["status"] == "diverged" and (name.startswith("final_") or name == "objective")
    return isinstance(value, float) and math.isnan(value) and not found


def _name(run_id: str, params: dict[str, Any]) -> str:
    """`adam lr=0.001 seed=0 batch_size=16 9b2426032d11`, without what a path cannot hold."""
    parts = [
        str(params["optimizer"]),
        *(f"{key.rpartition('.')[2]}={value}" for key, value in list(params.items())[1:]),
    ]
    plain = re.sub(r"[^A-Za-z0-9._=,()+-]+", "_", " ".join(parts).replace(" ", "\0")).replace("\0", " ")
    return f"{plain[:150].strip('. ')} {run_id[:12]}"
