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
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lrsweep.analysis.analyse import edge_side
from lrsweep.analysis.baseline import paired_gain
from lrsweep.analysis.cells import INITIAL_COLUMNS, AnalysisConfig, Cell, cells_of, config_of, only, tracks_of
from lrsweep.analysis.drift import best_lrs, costs_of
from lrsweep.analysis.facts import Estimate
from lrsweep.analysis.good_range import basin, best_rate
from lrsweep.analysis.sensitivity import normed, sensitivity
from lrsweep.analysis.stats import Floats, Ints, interval, medians, paired, resampled_medians, resamples
from lrsweep.results import tables
from lrsweep.results.check import Check, Limits, Verdict, check, check_summary
from lrsweep.spec.load import read_resolved
from lrsweep.spec.model import call_text
from lrsweep.spec.resolved import differences, resolved_dict
from lrsweep.wording.words import budget_text, plural

if TYPE_CHECKING:
    from lrsweep.spec.model import Spec

__all__ = [
    "Change", "Check", "Comparison", "Limits", "RowChange", "Side", "Verdict",
    "check", "check_summary", "compare", "compare_sides",
]  # fmt: skip

SAME = 1e-6
"""Relative distance below which two rates are one."""
BASIN_DRAWS = 1000
"""Draws for numbers that are worked out one draw at a time."""

Statistic: TypeAlias = Callable[[Floats, Floats, Floats], Floats]
"""(rates (R,), medians (B, R), l0 (B,)) -> (B,)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One number before (A) and after (B). `change` is B - A (of decades: log10 B/A) with its 95 % interval.

    `unit` is what the change is in: `decades` or that of the objective. `moved` is None without an interval.
    `at_least`: whether A's and B's number is a lower bound.
    """

    name: str
    before: float
    after: float
    change: Estimate
    unit: str
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
    rates that both tried: with less than two there is no sensitivity among the changes. `caution`: see `_caution`.
    """

    title: str
    paired: int
    seeds: tuple[int, int]
    shared: int
    changes: tuple[Change, ...]
    caution: str = ""

    @property
    def basis(self) -> str:
        """Which seeds the numbers are over."""
        own = f"A has {self.seeds[0]}, B has {self.seeds[1]}"
        if self.paired < 2:
            return f"all seeds of each, unpaired: {own}"
        return f"{self.paired} paired seeds" + (f"; {own}" if {*self.seeds} != {self.paired} else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A against B, row by row; `only_a` and `only_b` have no partner in the other sweep.

    `differences` are the settings in which the two specs differ, `caveats` what these forbid to conclude.
    """

    a: str
    b: str
    differences: tuple[str, ...]
    caveats: tuple[str, ...]
    rows: tuple[RowChange, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """For a terminal."""
        lines = [f"A: {self.a}", f"B: {self.b}"]
        if self.differences:
            lines += ["", "The specs differ:", *(f"  {text}" for text in self.differences)]
        lines += [*([""] if self.caveats else []), *(f"Caution: {text}" for text in self.caveats)]
        for row in self.rows:
            lines += ["", f"{row.title} ({row.basis})"]
            lines += [f"  {_line(change)}" for change in row.changes]
            lines += [f"  Caution: {row.caution}"] if row.caution else []
            if row.shared < 2:
                share = "one rate only" if row.shared else "no rate"
                lines += [f"  {'sensitivity':<17} nothing can be said: the grids share {share}"]
        lines += ["", *(f"only in A: {name}" for name in self.only_a), *(f"only in B: {name}" for name in self.only_b)]
        return "\n".join([*lines, *self.notes]).replace("\n\n\n", "\n\n").rstrip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One sweep of a comparison. `recipe` is its resolved spec as plain values, with the paths of both sides alike."""

    name: str
    setup: AnalysisConfig
    cells: tuple[Cell, ...]
    workload_spec: Mapping[str, Any] = field(default_factory=dict)


def compare(a: Path | str, b: Path | str) -> Comparison:
    """What moved from the sweep in folder `a` to that in `b`. Raises UsageError, StorageError."""
    sides = load_side(Path(a)), load_side(Path(b))
    return compare_sides(*sides)


def load_side(folder: Path) -> Side:
    """The runs of a sweep, from its files."""
    tables.ensure(folder)
    spec: Spec = read_resolved(folder / tables.SPEC)
    setup = config_of(spec, {})
    # Only metrics other than the two losses have their untrained value in the curves alone.
    curves = None if setup.metric in INITIAL_COLUMNS else tables.curve_chunks(folder)
    cells = cells_of(tables.read_runs(folder), tracks_of(curves, setup.metric), setup)
    # Paths of both sides are written from one place, so that only files that differ do so.
    workload_spec = resolved_dict(spec, Path.cwd())
    return Side(
        name=f"{folder} ({budget_text(setup.budget)})", setup=setup, cells=tuple(cells), workload_spec=workload_spec
    )


def compare_sides(a: Side, b: Side) -> Comparison:
    """`compare` after its inputs were read."""
    after = {cell.title: cell for cell in b.cells}
    pairs = [(cell, after[cell.title]) for cell in a.cells if cell.title in after]
    if not pairs and len(a.cells) == len(b.cells) == 1:
        pairs = [(a.cells[0], b.cells[0])]
    matched = {id(cell) for pair in pairs for cell in pair}
    same = (a.setup.metric, a.setup.at, a.setup.mode) == (b.setup.metric, b.setup.at, b.setup.mode)
    return Comparison(
        a=a.name,
        b=b.name,
        differences=differences(a.workload_spec, b.workload_spec),
        caveats=_caveats(a, b),
        rows=tuple(_row(before, now, a.setup, same_objective=same) for before, now in pairs),
        only_a=tuple(cell.title for cell in a.cells if id(cell) not in matched),
        only_b=tuple(cell.title for cell in b.cells if id(cell) not in matched),
        notes=_notes(a.setup, b.setup, pairs, same_objective=same),
    )


def _caveats(a: Side, b: Side) -> tuple[str, ...]:
    """What the two sweeps do not have in common and no number below makes up for."""
    out = []
    if (task := a.workload_spec.get("task")) != b.workload_spec.get("task"):
        names = [
            call_text(str(workload_spec["name"]), {})
            for workload_spec in (task or {}, b.workload_spec.get("task") or {})
            if workload_spec
        ]
        what = " and ".join(names) if len(set(names)) > 1 else "not the same data"
        out.append(f"the tasks differ ({what}): best_objective and sensitivity are of two problems, in two scales.")
    if a.setup.metric != b.setup.metric:
        out.append(f"the objective is {a.setup.metric} in A and {b.setup.metric} in B: a good rate for one need not be "
                   "one for the other.")  # fmt: skip
    return tuple(out)


def _notes(
    before: AnalysisConfig, after: AnalysisConfig, pairs: Sequence[tuple[Cell, Cell]], *, same_objective: bool
) -> tuple[str, ...]:
    notes = []
    if not same_objective:
        notes.append(
            f"The objectives differ (A: {before.metric}, {before.at}; B: {after.metric}, {after.at}): only numbers "
            "without their units are compared."
        )
    if any(not len(a.lrs) == len(b.lrs) == len(_common(a, b)[0]) for a, b in pairs):
        notes.append("The grids differ: sensitivity is taken over the rates that both have, the rest over each grid.")
    if any(set(a.seeds) != set(b.seeds) and len(set(a.seeds) & set(b.seeds)) > 1 for a, b in pairs):
        notes.append("The seeds differ: everything is taken over those that both have, so summary.csv may differ.")
    notes.append(
        "Changes are B - A with 95 % intervals over seeds, rough for a few seeds. best_objective is the mean over "
        "paired seeds at the best rate of each side (summary.csv has the median), with a t interval; the median where "
        "there are no such means. The other numbers are of medians over seeds, as in summary.csv."
    )
    return tuple(notes)


def _row(a: Cell, b: Cell, setup: AnalysisConfig, *, same_objective: bool) -> RowChange:
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    counts = len(a.seeds), len(b.seeds)
    if len(seeds) > 1:
        a, b = only(a, seeds), only(b, seeds)
    draws = _Draws.of(a, b, seeds)
    common_a, common_b = _common(a, b)
    sensitivities = [
        *([draws.change("sensitivity", _s, "objective", common_a, common_b)] if same_objective else []),
        draws.change("sensitivity_norm", _s_norm, "share of the gain", common_a, common_b),
    ]
    changes = [
        draws.change("best_lr", _best_lr, "decades", log=True),
        *([_objective_change(a, b, seeds, draws, setup)] if same_objective else []),
        *(sensitivities if len(common_a) > 1 else []),
        replace(draws.change("basin_decades", _basin_decades, "decades", most=BASIN_DRAWS), at_least=_at_least(a, b)),
    ]
    name = a.title if a.title == b.title else f"{a.title} -> {b.title}"
    return RowChange(
        title=name, paired=len(seeds), seeds=counts, shared=len(common_a), changes=tuple(changes),
        caution=_caution(a, b),
    )  # fmt: skip


def _at_least(a: Cell, b: Cell) -> tuple[bool, bool]:
    """Whether the width of each good range is a lower bound."""
    one, other = (basin(cell.lrs, medians(cell.cost), cell.start).at_least for cell in (a, b))
    return one, other


def _caution(a: Cell, b: Cell) -> str:
    """Which best rates lie at the end of their grid, and which good ranges may be wider than it shows; or ""."""
    ends = {"low": "the lowest", "high": "the highest", "both": "the only one"}
    found = []
    for name, cell, bound in zip("AB", (a, b), _at_least(a, b), strict=True):
        m = medians(cell.cost)
        if edge := edge_side(m, best_rate(m)):
            found.append(f"{name}'s best rate is {ends[edge]} of its grid")
        found += [f"{name}'s good range may be wider than its grid shows (>=)"] * bound
    return f"{'; '.join(found)}: other rates may change what is said" if found else ""


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
            picked = random.choice(len(weight), size=10 * BASIN_DRAWS, p=weight / weight.sum())
            medians_B, starts_B = _drawn(cell, cell.seeds)
            drawn.append((medians_B[picked], starts_B[picked]))
        return cls(a=a, b=b, drawn_a=drawn[0], drawn_b=drawn[1], weight=np.ones(10 * BASIN_DRAWS, dtype=np.intp), n=n)

    def change(
        self, name: str, statistic: Statistic, unit: str, rates_a: Sequence[int] | None = None,
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


def _around(value: float, low: float, high: float, n: int) -> Estimate:
    """A bootstrap interval that reaches to its value, which percentiles of a few draws of a minimum may miss."""
    if math.isfinite(value) and not math.isnan(low):
        low, high = min(low, value), max(high, value)
    return Estimate(value=value, low=low, high=high, n=n)


def _drawn(cell: Cell, seeds: Sequence[int]) -> tuple[Floats, Floats]:
    columns = [cell.seeds.index(seed) for seed in seeds]
    return resampled_medians(costs_of(cell, seeds)), resampled_medians(cell.initial[None, columns])[:, 0]


def _best_lr(lrs: Floats, m: Floats, _l0: Floats) -> Floats:
    return best_lrs(lrs, m)


def _s(_lrs: Floats, m: Floats, l0: Floats) -> Floats:
    return np.where(np.isfinite(m).any(axis=-1), sensitivity(m, l0), np.nan)


def _s_norm(_lrs: Floats, m: Floats, l0: Floats) -> Floats:
    return normed(sensitivity(m, l0), m, l0)


def _basin_decades(lrs: Floats, m: Floats, l0: Floats) -> Floats:
    return np.array([basin(lrs, row, float(start)).decades for row, start in zip(m, l0, strict=True)])


def _common(a: Cell, b: Cell) -> tuple[list[int], list[int]]:
    """Numbers of the rates that both grids hold."""
    pairs = []
    for i, lr in enumerate(a.lrs):
        near = np.flatnonzero(np.abs(b.lrs / lr - 1) <= SAME)
        if len(near):
            pairs.append((i, int(near[0])))
    return [i for i, _ in pairs], [j for _, j in pairs]


def _objective_change(a: Cell, b: Cell, seeds: Sequence[int], draws: _Draws, setup: AnalysisConfig) -> Change:
    """Best against best in the metric's own sign: means and a paired t interval over the shared seeds.

    Without two of them, or where one diverged at a best rate: medians, with the bootstrap's interval or none.
    """
    sign = 1.0 if setup.mode == "min" else -1.0
    bests = [best_rate(medians(cell.cost)) for cell in (a, b)]
    if len(seeds) > 1 and None not in bests:
        pair = [sign * cell.cost[at] for cell, at in zip((a, b), bests, strict=True)]
        known = ~np.isnan(pair[0]) & ~np.isnan(pair[1])
        change = paired_gain(pair[1], pair[0])
        if np.isfinite(pair[0][known]).all() and np.isfinite(pair[1][known]).all():
            before, after = (paired(side[known]).value for side in pair)
            unit = f"objective, mean of {plural(change.n, 'seed')}"
            return Change(name="best_objective", before=before, after=after, change=change, unit=unit)
    before, after = (sign * float(_least(medians(cell.cost))) + 0.0 for cell in (a, b))
    drawn_a, drawn_b = (_least(drawn[0]) for drawn in (draws.drawn_a, draws.drawn_b))
    low, high = interval(sign * (drawn_b - drawn_a), draws.weight) if draws.n > 1 else (math.nan, math.nan)
    change = _around(after - before, low, high, draws.n)
    return Change(name="best_objective", before=before, after=after, change=change, unit="objective, median")


def _least(m: Floats) -> Floats:
    """Least finite median of every draw, nan if there is none."""
    least = np.min(np.where(np.isfinite(m), m, np.inf), axis=-1, initial=np.inf)
    return np.where(np.isfinite(least), least, np.nan)


def _line(change: Change) -> str:
    one = change.change
    verdict = {True: "moved", False: "no clear change", None: "no interval"}[change.moved]
    if one.value == one.low == one.high == 0:
        verdict = "the same"
    if change.name == "best_lr":
        before, after = f"{change.before:.6g}", f"{change.after:.6g}"
        value, low, high = (f"{number:+.3g}" for number in (one.value, one.low, one.high))
    else:
        before, after, value, low, high = _shown(change)
        before, after = (">= " * bound + text for bound, text in zip(change.at_least, (before, after), strict=True))
    if verdict == "the same":
        value = low = high = "+0"
    spread = "" if math.isnan(one.low) else f" [{low}, {high}]"
    return f"{change.name:<17} {before} -> {after}  ({value}{spread} {change.unit}: {verdict})"


def _shown(change: Change) -> tuple[str, str, str, str, str]:
    """Before, after, change and its interval with as many decimals as the change needs, so that the shown values
    differ by the shown change; with four digits each where that would be too many."""
    one = change.change
    largest = max(abs(change.before), abs(change.after))
    if not math.isfinite(one.value) or not 0 < largest < 1e6:
        numbers = f"{change.before:.4g}", f"{change.after:.4g}"
        return *numbers, f"{one.value:+.4g}", f"{one.low:+.4g}", f"{one.high:+.4g}"
    four = 3 - math.floor(math.log10(largest))
    needed = 2 - math.floor(math.log10(abs(one.value))) if one.value else four
    places = max(0, min(max(four, needed), four + 4))
    before, after = (round(number, places) + 0.0 for number in (change.before, change.after))
    # Rounded bounds reach to the rounded change, which is that of the rounded values.
    value = round(after - before, places) + 0.0
    low, high = min(round(one.low, places), value) + 0.0, max(round(one.high, places), value) + 0.0
    numbers = f"{before:.{places}f}", f"{after:.{places}f}"
    return *numbers, f"{value:+.{places}f}", f"{low:+.{places}f}", f"{high:+.{places}f}"
