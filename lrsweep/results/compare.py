"""Two sweeps side by side, what moved; and a verdict on one sweep, for CI.

`compare` pairs the runs of both sweeps by seed: numbers, changes and intervals are all over the seeds that both have,
and one bootstrap draw of them serves both. Where the sweeps share fewer than two seeds, each keeps all of its own and
is drawn alone. Needs the files of the sweeps only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np

from lrsweep.analysis.analyse import edge_side
from lrsweep.analysis.baseline import paired_gain
from lrsweep.analysis.cells import INITIAL_COLUMNS, AnalysisConfig, Cell, cells_of, config_of, only, tracks_of
from lrsweep.analysis.drift import best_lrs, costs_of
from lrsweep.analysis.facts import EdgeSide, Interval
from lrsweep.analysis.good_range import best_rate, good_range
from lrsweep.analysis.sensitivity import normed, sensitivity
from lrsweep.analysis.stats import Floats, Ints, interval, medians, paired, resampled_medians, resamples
from lrsweep.results import tables
from lrsweep.results.check import Check, Limits, Verdict, check, check_summary
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
GOOD_RANGE_DRAWS = 1000
"""Draws for numbers that are worked out one draw at a time."""

T = TypeVar("T")
Unit: TypeAlias = Literal["decades", "objective", "objective_mean", "objective_median", "gain_share"]
Statistic: TypeAlias = Callable[[Floats, Floats, Floats], Floats]
"""(rates (R,), medians (B, R), l0 (B,)) -> (B,)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One number before (A) and after (B). `change` is B - A (of decades: log10 B/A) with its 95 % interval.

    `unit` is what the change is in: decades, the objective (or its mean or median over seeds) or a share of the gain
    over the untrained model. `moved` is None without an interval.
    `at_least`: whether A's and B's number is a lower bound.
    """

    name: str
    before: float
    after: float
    change: Interval
    unit: Unit
    at_least: tuple[bool, bool] = (False, False)

    @property
    def moved(self) -> bool | None:
        if math.isinf(self.change.value):
            return True
        return None if math.isnan(self.change.low) else not self.change.low <= 0 <= self.change.high


@dataclass(frozen=True, kw_only=True, slots=True)
class RowChange:
    """What moved for one optimizer (and axis values). `paired` counts the seeds that both sweeps ran.

    `seeds` counts those of A and of B; with two or more paired ones the rest of them is left out. `shared` counts the
    rates that both tried: with less than two there is no sensitivity among the changes. `edges` says at which edge of
    its grid the best rate of A and of B lies, `at_least` whether the width of its good range is a lower bound.
    """

    title: str
    paired: int
    seeds: tuple[int, int]
    shared: int
    changes: tuple[Change, ...]
    edges: tuple[EdgeSide, EdgeSide]
    at_least: tuple[bool, bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A against B, row by row; `only_a` and `only_b` have no partner in the other sweep.

    Those that the other sweep has in its spec, but without a finished run, are `unfinished_a` or `unfinished_b` there.
    `differences` are the settings in which the specs differ, `tasks` the names of both tasks if these differ at all.
    `objectives` are the metric of A and of B with the rows it is taken at.
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

    def text(self) -> str:
        """For a terminal."""
        return comparison_text(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One sweep of a comparison. `recipe` is its resolved spec as plain values, with the paths of both sides alike."""

    name: str
    config: AnalysisConfig
    cells: tuple[Cell, ...]
    workload_spec: Mapping[str, Any] = field(default_factory=dict)


def compare(a: Results | Path | str, b: Results | Path | str) -> Comparison:
    """What changed from sweep `a` to `b`, each a folder or its Results. Raises UsageError, StorageError."""
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
    if len(seeds) > 1:
        a, b = only(a, seeds), only(b, seeds)
    draws = _Draws.of(a, b, seeds)
    common_a, common_b = _common(a, b)
    sensitivities = [
        *([draws.change("sensitivity", _s, "objective", common_a, common_b)] if same_objective else []),
        draws.change("sensitivity_norm", _s_norm, "gain_share", common_a, common_b),
    ]
    at_least = _both(lambda cell: good_range(cell.lrs, medians(cell.cost), cell.start).at_least, a, b)
    widths = draws.change("basin_decades", _decades, "decades", most=GOOD_RANGE_DRAWS)
    changes = [
        draws.change("best_lr", _best_lr, "decades", log=True),
        *([_objective_change(a, b, seeds, draws, config)] if same_objective else []),
        *(sensitivities if len(common_a) > 1 else []),
        replace(widths, at_least=at_least),
    ]
    name = a.title if a.title == b.title else f"{a.title} -> {b.title}"
    edges = _both(lambda cell: edge_side(medians(cell.cost), best_rate(medians(cell.cost))), a, b)
    return RowChange(
        title=name, paired=len(seeds), seeds=counts, shared=len(common_a), changes=tuple(changes), edges=edges,
        at_least=at_least,
    )  # fmt: skip


def _both(read: Callable[[Cell], T], a: Cell, b: Cell) -> tuple[T, T]:
    return read(a), read(b)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draws:
    """Medians and starts of both cells, whole and for every bootstrap draw; `weight` (B,) counts each draw."""

    a: Cell
    b: Cell
    drawn_a: tuple[Floats, Floats]
    drawn_b: tuple[Floats, Floats]
    weight: Ints
    n: int

    @classmethod
    def of(cls, a: Cell, b: Cell, seeds: Sequence[int]) -> _Draws:
        """Paired on `seeds` if these are two or more, else each cell drawn alone, the draws crossed at random."""
        if len(seeds) > 1:
            drawn_a, drawn_b = _drawn(a, seeds), _drawn(b, seeds)
            return cls(a=a, b=b, drawn_a=drawn_a, drawn_b=drawn_b, weight=resamples(len(seeds))[1], n=len(seeds))
        n = min(len(a.seeds), len(b.seeds))
        random = np.random.Generator(np.random.PCG64(1979))
        drawn = []
        for cell in (a, b):
            weight = resamples(len(cell.seeds))[1]
            picked = random.choice(len(weight), size=10 * GOOD_RANGE_DRAWS, p=weight / weight.sum())
            medians_B, starts_B = _drawn(cell, cell.seeds)
            drawn.append((medians_B[picked], starts_B[picked]))
        return cls(
            a=a, b=b, drawn_a=drawn[0], drawn_b=drawn[1], weight=np.ones(10 * GOOD_RANGE_DRAWS, dtype=np.intp), n=n
        )

    def change(
        self, name: str, statistic: Statistic, unit: Unit, rates_a: Sequence[int] | None = None,
        rates_b: Sequence[int] | None = None, *, most: int | None = None, log: bool = False,
    ) -> Change:  # fmt: skip
        """A statistic of both cells, on the rates given by number, over at most `most` draws; `log`: in decades."""
        sides = []
        for cell, (m_B, l0_B), chosen in ((self.a, self.drawn_a, rates_a), (self.b, self.drawn_b, rates_b)):
            at = np.arange(len(cell.lrs)) if chosen is None else np.array(chosen, dtype=np.intp)
            whole = statistic(cell.lrs[at], medians(cell.cost)[None, at], np.array([cell.start]))
            drawn = statistic(cell.lrs[at], m_B[:most, at], l0_B[:most]) if self.n > 1 else np.empty(0)
            sides.append((float(whole[0]), drawn))
        (before, drawn_a), (after, drawn_b) = sides
        if log:
            drawn_a, drawn_b = np.log10(drawn_a), np.log10(drawn_b)
        low, high = interval(drawn_b - drawn_a, self.weight[:most]) if self.n > 1 else (math.nan, math.nan)
        value = math.log10(after / before) if log else after - before
        return Change(name=name, before=before, after=after, change=_around(value, low, high, self.n), unit=unit)


def _around(value: float, low: float, high: float, n: int) -> Interval:
    """A bootstrap interval that reaches to its value, which percentiles of a few draws of a minimum may miss."""
    if math.isfinite(value) and not math.isnan(low):
        low, high = min(low, value), max(high, value)
    return Interval(value=value, low=low, high=high, n=n)


def _drawn(cell: Cell, seeds: Sequence[int]) -> tuple[Floats, Floats]:
    columns = [cell.seeds.index(seed) for seed in seeds]
    return resampled_medians(costs_of(cell, seeds)), resampled_medians(cell.initial[None, columns])[:, 0]


def _best_lr(lrs: Floats, m: Floats, _l0: Floats) -> Floats:
    return best_lrs(lrs, m)


def _s(lrs: Floats, m: Floats, l0: Floats) -> Floats:
    return np.where(np.isfinite(m).any(axis=-1), sensitivity(lrs, m, l0), np.nan)


def _s_norm(lrs: Floats, m: Floats, l0: Floats) -> Floats:
    return normed(sensitivity(lrs, m, l0), m, l0)


def _decades(lrs: Floats, m: Floats, l0: Floats) -> Floats:
    return np.array([good_range(lrs, row, float(start)).decades for row, start in zip(m, l0, strict=True)])


def _common(a: Cell, b: Cell) -> tuple[list[int], list[int]]:
    """Numbers of the rates that both grids hold."""
    pairs = []
    for i, lr in enumerate(a.lrs):
        near = np.flatnonzero(np.abs(b.lrs / lr - 1) <= SAME)
        if len(near):
            pairs.append((i, int(near[0])))
    return [i for i, _ in pairs], [j for _, j in pairs]


def _objective_change(a: Cell, b: Cell, seeds: Sequence[int], draws: _Draws, config: AnalysisConfig) -> Change:
    """Best against best in the metric's own sign: means and a paired t interval over the shared seeds.

    Without two of them, or where one diverged at a best rate: medians, with the bootstrap's interval or none.
    """
    sign = 1.0 if config.mode == "min" else -1.0
    bests = [best_rate(medians(cell.cost)) for cell in (a, b)]
    if len(seeds) > 1 and None not in bests:
        pair = [sign * cell.cost[at] for cell, at in zip((a, b), bests, strict=True)]
        known = ~np.isnan(pair[0]) & ~np.isnan(pair[1])
        change = paired_gain(pair[1], pair[0])
        if np.isfinite(pair[0][known]).all() and np.isfinite(pair[1][known]).all():
            before, after = (paired(side[known]).value for side in pair)
            return Change(name="best_objective", before=before, after=after, change=change, unit="objective_mean")
    before, after = (sign * float(_least(medians(cell.cost))) + 0.0 for cell in (a, b))
    drawn_a, drawn_b = (_least(drawn[0]) for drawn in (draws.drawn_a, draws.drawn_b))
    low, high = interval(sign * (drawn_b - drawn_a), draws.weight) if draws.n > 1 else (math.nan, math.nan)
    change = _around(after - before, low, high, draws.n)
    return Change(name="best_objective", before=before, after=after, change=change, unit="objective_median")


def _least(m: Floats) -> Floats:
    """Least finite median of every draw, nan if there is none."""
    least = np.min(np.where(np.isfinite(m), m, np.inf), axis=-1, initial=np.inf)
    return np.where(np.isfinite(least), least, np.nan)
