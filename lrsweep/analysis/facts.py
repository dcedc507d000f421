"""What a sweep shows, as frozen facts: computed once from the tables, then drawn, printed, compared and checked.

Conventions of every field:

- a learning rate is the run's own `lr` (before any schedule factor); widths and margins are in decades (log10);
- an *objective* has the metric's own sign and units; the median over seeds of a rate where half or more of the
  seeds diverged is +inf for a minimised metric and -inf for a maximised one;
- *differences* (sensitivity, regret, gains) are costs, smaller is better, in the units of the objective;
- nan means "not defined here" (nothing trained, one seed, outside the grid), never zero;
- failed runs are counted in `n_failed` and left out of everything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lrsweep.errors import on_one_line
from lrsweep.objective import Mode, cost

EdgeSide = Literal["", "low", "high", "both"]
RecommendedBy = Literal["centre", "edge", "failed_edge", "no_clean_rate", "no_start", "nothing"]
"""Why a rate is recommended: `centre`, it is the nearest to the centre of the good range; else the best one, since
the good range reaches the end of the grid (`edge`) or rates whose runs failed (`failed_edge`), since some seed diverged
or lost half of the gain at each of its rates (`no_clean_rate`), or since there is none without the untrained model's
value (`no_start`)."""
Standing = Literal["better", "worse", "tied", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A number with its interval over `n` seeds; `low` and `high` are nan where there is none (one seed).

    From 5 seeds on it is a 95 % interval; below it covers less and is called a range over n seeds
    (`words.interval_name`).
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How long each run trains: so many `epochs` or `updates`."""

    amount: int
    unit: Literal["epochs", "steps"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPoint:
    """One run: a dot of the U-curve. `objective` is as found, `nan` and `inf` included."""

    run_id: str
    lr: float
    seed: int
    status: str
    diagnosis: str
    objective: float
    diverged_step: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RatePoint:
    """One rate of one optimizer over its seeds.

    `objective` is the median over seeds, `best` and `worst` the extremes of the finite ones (nan if none). `time` is
    the median number of updates to the sweep's target (+inf: not reached by half of the seeds; nan: no target),
    `arrived` the share of seeds that reached it. `n_worse` counts the runs that are `ok` and yet end worse than the
    untrained model of their seed, by more than rounding and noise.
    """

    lr: float
    objective: float
    best: float
    worst: float
    n_runs: int
    n_ok: int
    n_diverged: int
    n_failed: int
    n_worse: int
    in_good_range: bool
    tied: bool
    time: float
    arrived: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """Learning-rate sensitivity S of Wortsman et al. 2023 (arXiv:2309.14322), section 2.2.

    `whole` is S over the whole grid `range_low`..`range_high`; `norm` the same over l0 - l*, in [0, 1]. `window` is
    the least S over windows of exactly three decades that contain the best rate, and where that window lies;
    `window_interval` is that over the seeds, for the window where it lies.
    """

    whole: Interval
    norm: Interval
    range_low: float
    range_high: float
    window: float
    window_low: float
    window_high: float
    window_interval: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class GoodRange:
    """The rates around the best one that keep all but `share` of the gain over the untrained model.

    `threshold` is an objective. A censored side ends with the grid; one with a cliff ends at the last rate before one
    that diverged, with nothing tried between them. In both cases read `decades` as "at least".
    """

    share: float
    threshold: float
    low: float
    high: float
    decades: float
    censored_low: bool
    censored_high: bool
    cliff_low: bool
    cliff_high: bool
    rates: tuple[float, ...]

    @property
    def censored(self) -> bool:
        return self.censored_low or self.censored_high

    @property
    def at_least(self) -> bool:
        """Whether `decades` is a lower bound."""
        return self.censored or self.cliff_low or self.cliff_high


@dataclass(frozen=True, kw_only=True, slots=True)
class Margins:
    """How far the best rate is from where training fails.

    `unusable_from`: smallest rate above the best where the median loses half of the gain or more, diverged or not; nan
    if none. `margin`: decades from the best rate to it; if `censored`, to the top of the grid: read "at least".
    `diverges_from`: smallest rate above the best where at least half of the seeds diverged, nan if none.
    `largest_safe_lr`: largest rate below both at which no seed diverged or lost half of the gain.
    `bengio_factor`: largest rate that does not diverge over the best one (Bengio 2012: often within 2).
    """

    unusable_from: float
    diverges_from: float
    margin: float
    censored: bool
    largest_safe_lr: float
    bengio_factor: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AtDefault:
    """The optimizer at torch's own default rate. `interpolated`: that rate is not on the grid, the value is read
    between its neighbours. `regret` is +inf if it diverges there."""

    lr: float
    objective: float
    regret: float
    interpolated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Time to the sweep's target (an objective), in updates.

    `finite` are the rates where the median run arrives, `within_2x` those that need at most twice the least time.
    `profile` holds the steps (tau, share of the grid that needs at most tau times the least time), tau rising from 1.
    """

    target: float
    least_time: float
    fastest_lr: float
    finite: tuple[float, ...]
    within_2x: tuple[float, ...]
    profile: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerFacts:
    """Everything about one optimizer at one set of axis values: a row of summary.csv, a U-curve.

    `axes` maps each axis to its text as in the tables. `momentum` is that of SGD, nan for others. `best_lr` carries an
    interval over seeds (see `tied.best_lr_interval`), and so does `good_range_decades`. Where the gain is immaterial
    (`trained.Middle` says when), `trained` is False and all that is made from the gain is undefined.
    `rates_too_small`: the cost still falls in proportion to the rate at the top of the grid. `test_at_recommended` is
    the median of the metric on the test split at the recommended rate. `expected_best[k - 1]` is the objective expected
    from the best of k rates drawn at random from the grid. `median_objective` and `worst_objective` are over the rates
    of the grid. `diagnoses` counts the labels of the runs, most frequent first.
    """

    optimizer: str
    name: str
    axes: dict[str, str]
    momentum: float
    n_rates: int
    n_seeds: int
    n_runs: int
    n_ok: int
    n_diverged: int
    n_failed: int
    rates: tuple[RatePoint, ...]
    runs: tuple[RunPoint, ...]
    initial_objective: float
    trained: bool
    rates_too_small: bool
    best_lr: Interval
    best_objective: float
    at_edge: bool
    edge_side: EdgeSide
    recommended_lr: float
    recommended_by: RecommendedBy
    sensitivity: Sensitivity
    good_range: GoodRange
    good_range_1pct: GoodRange
    good_range_decades: Interval
    margins: Margins
    default: AtDefault
    test_at_recommended: float
    tied_lrs: tuple[float, ...]
    targets: Targets
    expected_best: tuple[float, ...]
    median_objective: float
    worst_objective: float
    cannot_improve: bool = False
    diagnoses: tuple[tuple[str, int], ...]

    @property
    def title(self) -> str:
        """`adam` or `adam, train.batch_size=16`."""
        return full_title(self.optimizer, self.axes)

    def lost_share(self, objective: float) -> float:
        """The share of the gain over the untrained model that an objective loses against the best one; +inf where it
        diverged."""
        gain = abs(self.initial_objective - self.best_objective)
        return abs(objective - self.best_objective) / gain if math.isfinite(objective) else math.inf

    def best_of(self, tries: int) -> float:
        """The objective expected from the best of so many rates drawn at random from the grid; nan if not known."""
        return self.expected_best[tries - 1] if tries <= len(self.expected_best) else math.nan

    @property
    def recommended_objective(self) -> float:
        """The median objective at the recommended rate; nan without one."""
        return next((point.objective for point in self.rates if point.lr == self.recommended_lr), math.nan)

    @property
    def still_improving(self) -> tuple[int, int]:
        """How many of the `ok` runs in the good range were still improving, and of how many."""
        good = [run.diagnosis for run in self.runs if run.lr in self.good_range.rates and run.status == "ok"]
        return good.count("improving"), len(good)

    @property
    def failed_lrs(self) -> tuple[float, ...]:
        """The rates at which every run failed: they have no result."""
        return tuple(point.lr for point in self.rates if point.n_runs == point.n_failed)

    @property
    def open_ends(self) -> frozenset[str]:
        """The ends of the grid ("low", "high") that the best rate or the good range touches, failed rates aside."""
        low = self.edge_side in ("low", "both") or self.good_range.censored_low
        high = self.edge_side in ("high", "both") or self.good_range.censored_high
        return frozenset(side for side, touched in (("low", low), ("high", high)) if touched)

    @property
    def holds_rate(self) -> bool:
        """True if the sweep studies its axes at one learning rate, which then is no grid to be warned about."""
        return self.n_rates == 1 and bool(self.axes)

    @property
    def failed_ends(self) -> frozenset[str]:
        """The ends of the grid whose outermost rate only failed."""
        failed = set(self.failed_lrs)
        ends = (("low", self.rates[0]), ("high", self.rates[-1])) if self.rates else ()
        return frozenset(side for side, point in ends if point.lr in failed)

    @property
    def broken_start(self) -> bool:
        """True if every run was over at row 0: the untrained model's loss is not finite, whatever the rate."""
        alive = [run for run in self.runs if run.status != "failed"]
        return bool(alive) and all(run.status == "diverged" and run.diverged_step == 0 for run in alive)

    @property
    def cliff_below(self) -> float:
        """The tried rate next to the good range's lower end if half or more of its seeds diverged, else nan."""
        return self._cliff(-1)

    @property
    def cliff_above(self) -> float:
        """The same at the upper end: the good range then ends somewhere between its last rate and this one."""
        return self._cliff(+1)

    def _cliff(self, side: int) -> float:
        tried = [point for point in self.rates if point.n_runs > point.n_failed]
        if side < 0:
            tried.reverse()
        inside = [k for k, point in enumerate(tried) if point.in_good_range]
        if not inside or inside[-1] + 1 == len(tried) or not math.isinf(tried[inside[-1] + 1].objective):
            return math.nan
        return tried[inside[-1] + 1].lr


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """How the best rate of an optimizer moves with `against` (`budget`, or an axis), in decades per decade.

    `values` are updates or axis values, `best_lrs` the grid's best rates there, `refined_lrs` what `slope` is fitted
    to: nan where the best rate is at an edge of the grid (censored) or missing; the rest read off parabolas through the
    best rate and its neighbours if all of them have finite neighbours (`refined`), else the grid's best rates. The
    slope needs two such values, its interval three. `fixed` holds the other axes.
    `from_rows`: the shorter budgets are earlier rows of the same runs. `stays`: the best grid rate is the same
    throughout, to `grid_step` decades, and there is no slope. The interval of a slope allows for half a grid step at
    every value.
    """

    optimizer: str
    against: str
    fixed: dict[str, str]
    values: tuple[float, ...]
    best_lrs: tuple[float, ...]
    refined_lrs: tuple[float, ...]
    refined: bool
    slope: Interval
    from_rows: bool
    stays: bool
    grid_step: float

    @property
    def n_used(self) -> int:
        """How many of `values` the slope is fitted to."""
        return sum(map(math.isfinite, self.refined_lrs))


@dataclass(frozen=True, kw_only=True, slots=True)
class AgainstAdam:
    """The best of one optimizer against Adam at its default rate, seed by seed, on the same axis values.

    `gain` is Adam's cost less this optimizer's (positive: better than Adam at its default), mean over paired seeds
    with a t interval, whose lower end allows for the best rate being chosen by the same seeds. `verdict` is `better`,
    `worse` or `tied`.
    """

    optimizer: str
    axes: dict[str, str]
    best_lr: float
    best_objective: float
    adam_lr: float
    adam_objective: float
    gain: Interval
    verdict: Standing


@dataclass(frozen=True, kw_only=True, slots=True)
class RateRatio:
    """Best rate of `optimizer` over the best rate of `reference` (the first optimizer of the spec)."""

    optimizer: str
    reference: str
    axes: dict[str, str]
    ratio: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepFacts:
    """The whole sweep. `rows` follow the spec's order of optimizers, then axis values.

    `budget` is None where an axis varies it. `adam` names the optimizer of `against_adam` ("" if Adam is not in the
    sweep). `target` is the objective that `time` counts to. By label of the optimizer, `coupled_decay` holds the weight
    decay where it is multiplied by the rate and `plateau_metrics` what a plateau schedule watches.
    """

    name: str
    metric: str
    at: str
    mode: Mode
    budget: Budget | None
    axes: tuple[str, ...]
    n_runs: int
    n_diverged: int
    n_failed: int
    seeds: tuple[int, ...]
    target: float
    rows: tuple[OptimizerFacts, ...]
    drifts: tuple[Drift, ...]
    adam: str
    against_adam: tuple[AgainstAdam, ...]
    ratios: tuple[RateRatio, ...]
    coupled_decay: Mapping[str, float]
    plateau_metrics: Mapping[str, str]

    @property
    def trained(self) -> bool:
        """True if any optimizer improved materially on the untrained model."""
        return any(row.trained for row in self.rows)

    @property
    def one_rate(self) -> bool:
        """True if all of it studies its axes at one learning rate."""
        return bool(self.rows) and all(row.holds_rate for row in self.rows)

    @property
    def all_failed(self) -> bool:
        """True if there were runs and every one of them failed."""
        return self.n_runs == self.n_failed > 0

    def row(self, optimizer: str, axes: dict[str, Any] | None = None) -> OptimizerFacts:
        """The row of an optimizer (and axis values, as text); KeyError if there is none."""
        for row in self.rows:
            if row.optimizer == optimizer and (axes is None or row.axes == axes):
                return row
        raise KeyError(f"no row for {optimizer} {axes or ''}; there are: {', '.join(r.title for r in self.rows)}")


LONGEST_NAME = 60
"""Characters of a label or of an axis value in tables, plots and sentences; CSV files have all of them."""


def shortened(text: str) -> str:
    """`text` on one line, without its middle where it is long."""
    text = on_one_line(text)
    if len(text) <= LONGEST_NAME:
        return text
    head = LONGEST_NAME * 2 // 3
    return f"{text[:head]}…{text[head + 1 - LONGEST_NAME :]}"


def full_title(optimizer: str, axes: Mapping[str, str]) -> str:
    """`adam` or `adam, train.batch_size=16`."""
    return ", ".join([shortened(optimizer), *(f"{axis}={shortened(value)}" for axis, value in axes.items())])


def cost_span(rows: Sequence[OptimizerFacts], mode: Mode) -> tuple[float, float]:
    """Costs of the best median of `rows` and of their untrained model, or of the worst finite median if that is not
    above."""
    medians = [cost(point.objective, mode) for row in rows for point in row.rates if math.isfinite(point.objective)]
    starts = [cost(row.initial_objective, mode) for row in rows if math.isfinite(row.initial_objective)]
    low = min(medians, default=0.0)
    high = max(starts, default=low)
    return low, high if high > low else max(medians, default=low)
