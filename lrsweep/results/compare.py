"""Two sweeps side by side, what moved; and a verdict on one sweep, for CI.

`compare` shows medians over seeds, as summary.csv does, over the seeds and the rates that both sweeps have. What has
changed is decided by the same number worked out for every seed alone: a t interval of the paired differences, whose
rate of false alarms is at most 5 % from 3 seeds on (simulated in the tests). Where the sweeps share fewer than two
seeds, each keeps all of its own and the interval is an unpaired one. Needs the files of the sweeps only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np

from lrsweep.analysis.analyse import edge_side
from lrsweep.analysis.cells import INITIAL_COLUMNS, AnalysisConfig, Cell, cells_of, config_of, only, tracks_of
from lrsweep.analysis.drift import best_lrs, grid_step
from lrsweep.analysis.facts import EdgeSide, GoodRange, Interval
from lrsweep.analysis.good_range import best_rate, good_range, widths
from lrsweep.analysis.sensitivity import normed, sensitivity
from lrsweep.analysis.stats import Bools, Floats, medians, paired, t_quantile
from lrsweep.results import tables
from lrsweep.results.check import Check, Limits, Verdict, check, check_summary, json_value
from lrsweep.spec.load import read_resolved
from lrsweep.spec.model import call_text
from lrsweep.spec.resolved import differences, resolved_dict
from lrsweep.wording.comparison import comparison_text
from lrsweep.wording.words import budget_text

if TYPE_CHECKING:
    from lrsweep.results.results import Results
    from lrsweep.spec.model import Spec

__all__ = [
    "Change", "Check", "Comparison", "Limits", "RowChange", "Side", "Verdict",
    "check", "check_summary", "compare", "compare_sides",
]  # fmt: skip

SAME = 1e-6
"""Relative distance below which two rates are one."""
LEAST_SEEDS = 3
"""Fewer seeds than this tell nothing of a change."""

T = TypeVar("T")
Unit: TypeAlias = Literal["decades", "objective", "gain_share"]
Verdicts: TypeAlias = Literal["identical", "changed", "no clear change", "too few seeds to tell", "no interval"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One number before (A) and after (B), medians over seeds.

    `change` is B - A (of best_lr: log10 B/A) of the number worked out seed by seed: its mean over `n` seeds and t
    interval (Student 1908), that of best_lr widened by half a grid step on either side. `unit` is its unit: decades,
    the objective or a share of the gain over the untrained model. `at_least`: whether A's and B's number is a lower
    bound. `same`: no seed has another number.
    """

    name: str
    before: float
    after: float
    change: Interval
    unit: Unit
    at_least: tuple[bool, bool] = (False, False)
    same: bool = False

    @property
    def moved(self) -> bool | None:
        """None where the seeds cannot tell."""
        return None if math.isnan(self.change.low) else not self.change.low <= 0 <= self.change.high

    @property
    def verdict(self) -> Verdicts:
        if self.same:
            return "identical"
        if self.moved is None:
            return "too few seeds to tell" if self.change.n < LEAST_SEEDS else "no interval"
        return "changed" if self.moved else "no clear change"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowChange:
    """What moved for one optimizer (and axis values). `paired` counts the seeds that both sweeps ran.

    `seeds` counts those of A and of B; with two or more paired ones the rest of them is left out. `shared` counts the
    rates that both tried: with less than two there are no changes, except that of the objective where both tried that
    rate alone. `edges` says at which edge of its grid the best rate of A and of B lies, `at_least` whether the width of
    its good range there is a lower bound.
    """

    title: str
    paired: int
    seeds: tuple[int, int]
    shared: int
    changes: tuple[Change, ...]
    edges: tuple[EdgeSide, EdgeSide]
    at_least: tuple[bool, bool]

    @property
    def same(self) -> bool:
        return bool(self.changes) and all(change.same for change in self.changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A against B, row by row; `only_a` and `only_b` have no partner in the other sweep.

    Those that the other sweep has in its spec, but without a finished run, are `unfinished_a` or `unfinished_b` there.
    `differences` are the settings in which the specs differ, `tasks` the names of both tasks if these differ at all.
    `objectives` are the metric of A and of B with the rows it is taken at.

    >>> changed = lrsweep.compare("results/sweep", "results/longer")
    >>> sgd = changed.rows[0]
    >>> [change.name for change in sgd.changes if not change.same]
    ['best_lr', 'best_objective', 'sensitivity', 'sensitivity_norm', 'basin_decades']
    """

    a: str
    b: str
    differences: tuple[str, ...]
    tasks: tuple[str, ...] | None
    objectives: tuple[tuple[str, str], tuple[str, str]]
    same_objective: bool
    grids_differ: bool
    seeds_differ: bool
    rows: tuple[RowChange, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unfinished_a: tuple[str, ...]
    unfinished_b: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether both sweeps have the same rows with the same numbers for every seed."""
        alone = (*self.only_a, *self.only_b, *self.unfinished_a, *self.unfinished_b)
        apart = alone or self.grids_differ or self.seeds_differ or not self.same_objective or self.tasks
        return bool(self.rows) and not apart and all(row.same for row in self.rows)

    def text(self) -> str:
        """For a terminal."""
        return comparison_text(self)

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`; nan and inf become the texts "nan" and "inf"."""
        rows = [
            {
                "optimizer": row.title,
                "paired_seeds": row.paired,
                "seeds": list(row.seeds),
                "shared_rates": row.shared,
                "changes": [
                    {
                        "name": one.name, "before": json_value(one.before), "after": json_value(one.after),
                        "difference": json_value(one.change.value), "low": json_value(one.change.low),
                        "high": json_value(one.change.high), "seeds": one.change.n, "verdict": one.verdict,
                    }
                    for one in row.changes
                ],
            }
            for row in self.rows
        ]  # fmt: skip
        alone = {
            "only_a": self.only_a, "only_b": self.only_b, "unfinished_a": self.unfinished_a,
            "unfinished_b": self.unfinished_b,
        }  # fmt: skip
        lists = {name: list(titles) for name, titles in alone.items()}
        return {
            "a": self.a, "b": self.b, "identical": self.same, "differences": list(self.differences), "rows": rows,
            **lists,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One sweep of a comparison. `recipe` is its resolved spec as plain values, with the paths of both sides alike."""

    name: str
    config: AnalysisConfig
    cells: tuple[Cell, ...]
    workload_spec: Mapping[str, Any] = field(default_factory=dict)


def compare(a: Results | Path | str, b: Results | Path | str) -> Comparison:
    """What changed from sweep `a` to `b`, each a folder or its Results. Raises UsageError, StorageError.

    >>> changed = lrsweep.compare("results/sweep", "results/longer")
    >>> changed.differences
    ('train.epochs: 5 -> 20',)
    >>> print(changed.text().splitlines()[0])
    A: results/sweep (5 epochs)
    """
    sides = load_side(tables.folder_of(a)), load_side(tables.folder_of(b))
    return compare_sides(*sides)


def load_side(folder: Path) -> Side:
    """The runs of a sweep, from its files."""
    tables.ensure(folder)
    spec: Spec = read_resolved(folder / tables.SPEC)
    config = config_of(spec, {})
    # Only metrics other than the two losses have their untrained value in the curves alone.
    curves = None if config.metric in INITIAL_COLUMNS else tables.curve_chunks(folder)
    cells = cells_of(tables.read_runs(folder), tracks_of(curves, config.metric), config)
    # Paths of both sides are written from one place, so that only files that differ do so.
    workload_spec = resolved_dict(spec, Path.cwd())
    return Side(
        name=f"{folder} ({budget_text(config.budget)})", config=config, cells=tuple(cells), workload_spec=workload_spec
    )


def compare_sides(a: Side, b: Side) -> Comparison:
    """`compare` after its inputs were read."""
    after = {_place(cell): cell for cell in b.cells}
    pairs = [(cell, after[_place(cell)]) for cell in a.cells if _place(cell) in after]
    if not pairs and len(a.cells) == len(b.cells) == 1:
        pairs = [(a.cells[0], b.cells[0])]
    matched = {id(cell) for pair in pairs for cell in pair}
    alone_a, alone_b = ([cell for cell in side.cells if id(cell) not in matched] for side in (a, b))
    same = (a.config.metric, a.config.at, a.config.mode) == (b.config.metric, b.config.at, b.config.mode)
    return Comparison(
        a=a.name,
        b=b.name,
        differences=differences(a.workload_spec, b.workload_spec),
        tasks=_tasks(a, b),
        objectives=((a.config.metric, a.config.at), (b.config.metric, b.config.at)),
        same_objective=same,
        grids_differ=any(not len(a.lrs) == len(b.lrs) == len(_common(a, b)[0]) for a, b in pairs),
        seeds_differ=any(set(a.seeds) != set(b.seeds) and len(set(a.seeds) & set(b.seeds)) > 1 for a, b in pairs),
        rows=tuple(_row(before, now, a.config, same_objective=same) for before, now in pairs),
        only_a=tuple(cell.title for cell in alone_a if not _planned(b, cell)),
        only_b=tuple(cell.title for cell in alone_b if not _planned(a, cell)),
        unfinished_a=tuple(cell.title for cell in alone_b if _planned(a, cell)),
        unfinished_b=tuple(cell.title for cell in alone_a if _planned(b, cell)),
    )


def _planned(side: Side, cell: Cell) -> bool:
    """Whether the spec of this side has the optimizer and axis values of a cell of the other."""
    axes = side.config.axes
    return (
        cell.optimizer in side.config.labels
        and cell.axes.keys() == axes.keys()
        and all(text in axes[axis] for axis, text in cell.axes.items())
    )


def _place(cell: Cell) -> tuple[str, tuple[tuple[str, str], ...]]:
    return cell.optimizer, tuple(cell.axes.items())


def _tasks(a: Side, b: Side) -> tuple[str, ...] | None:
    tasks = [side.workload_spec.get("task") for side in (a, b)]
    return tuple(call_text(str(task["name"]), {}) for task in tasks if task) if tasks[0] != tasks[1] else None


def _row(a: Cell, b: Cell, config: AnalysisConfig, *, same_objective: bool) -> RowChange:
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    counts = len(a.seeds), len(b.seeds)
    name = a.title if a.title == b.title else f"{a.title} -> {b.title}"
    if len(seeds) > 1:
        a, b = only(a, seeds), only(b, seeds)
    edges = _both(lambda cell: edge_side(medians(cell.cost), best_rate(medians(cell.cost))), a, b)
    at_least = _both(lambda cell: _range(cell).at_least, a, b)
    common = _common(a, b)
    comparable = len(common[0]) > 1
    one_rate = len(common[0]) == len(a.lrs) == len(b.lrs) == 1
    if comparable:
        a, b = _rates_only(a, common[0]), _rates_only(b, common[1])
    sign = 1.0 if config.mode == "min" else -1.0
    units: dict[str, Unit] = {
        **({"best_lr": "decades"} if comparable else {}),
        **({"best_objective": "objective"} if same_objective and (comparable or one_rate) else {}),
        **({"sensitivity": "objective"} if same_objective and comparable else {}),
        **({"sensitivity_norm": "gain_share", "basin_decades": "decades"} if comparable else {}),
    }
    numbers = _both(lambda cell: _numbers(cell, sign), a, b)
    changes = []
    for number, unit in units.items():
        (before, seeds_a), (after, seeds_b) = (side[number] for side in numbers)
        change = mean_difference(seeds_a, seeds_b, paired_seeds=len(seeds) > 1)
        same = seeds_a.shape == seeds_b.shape and np.array_equal(seeds_a, seeds_b, equal_nan=True)
        if number == "best_lr" and not same:
            change = _widened(change, sum(_both(lambda cell: _grid_step(cell) / 2, a, b)))
        bounds = _both(lambda cell: _range(cell).at_least, a, b) if number == "basin_decades" else (False, False)
        changes.append(
            Change(name=number, before=before, after=after, change=change, unit=unit, at_least=bounds, same=same)
        )
    return RowChange(
        title=name, paired=len(seeds), seeds=counts, shared=len(common[0]), changes=tuple(changes), edges=edges,
        at_least=at_least,
    )  # fmt: skip


def _both(read: Callable[[Cell], T], a: Cell, b: Cell) -> tuple[T, T]:
    return read(a), read(b)


def _rates_only(cell: Cell, rates: Sequence[int]) -> Cell:
    """The cell as if it had been run with the rates of these numbers alone."""
    kept = np.array(rates, dtype=np.intp)
    return replace(
        cell, lrs=cell.lrs[kept], cost=cell.cost[kept], diverged=cell.diverged[kept], test=cell.test[kept],
        points=cell.points[kept],
    )  # fmt: skip


def _range(cell: Cell) -> GoodRange:
    return good_range(cell.lrs, medians(cell.cost), cell.start, clean=_clean(cell))


def _clean(cell: Cell) -> Bools:
    clean: Bools = ~np.any(cell.diverged, axis=1)
    return clean


def _grid_step(cell: Cell) -> float:
    step = grid_step(cell.lrs, best_rate(medians(cell.cost)))
    return 0.0 if math.isnan(step) else step


def _numbers(cell: Cell, sign: float) -> dict[str, tuple[float, Floats]]:
    """By name: the number of the medians, and the same of every seed (S,), in logs for best_lr.

    `sign` turns a cost into the objective. The best objective of a seed is that of its own best rate: at the best rate
    of the medians, which each side chooses for itself, up to 8 % of equal sweeps were called changed (simulated).
    """
    m, l0, columns = medians(cell.cost), cell.start, cell.cost.T
    best = best_rate(m)
    trained = np.isfinite(columns).any(axis=1)
    s, all_s = (np.asarray(_s(cell.lrs, costs, start)) for costs, start in ((m, l0), (columns, cell.initial)))
    at_best = sign * np.where(trained, np.min(columns, axis=1, initial=np.inf, where=np.isfinite(columns)), np.nan)
    return {
        "best_lr": (float(best_lrs(cell.lrs, m)), np.log10(best_lrs(cell.lrs, columns))),
        "best_objective": (sign * float(m[best]) + 0.0 if best is not None else math.nan, at_best),
        "sensitivity": (float(s), np.where(trained, all_s, np.nan)),
        "sensitivity_norm": (float(normed(s, m, l0)), normed(all_s, columns, cell.initial)),
        "basin_decades": (_range(cell).decades, widths(cell.lrs, columns, cell.initial, _clean(cell))),
    }


def _s(lrs: Floats, m: Floats, l0: Floats | float) -> Floats:
    return np.where(np.isfinite(m).any(axis=-1), sensitivity(lrs, m, l0), np.nan)


def mean_difference(a: Floats, b: Floats, *, paired_seeds: bool) -> Interval:
    """Mean of b - a over seeds with a t interval: of the paired differences, or else the unpaired one of Welch (1947),
    with the degrees of freedom of the smaller side. nan ends for fewer than three seeds or where a number is missing or
    infinite at some seed."""
    if paired_seeds:
        unknown = np.isnan(a) & np.isnan(b)
        found = paired(b[~unknown] - a[~unknown]) if np.isfinite([a[~unknown], b[~unknown]]).all() else None
        n = int((~unknown).sum())
    else:
        n = min(len(a), len(b))
        found = _unpaired(a, b) if n > 1 and np.isfinite(a).all() and np.isfinite(b).all() else None
    if found is None:
        return Interval(value=math.nan, low=math.nan, high=math.nan, n=n)
    return found if n >= LEAST_SEEDS else replace(found, low=math.nan, high=math.nan)


def _unpaired(a: Floats, b: Floats) -> Interval:
    n, value = min(len(a), len(b)), float(b.mean() - a.mean())
    half = t_quantile(n - 1) * math.sqrt(float(a.var(ddof=1)) / len(a) + float(b.var(ddof=1)) / len(b))
    return Interval(value=value, low=value - half, high=value + half, n=n)


def _widened(one: Interval, by: float) -> Interval:
    return replace(one, low=one.low - by, high=one.high + by)


def _common(a: Cell, b: Cell) -> tuple[list[int], list[int]]:
    """Numbers of the rates that both grids hold."""
    pairs = []
    for i, lr in enumerate(a.lrs):
        near = np.flatnonzero(np.abs(b.lrs / lr - 1) <= SAME)
        if len(near):
            pairs.append((i, int(near[0])))
    return [i for i, _ in pairs], [j for _, j in pairs]
