"""From the tables to arrays: a cell holds all runs of one optimizer at one set of axis values."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lrsweep.analysis.facts import Budget, RunPoint, full_title
from lrsweep.analysis.stats import Bools, Floats, Ints, medians
from lrsweep.objective import Mode, cost, default_mode, objective_of

if TYPE_CHECKING:
    import pandas as pd

Frames: TypeAlias = "pd.DataFrame | Iterable[pd.DataFrame] | None"
PLATEAU_METRIC = "train_loss"
"""What a plateau schedule watches by default."""
FLOAT32_EPS, FLOAT64_EPS = 2.0**-23, 2.0**-52
"""Losses under bfloat16 are computed in float32: autocast keeps loss functions there."""
INITIAL_COLUMNS = {"train_loss": "initial_train_loss", "val_loss": "initial_val_loss"}


@dataclass(frozen=True, kw_only=True, slots=True)
class AnalysisConfig:
    """What the analysis has to know of a spec. `names`, `from_rows`, `default_lrs`, `decay` and `grids` are keyed by
    label; `grids` holds the lowest and highest rate that the spec asks for, without those that --refine added.

    `axes` maps every axis to the texts of its values. `from_rows` says of an optimizer that earlier rows of its runs
    are what shorter runs would have given. `decay` holds the weight decay of those whose decay is coupled to the rate,
    `momentum` that of SGD without dampening, `watched` the metric of those with a plateau schedule. `dtype` is that of
    the training where no axis changes it.
    """

    name: str
    metric: str
    at: str
    mode: Mode
    axes: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...]
    names: Mapping[str, str]
    from_rows: Mapping[str, bool]
    default_lrs: Mapping[str, float]
    decay: Mapping[str, float]
    momentum: Mapping[str, float]
    watched: Mapping[str, str]
    budget: Budget | None
    grids: Mapping[str, tuple[float, float]]
    dtype: str

    def eps_of(self, axes: Mapping[str, str]) -> float:
        """The rounding of a loss at these axis values."""
        return FLOAT64_EPS if axes.get("train.dtype", self.dtype) == "float64" else FLOAT32_EPS

    def momentum_of(self, label: str, axes: Mapping[str, str]) -> float:
        """SGD's momentum at these axis values; nan for another optimizer."""
        if label not in self.momentum or "optimizers.dampening" in axes:
            return math.nan
        return float(axes.get("optimizers.momentum", self.momentum[label]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """R rates (rising) and S seeds. `cost` (R, S): nan without a result, +inf where diverged or not finite.

    `diverged` (R, S) marks the status. `initial` (S,) is the cost of row 0 per seed, nan where unknown. `seeds` are
    those with any result. `runs` holds every run, failed ones too; `points` (R, S) indexes it, -1 where there is none.
    `test` (R, S) is the metric on the test split, in its own sign, nan where there is none. `eps`: rounding of a loss.
    """

    optimizer: str
    name: str
    axes: dict[str, str]
    lrs: Floats
    seeds: tuple[int, ...]
    cost: Floats
    diverged: Bools
    initial: Floats
    test: Floats
    runs: tuple[RunPoint, ...]
    points: Ints
    eps: float

    @property
    def title(self) -> str:
        return full_title(self.optimizer, self.axes)

    @property
    def start(self) -> float:
        """l0: median over seeds of the cost of the untrained model; nan if it is not known or not finite."""
        value = float(medians(self.initial))
        return value if math.isfinite(value) else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """The objective's metric along one run: `steps` and raw `values`, one entry per row."""

    steps: Ints
    values: Floats


def config_of(
    spec: Any, default_lrs: Mapping[str, float], metric: str | None = None, at: str | None = None
) -> AnalysisConfig:
    """Read a `Spec` (its attributes only). `default_lrs` goes by label, or by optimizer name.

    `metric` and `at` replace the spec's objective; its mode then follows the metric's name.
    """
    names = {entry.label: entry.name for entry in spec.optimizers}
    chosen = metric or spec.objective.metric
    return AnalysisConfig(
        name=spec.name,
        metric=chosen,
        at=at or spec.objective.at,
        mode=spec.objective.mode if chosen == spec.objective.metric else default_mode(chosen),
        axes={axis: tuple(axis_text(value) for value in values) for axis, values in spec.axes.items()},
        labels=tuple(names),
        names=names,
        from_rows={entry.label: _from_rows(entry.schedule, spec) for entry in spec.optimizers},
        default_lrs={label: default_lrs.get(label, default_lrs.get(names[label], math.nan)) for label in names},
        decay={entry.label: float(value) for entry in spec.optimizers if (value := entry.args.get("weight_decay"))},
        momentum={
            entry.label: entry.args.get("momentum", 0.0)
            for entry in spec.optimizers
            if entry.name == "sgd" and not entry.args.get("dampening")
        },
        watched={entry.label: metric for entry in spec.optimizers if (metric := _watched(entry.schedule, spec))},
        budget=_budget(spec.train),
        grids={entry.label: (min(rates), max(rates)) for entry in spec.optimizers if (rates := _grid(entry, spec))},
        dtype=spec.train.dtype,
    )


def _grid(entry: Any, spec: Any) -> Sequence[float]:
    """The rates that the spec asks for of an optimizer, without those that --refine added."""
    return tuple((entry.lr or spec.lr).rates)


def _watched(own: Any, spec: Any) -> str:
    """The metric of a plateau schedule; "" for another, or where an axis changes it."""
    schedule = own or spec.schedule
    along = own is None and {"schedule", "schedule.name", "schedule.metric"} & set(spec.axes)
    return "" if along or schedule.name != "plateau" else schedule.args.get("metric", PLATEAU_METRIC)


def _from_rows(own: Any, spec: Any) -> bool:
    """A constant rate (after a warmup of so many updates) does not know how long the run will be."""
    if own is None and any(axis.partition(".")[0] == "schedule" for axis in spec.axes):
        return False
    schedule = own or spec.schedule
    return schedule.name == "constant" and not isinstance(schedule.args.get("warmup", 0), float)


def _budget(train: Any) -> Budget | None:
    if train.epochs is not None and train.steps is None:
        return Budget(amount=train.epochs, unit="epochs")
    return Budget(amount=train.steps, unit="steps") if train.epochs is None and train.steps is not None else None


def axis_text(value: Any) -> str:
    """The value of an axis as one text: floats by repr, text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _as_written(value: Any, texts: Sequence[str]) -> str:
    """The text of an axis value that may have come back from a file as a number."""
    text = str(value)
    if text in texts or isinstance(value, str):
        return text
    return next((known for known in texts if _equal(known, value)), text)


def _equal(text: str, value: Any) -> bool:
    try:
        return bool(float(text) == float(value))
    except (TypeError, ValueError):
        return False


def by_run(curves: pd.DataFrame, columns: Sequence[str]) -> dict[str, Floats]:
    """These columns of the rows of each run (rows, columns), in the order of the frame."""
    import pandas as pd

    codes, ids = pd.factorize(curves["run_id"], sort=False)
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    values = curves[list(columns)].to_numpy(dtype=np.float64)[order]
    return dict(zip(map(str, ids), np.split(values, cuts), strict=True)) if len(values) else {}


def tracks_of(curves: Frames, metric: str) -> dict[str, Track]:
    """The metric's rows of every run in `curves` (a frame, or frames that each hold whole or partial runs)."""
    import pandas as pd

    found: dict[str, Track] = {}
    for frame in [curves] if isinstance(curves, pd.DataFrame) else curves or ():
        if metric in frame.columns:
            for run_id, track in _tracks(frame, metric):
                found[run_id] = _joined(found[run_id], track) if run_id in found else track
    return found


def _tracks(frame: pd.DataFrame, metric: str) -> Iterator[tuple[str, Track]]:
    """Those of one frame; of a million runs, so nothing is sorted or copied for each of them."""
    import pandas as pd

    codes, ids = pd.factorize(frame["run_id"], sort=False)
    steps = frame["step"].to_numpy(dtype=np.float64)
    order = np.lexsort((steps, codes))
    steps_in_order = steps[order].astype(np.intp)
    values = frame[metric].to_numpy(dtype=np.float64)[order]
    ends = [0, *np.cumsum(np.bincount(codes, minlength=len(ids))).tolist()]
    for run_id, (start, end) in zip(ids, itertools.pairwise(ends), strict=True):
        yield str(run_id), Track(steps=steps_in_order[start:end], values=values[start:end])


def _joined(first: Track, second: Track) -> Track:
    """Of a run whose rows are in two frames."""
    steps = np.concatenate([first.steps, second.steps])
    order = np.argsort(steps, kind="stable")
    return Track(steps=steps[order], values=np.concatenate([first.values, second.values])[order])


def cells_of(runs: pd.DataFrame, tracks: Mapping[str, Track], config: AnalysisConfig) -> list[Cell]:
    """Cells in the order of the spec's optimizers, then of the axis values as they first appear."""
    keys = ["optimizer", *config.axes]
    cells = []
    for values, frame in runs.groupby(keys, sort=False, dropna=False):
        label, *axes = values if isinstance(values, tuple) else (values,)
        axis_texts = {axis: _as_written(v, config.axes[axis]) for axis, v in zip(config.axes, axes, strict=True)}
        cells.append(_cell(frame, str(label), axis_texts, tracks, config))
    order = {label: rank for rank, label in enumerate(config.labels)}
    return sorted(cells, key=lambda cell: order.get(cell.optimizer, len(order)))


def _cell(
    frame: pd.DataFrame, label: str, axes: dict[str, str], tracks: Mapping[str, Track], config: AnalysisConfig
) -> Cell:
    frame = frame.sort_values(["lr", "seed"], kind="stable")
    status = frame["status"].astype(str).to_numpy()
    lrs, row = np.unique(frame["lr"].to_numpy(dtype=np.float64), return_inverse=True)
    objectives = _objectives(frame, tracks, config)
    alive = status != "failed"
    seeds, column = np.unique(frame["seed"].to_numpy()[alive], return_inverse=True)
    shape = (len(lrs), len(seeds))
    costs, starts, test = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    diverged, points = np.zeros(shape, dtype=bool), np.full(shape, -1, dtype=np.intp)
    at = (row[alive], column)
    gone = status[alive] == "diverged"
    costs[at] = [math.inf if d else cost(v, config.mode) for d, v in zip(gone, objectives[alive], strict=True)]
    starts[at] = _initial(frame, tracks, config)[alive]
    column_of_test = f"final_test_{config.metric.partition('_')[2]}"
    if column_of_test in frame.columns:
        test[at] = frame[column_of_test].to_numpy(dtype=np.float64)[alive]
    diverged[at] = gone
    points[at] = np.flatnonzero(alive)
    return Cell(
        optimizer=label,
        name=config.names.get(label, label),
        axes=axes,
        lrs=lrs,
        seeds=tuple(int(seed) for seed in seeds),
        cost=costs,
        diverged=diverged,
        initial=medians(starts.T),
        test=test,
        runs=_points(frame, status, objectives),
        points=points,
        eps=config.eps_of(axes),
    )


def _objectives(frame: pd.DataFrame, tracks: Mapping[str, Track], config: AnalysisConfig) -> Floats:
    """The objective of every run: the column, or read off the curves where another one is asked for."""
    if "objective" in frame.columns:
        return frame["objective"].to_numpy(dtype=np.float64)
    ids = frame["run_id"].astype(str)
    return np.array([value_at(tracks.get(i), config.metric, config.at, config.mode) for i in ids], dtype=np.float64)


def value_at(track: Track | None, metric: str, at: str, mode: Mode, budget: float = math.inf) -> float:
    """The objective of a run from its rows up to `budget` updates; nan without a row."""
    if track is None:
        return math.nan
    end = int(track.steps.searchsorted(budget, side="right"))
    if at == "final":  # of millions of runs: without a detour
        return float(track.values[end - 1]) if end else math.nan
    return objective_of({metric: track.values[:end]}, metric, at, mode) if end else math.nan


def _initial(frame: pd.DataFrame, tracks: Mapping[str, Track], config: AnalysisConfig) -> Floats:
    """Cost of row 0 of every run: from runs.csv for the two losses, from the curves for anything else."""
    column = INITIAL_COLUMNS.get(config.metric, "")
    if column in frame.columns:
        values = frame[column].to_numpy(dtype=np.float64)
    else:
        values = np.array([_first(tracks.get(str(run_id))) for run_id in frame["run_id"]], dtype=np.float64)
    return np.array([math.nan if math.isnan(v) else cost(v, config.mode) for v in values], dtype=np.float64)


def _first(track: Track | None) -> float:
    return float(track.values[0]) if track is not None and track.steps[0] == 0 else math.nan


def _points(frame: pd.DataFrame, status: Any, objectives: Floats) -> tuple[RunPoint, ...]:
    import pandas as pd

    columns = (
        frame["run_id"].astype(str).tolist(),
        frame["lr"].astype(float).tolist(),
        frame["seed"].astype(int).tolist(),
        status.tolist(),
        frame["diagnosis"].fillna("").astype(str).tolist() if "diagnosis" in frame else [""] * len(frame),
        objectives.tolist(),
        pd.to_numeric(frame["diverged_step"]).astype(float).tolist() if "diverged_step" in frame else
        [math.nan] * len(frame),
    )  # fmt: skip
    return tuple(
        RunPoint(run_id=i, lr=lr, seed=seed, status=state, diagnosis=label, objective=value, diverged_step=step)
        for i, lr, seed, state, label, value, step in zip(*columns, strict=True)
    )


def only(cell: Cell, seeds: Sequence[int]) -> Cell:
    """The cell as if it had been run with `seeds` alone."""
    kept = [cell.seeds.index(seed) for seed in seeds]
    return replace(
        cell, seeds=tuple(seeds), cost=cell.cost[:, kept], diverged=cell.diverged[:, kept], initial=cell.initial[kept],
        test=cell.test[:, kept], points=cell.points[:, kept],
    )  # fmt: skip
