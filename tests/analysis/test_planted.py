"""Sweeps whose answers were planted, read right in every field."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrsweep import schedules
from lrsweep.analysis.analyse import analyse, facts_of
from lrsweep.analysis.caveats import caveats_of
from lrsweep.analysis.cells import PLATEAU_METRIC, config_of, tracks_of
from lrsweep.analysis.diagnosis import Curve, diagnose
from lrsweep.analysis.facts import SweepFacts
from lrsweep.analysis.summary import summary_rows
from lrsweep.objective import is_best_possible
from lrsweep.training.divergence import finite_divergence
from lrsweep.wording import advice
from lrsweep.wording.notes import notes as notes_of
from tests.support.planted_tables import (
    HALF_DECADES,
    STEPS,
    curves,
    frame,
    named,
    opening,
    run,
    said,
    spec,
    table,
    valley,
)
from tests.support.tables import summary_frame

LRS = HALF_DECADES
OFFSETS = np.array([0.0, 0.1, -0.1])
STARTS = (2.0, 2.1, 1.9)
CLIFF = 0.316228


def planted(best: float = 1e-2, cliff: float = CLIFF) -> np.ndarray:
    """A valley with its floor 0.5 at `best` that diverges from `cliff` up: values (rates, seeds)."""
    values = valley(LRS, best)[:, None] + OFFSETS
    values[np.array(LRS) >= cliff * (1 - 1e-9)] = math.nan
    return values


@pytest.fixture(scope="module")
def facts() -> SweepFacts:
    """`adam`: best 1e-2, cliff at 0.316; `sgd`: best at the top edge; `adamw`: tied with adam; `rmsprop`: dead."""
    rng = np.random.default_rng(0)
    runs = frame(
        table("adam", LRS, planted(), STARTS),
        table("sgd", LRS, planted(best=1.0, cliff=10.0), STARTS),
        table("adamw", LRS, planted() + 0.01 * rng.normal(size=(13, 3)), STARTS),
        table("rmsprop", LRS, np.full((13, 1), 2.0) + 0.2 + OFFSETS, STARTS),
    )
    later = curves(runs, lambda lr, t: t)
    return analyse(runs, later, spec("adam", "sgd", "adamw", "rmsprop"), {"adam": 1e-3, "sgd": 1e-3, "adamw": 2e-3})


def test_best_rate_and_its_objective(facts: SweepFacts) -> None:
    row = facts.row("adam")
    assert row.best_lr.value == 1e-2
    assert row.best_objective == pytest.approx(0.5)
    assert (row.best_lr.low, row.best_lr.high) == pytest.approx((10**-2.25, 10**-1.75), rel=1e-4)
    assert (row.at_edge, row.edge_side, row.trained) == (False, "", True)
    assert row.initial_objective == 2.0


def test_basin_is_where_the_formula_says(facts: SweepFacts) -> None:
    good_range = facts.row("adam").good_range
    # m = .5, .6 at the neighbours half a decade away; theta = .5 + .05 * 1.5 = .575, three quarters of the way.
    assert good_range.threshold == pytest.approx(0.575)
    assert (good_range.low, good_range.high) == pytest.approx((10**-2.375, 10**-1.625), rel=1e-5)
    assert good_range.decades == pytest.approx(0.75, rel=1e-5)
    assert not good_range.censored
    assert good_range.rates == (1e-2,)
    assert facts.row("adam").recommended_lr == 1e-2
    assert facts.row("adam").good_range_1pct.decades == pytest.approx(0.15, rel=1e-5)


def test_cliff_and_margin(facts: SweepFacts) -> None:
    margin = facts.row("adam").margins
    assert margin.diverges_from == CLIFF
    assert margin.margin == pytest.approx(1.5)
    assert not margin.censored
    assert margin.largest_safe_lr == 0.1
    assert margin.bengio_factor == pytest.approx(10)
    assert facts.row("adam").n_diverged == 6


def test_sensitivity_is_the_mean_excess(facts: SweepFacts) -> None:
    row = facts.row("adam")
    expected = np.minimum(np.r_[valley(LRS, 1e-2)[:11], 2.0, 2.0], 2.0) - 0.5
    assert row.sensitivity.whole.value == pytest.approx(expected.mean(), rel=1e-6)
    assert row.sensitivity.norm.value == pytest.approx(expected.mean() / 1.5, rel=1e-6)
    assert (row.sensitivity.range_low, row.sensitivity.range_high) == (1e-6, 1.0)
    assert row.sensitivity.whole.n == 3
    assert row.sensitivity.window < row.sensitivity.whole.value
    assert row.sensitivity.window_low <= 1e-2 <= row.sensitivity.window_high


def test_an_optimum_at_the_edge_is_called_one(facts: SweepFacts) -> None:
    row = facts.row("sgd")
    assert (row.at_edge, row.edge_side) == (True, "high")
    assert row.good_range.censored_high
    assert not row.good_range.censored_low
    assert row.recommended_lr == row.best_lr.value == 1.0
    assert "edge" in set(caveats_of(row))
    assert advice.lr_line(row) == "lr: {min: 1e-06, max: 10.0, per_decade: 2}"
    assert row.margins.censored


def test_default_rates(facts: SweepFacts) -> None:
    on_grid = facts.row("adam").default
    assert (on_grid.lr, on_grid.interpolated) == (1e-3, False)
    assert on_grid.regret == pytest.approx(0.4)
    between = facts.row("adamw").default
    assert between.interpolated
    assert 0.1 < between.regret < 0.4
    assert math.isnan(facts.row("rmsprop").default.lr)


def test_an_optimizer_that_never_trains_is_called_so(facts: SweepFacts) -> None:
    row = facts.row("rmsprop")
    assert not row.trained
    assert math.isnan(row.sensitivity.whole.value)
    assert math.isnan(row.sensitivity.norm.value)
    assert math.isnan(row.margins.margin)
    assert math.isnan(row.recommended_lr)
    assert math.isnan(row.good_range.decades)
    assert "untrained" in set(caveats_of(row))
    assert "no learning rate improved on the untrained model" in said(row)


def test_tied_rates_and_tied_optimizers(facts: SweepFacts) -> None:
    assert facts.row("adam").tied_lrs == (1e-2,)
    against = {one.optimizer: one for one in facts.against_adam}
    assert facts.adam == "adam"
    assert set(against) == {"sgd", "adamw", "rmsprop"}
    # Adam at its default 1e-3 costs 0.9; the others are at 0.5 or at 2.2.
    assert against["adamw"].verdict == "better"
    assert against["adamw"].gain.value == pytest.approx(0.4, abs=0.02)
    assert against["rmsprop"].verdict == "worse"
    assert against["sgd"].adam_objective == pytest.approx(0.9)


def test_equal_to_adam_at_its_default_is_tied() -> None:
    rng = np.random.default_rng(3)
    runs = frame(
        table("adam", LRS, planted(best=1e-3), STARTS),
        table("nadam", LRS, planted(best=1e-3) + 0.01 * rng.normal(size=(13, 3)), STARTS),
    )
    (one,) = analyse(runs, None, spec("adam", "nadam"), {"adam": 1e-3}).against_adam
    assert one.verdict == "tied"
    assert one.gain.low < 0 < one.gain.high


def test_ratios_of_best_rates(facts: SweepFacts) -> None:
    ratios = {one.optimizer: one.ratio for one in facts.ratios}
    assert ratios["sgd"].value == pytest.approx(100)
    # The seeds agree; each best rate is known to half a step of half a decade.
    assert (ratios["sgd"].low, ratios["sgd"].high) == pytest.approx((10**1.5, 10**2.5))
    assert ratios["adamw"].value == 1


def test_time_to_target(facts: SweepFacts) -> None:
    # l0 2, least 0.5 (seeds -0.1: the median run); the target is 0.65, reached only by finals below it.
    assert facts.target == pytest.approx(2 - 0.9 * 1.5, abs=0.02)
    row = facts.row("adam")
    at_best = next(point for point in row.rates if point.lr == 1e-2)
    share = (2 - facts.target) / 1.5
    first = next(step for step in STEPS if step / STEPS[-1] >= share - 1e-12)
    assert at_best.time == first
    assert at_best.arrived == 1
    assert row.targets.fastest_lr == 1e-2
    assert row.targets.finite == (pytest.approx(3.16228e-3), 1e-2, pytest.approx(3.16228e-2))
    assert row.targets.profile[-1][1] == pytest.approx(3 / 13)
    diverged = next(point for point in row.rates if point.lr == CLIFF)
    assert (diverged.time, diverged.arrived) == (math.inf, 0)


def test_a_run_that_met_the_target_and_then_diverged_never_arrived() -> None:
    runs = frame(table("adam", LRS, planted(), STARTS))
    rows = curves(runs, lambda lr, t: t)
    runs.loc[(runs["lr"] == 1e-2) & (runs["seed"] == 2), ["status", "diverged_step"]] = ["diverged", 200.0]
    (row,) = analyse(runs, rows, spec("adam"), {}).rows
    assert next(point.arrived for point in row.rates if point.lr == 1e-2) < 1


def test_grid_quality(facts: SweepFacts) -> None:
    row = facts.row("adam")
    assert row.worst_objective == math.inf
    assert row.median_objective == pytest.approx(float(np.median(np.r_[valley(LRS, 1e-2)[:11], np.inf, np.inf])))
    assert row.expected_best[0] > row.expected_best[1] > row.expected_best[-1] > 0.5
    assert len(row.expected_best) == 13


def test_headline_and_notes_say_what_a_person_would(facts: SweepFacts) -> None:
    text = " ".join([opening(facts), *notes_of(facts), *(said(row) for row in facts.rows)])
    assert "optimal" not in text
    assert "No optimizer is best everywhere" in text
    assert "best of the 13 learning rates tried with this budget (20 epochs, 3 seeds)" in said(facts.row("adam"))
    assert "diverges from 0.316 up" in said(facts.row("adam"))
    assert "widen the grid for sgd" in opening(facts)
    assert "adam 10" in text, "Bengio's factor"


# ---------------------------------------------------------------------- warnings


def kinds(values: Any, lrs: Any = LRS, *, labels: str = "adam", **options: Any) -> dict[str, str]:
    runs = frame(table(labels, lrs, values, STARTS))
    for column, value in options.items():
        runs[column] = value
    (row,) = analyse(runs, None, spec(labels), {}).rows
    return dict(advice.warnings(row))


def test_narrow_basin() -> None:
    found = kinds(planted())
    assert set(found) == {"narrow"}
    assert "lr: [" in found["narrow"]
    assert "0.00562342" in found["narrow"]


def test_a_good_grid_has_no_warning() -> None:
    assert kinds(valley(LRS, 1e-3, depth=0.05)[:, None] + OFFSETS + 0.0 * LRS[0]) == {}


def test_runs_that_end_worse_than_untrained_are_counted_and_not_called_stable() -> None:
    values = valley(LRS, 1e-3, depth=0.05)[:, None] + OFFSETS
    values[-1] = [49290.0, 1.1, 1.0]
    values[-2, 0] = 2.5
    (row,) = analyse(frame(table("adam", LRS, values, STARTS)), None, spec("adam"), {}).rows
    assert [point.n_worse for point in row.rates] == [0] * 11 + [1, 1]
    assert "it does not diverge" not in said(row)
    assert "nothing diverges up to 1, but 2 of the 18 runs above 0.001 finished worse than the untrained" in said(row)
    assert "worse_than_untrained" not in dict(advice.warnings(row)), "above every good range some runs end badly"
    values[6, 2] = 2.2
    (inside,) = analyse(frame(table("adam", LRS, values, STARTS)), None, spec("adam"), {}).rows
    warned = dict(advice.warnings(inside))["worse_than_untrained"]
    assert "3 of 39 runs finished worse than the untrained model (lr 0.001 to 1) without diverging" in warned
    assert inside.recommended_lr != 1e-3
    values[6, 2] = 0.4
    (fine,) = analyse(frame(table("adam", LRS[:9], values[:9], STARTS)), None, spec("adam"), {}).rows
    assert "it does not diverge up to 0.01" in said(fine)


def test_a_few_diverged_seeds_above_the_best_rate_are_told() -> None:
    values = valley(LRS, 1e-3, depth=0.05)[:, None] + OFFSETS
    values[-1, 0] = math.nan
    (row,) = analyse(frame(table("adam", LRS, values, STARTS)), None, spec("adam"), {}).rows
    assert math.isnan(row.margins.diverges_from)
    assert "1 of the 18 runs above 0.001 diverges, but never half of the seeds at one learning rate" in said(row)


def test_the_recommended_rate_comes_with_its_price() -> None:
    lrs = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    values = np.array([2.0, 0.09, 0.08, 0.02, 1.9])[:, None] + 0.1 * OFFSETS
    (row,) = analyse(frame(table("adam", lrs, values)), None, spec("adam"), {}).rows
    assert (row.best_lr.value, row.recommended_lr) == (0.1, 0.01)
    price = "; val_loss 0.08, against 0.02 at the best lr (0.1)."
    assert price in advice.recommendation(row, "val_loss")
    assert "the recommended 0.01 reaches 0.08, the best 0.02" in said(row)
    (same,) = analyse(frame(table("adam", lrs[1:4], values[:3])), None, spec("adam"), {}).rows
    assert same.recommended_lr == same.best_lr.value
    assert "against" not in advice.recommendation(same, "val_loss")
    assert "recommended" not in said(same)


def test_mostly_diverged() -> None:
    assert "mostly_diverged" in kinds(planted(best=1e-4, cliff=1e-3))
    assert "mostly_diverged" not in kinds(planted())


def test_where_the_grid_reaches_too_far_up_the_line_to_paste_does_not() -> None:
    """Once, in the first warning that asks for other rates: up to the first that diverges, which shows where."""
    (row,) = analyse(frame(table("adam", LRS, planted(best=1e-4, cliff=1e-3), STARTS)), None, spec("adam"), {}).rows
    lines = [(kind, text) for kind, text in advice.warnings(row) if "try `" in text]
    assert [kind for kind, _ in lines] == ["mostly_diverged"]
    assert lines[0][1].endswith(f"the grid extends too high; try `{advice.lr_line(row)}`")
    assert advice.lr_line(row).endswith("0.000177828, 0.000316228, 0.001]")
    assert "only 1 grid point in the good range" in " ".join(text for _, text in advice.warnings(row))
    gone = analyse(frame(table("adam", LRS, np.full((13, 3), math.nan))), None, spec("adam"), {}).rows[0]
    assert advice.lr_line(gone) == "lr: {min: 1e-09, max: 1e-07, per_decade: 1}"
    wide = valley(LRS, 1e-4, depth=0.05)[:, None] + OFFSETS
    wide[6:] = math.nan
    (found,) = analyse(frame(table("adam", LRS, wide, STARTS)), None, spec("adam"), {}).rows
    assert advice.lr_line(found).startswith("lr: [1e-06, ")
    assert advice.lr_line(found).endswith(", 0.001]")


def test_seeds_that_diverge_all_over_the_grid_take_no_rate_off_it() -> None:
    values = valley(LRS, 1e-3, depth=0.05)[:, None] + OFFSETS
    values[:6] = math.nan
    values[10:, 0] = math.nan
    (row,) = analyse(frame(table("adam", LRS, values, STARTS)), None, spec("adam"), {}).rows
    assert "mostly_diverged" in set(caveats_of(row))
    assert "too far up" not in " ".join(text for _, text in advice.warnings(row))
    assert str(LRS[-1]) in advice.lr_line(row)


def test_everything_diverged() -> None:
    found = kinds(np.full((13, 3), math.nan))
    assert "all_diverged" in found
    assert "lr: {min: 1e-09, max: 1e-07, per_decade: 1}" in found["all_diverged"], "none of those that diverged"


def test_failed_runs_are_counted_and_left_out() -> None:
    values: list[list[float | None]] = planted().tolist()
    values[8] = [None, *values[8][1:]]
    runs = frame(table("adam", LRS, values, STARTS))
    (row,) = analyse(runs, None, spec("adam"), {}).rows
    assert (row.n_failed, row.n_runs, row.best_lr.value) == (1, 39, 1e-2)
    assert row.best_objective == pytest.approx(0.5), "the median of .6 and .4"
    assert "failed" in set(caveats_of(row))


def test_the_untrained_value_of_a_seed_survives_a_failed_run() -> None:
    values: list[list[float | None]] = planted().tolist()
    values[0][1] = None
    runs = frame(table("adam", LRS, values, STARTS))
    runs.loc[runs["status"] == "failed", "initial_val_loss"] = math.nan
    assert analyse(runs, None, spec("adam"), {}).rows[0].initial_objective == 2.0


def test_a_rate_that_only_failed_is_no_evidence() -> None:
    values: list[list[float | None]] = planted(best=1.0, cliff=10).tolist()
    values[-1] = [None] * 3
    runs = frame(table("adam", LRS, values, STARTS))
    (row,) = analyse(runs, None, spec("adam"), {}).rows
    assert (row.best_lr.value, row.at_edge, row.edge_side) == (0.316228, True, "high")


def test_everything_failed() -> None:
    runs = frame(table("adam", LRS, [[None] * 3] * 13, STARTS))
    facts = analyse(runs, None, spec("adam"), {})
    (row,) = facts.rows
    assert (row.n_failed, row.n_runs, row.n_seeds) == (39, 39, 0)
    assert "every run failed" in said(row)
    assert summary_frame(facts).loc[0, "n_failed"] == 39


def test_flat() -> None:
    found = kinds(np.full((13, 3), 1.0) + OFFSETS)
    assert "flat" in found
    assert "few_seeds" in found


def test_short_budget() -> None:
    assert "short_budget" in kinds(valley(LRS, 1e-3, depth=0.05)[:, None] + OFFSETS, diagnosis="improving")


@pytest.mark.parametrize(
    ("metric", "best", "advised"),
    [("val_accuracy", 1.0, False), ("val_accuracy", 0.99, True), ("val_error", 0.0, False), ("val_loss", 0.0, True)],
)
def test_longer_training_is_not_advised_where_nothing_can_be_better(metric: str, best: float, advised: bool) -> None:
    assert is_best_possible(metric, best) is not advised
    (row,) = analyse(frame(table("adam", LRS, valley(LRS, 1e-3, depth=0.05)[:, None] + OFFSETS, STARTS)), None,
                     spec("adam"), {}).rows  # fmt: skip
    improving = tuple(replace(run, diagnosis="improving") for run in row.runs)
    row = replace(row, runs=improving, cannot_improve=is_best_possible(metric, best))
    assert ("short_budget" in dict(advice.warnings(row))) is advised


def test_one_seed() -> None:
    (row,) = analyse(frame(table("adam", LRS, planted()[:, :1])), None, spec("adam"), {}).rows
    assert "one_seed" in set(caveats_of(row))
    assert math.isnan(row.sensitivity.whole.low)
    assert math.isnan(row.best_lr.low)
    assert row.tied_lrs == (1e-2,)


def test_without_the_untrained_value_the_best_rate_still_stands() -> None:
    (row,) = analyse(frame(table("adam", LRS, 1 - planted())), None, spec("adam", metric="val_f1", mode="max"), {}).rows
    assert math.isnan(row.initial_objective)
    assert (row.best_lr.value, row.recommended_lr) == (1e-2, 1e-2)
    assert set(caveats_of(row)) == {"no_start"}
    assert "0.01 is the best of" in said(row)
    assert "nothing trained" not in said(row)


def test_coupled_decay_and_adadelta_are_explained() -> None:
    sweep = spec("adadelta", "adamw")
    sweep.optimizers[1].args = {"weight_decay": 0.1}
    runs = frame(*(table(label, LRS, planted(), STARTS) for label in ("adadelta", "adamw")))
    notes = " ".join(notes_of(analyse(runs, None, sweep, {})))
    assert "adamw: its weight decay (0.1)" in notes
    assert "Adadelta's lr" in notes


def test_momentum_is_read_as_a_longer_step() -> None:
    """The same valley at a tenth of the rate: lr / (1 - 0.9) is the same."""
    plain, heavy = "sgd", "sgd(momentum=0.9)"
    sweep = spec(plain, heavy, "adam")
    sweep.optimizers[1].args = {"momentum": 0.9}
    rows = (table(plain, LRS, planted(1e-2), STARTS), table(heavy, LRS, planted(1e-3), STARTS))
    notes = " ".join(notes_of(analyse(frame(*rows), None, sweep, {})))
    assert "lr / (1 - momentum): sgd at 0.01, sgd(momentum=0.9) at 0.01" in notes
    assert "lr / (1 - momentum)" not in " ".join(notes_of(analyse(frame(rows[0]), None, sweep, {})))
    sweep.optimizers[1].args = {"momentum": 0.9, "dampening": 0.9}
    assert "lr / (1 - momentum)" not in " ".join(notes_of(analyse(frame(*rows), None, sweep, {})))
    along = spec("sgd", axes={"optimizers.momentum": [0, 0.9]})
    cells = ((0.01, 0), (1e-3, 0.9))
    both = [table("sgd", LRS, planted(best), STARTS, **{"optimizers.momentum": m}) for best, m in cells]
    notes = " ".join(notes_of(analyse(frame(*both), None, along, {})))
    assert "sgd, optimizers.momentum=0 at 0.01, sgd, optimizers.momentum=0.9 at 0.01" in notes


@pytest.mark.parametrize(("args", "said"), [({}, "train_loss, its default"), ({"metric": "val_loss"}, "val_loss, not")])
def test_what_a_plateau_watches_is_told(args: dict[str, Any], said: str) -> None:
    sweep = spec("sgd", "adam")
    sweep.optimizers[0].schedule = named("plateau", factor=0.5, patience=3, **args)
    runs = frame(*(table(label, LRS, planted(), STARTS) for label in ("sgd", "adam")))
    notes = [note for note in notes_of(analyse(runs, None, sweep, {})) if "plateau" in note]
    assert len(notes) == 1
    assert notes[0].startswith(f"The plateau schedule of sgd watches {said}")
    sweep.axes = {"schedule.metric": ["train_loss", "val_loss"]}
    sweep.optimizers[0].schedule, sweep.schedule = None, named("plateau")
    assert config_of(sweep, {}).watched == {}
    assert inspect.signature(schedules.plateau).parameters["metric"].default == PLATEAU_METRIC


# ---------------------------------------------------------------------- drift


def test_best_rate_that_falls_with_the_budget_is_seen_in_the_rows() -> None:
    """Planted: after t updates the best rate is 1 / t, a slope of -1."""
    runs = frame(table("adam", LRS, np.full((13, 3), 1.0) + OFFSETS, STARTS))
    rows = curves(runs, lambda lr, t: t)
    steps = rows["step"].to_numpy(dtype=float)
    lr = rows["run_id"].str.split("|").str[1].astype(float).to_numpy()
    rows["val_loss"] = np.where(steps > 0, (np.log10(lr) + np.log10(np.maximum(steps, 1))) ** 2, 40.0)
    (drift,) = analyse(runs, rows, spec("adam"), {}).drifts
    assert (drift.against, drift.from_rows) == ("budget", True)
    assert drift.values == (10, 20, 50, 100, 200)
    assert drift.slope.value == pytest.approx(-1, abs=1e-4)


def test_a_run_counts_for_a_shorter_budget_only_before_it_diverged() -> None:
    """At 1e-2 the loss is best throughout, but the runs count as diverged from update 60 on."""
    runs = frame(table("adam", LRS, valley(LRS, 1e-2)[:, None] + OFFSETS, STARTS))
    rows = curves(runs, lambda lr, t: t)
    runs.loc[runs["lr"] == 1e-2, ["status", "diverged_step"]] = ["diverged", 60.0]
    (drift,) = analyse(runs, rows, spec("adam"), {}).drifts
    assert drift.values == (10, 20, 50, 100, 200)
    assert drift.best_lrs[:3] == (1e-2,) * 3
    assert set(drift.best_lrs[3:]) == {0.00316228}


def drift_of(*columns: list[float], lrs: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)) -> tuple[Any, str]:
    """The drift along widths 1, 10, 100, ... with these medians, and the notes of its sweep."""
    widths = [10**k for k in range(len(columns))]
    parts = [
        table("adam", lrs, np.array(column)[:, None] + 0.01 * OFFSETS, (9.0,), width=width)
        for width, column in zip(widths, columns, strict=True)
    ]
    facts = analyse(frame(*parts), None, spec("adam", axes={"width": widths}), {})
    (drift,) = facts.drifts
    return drift, " ".join(notes_of(facts))


def test_a_best_rate_that_stays_does_not_drift_because_a_neighbour_diverged() -> None:
    """The grid's best is 0.1 throughout; mixing parabolas with grid rates gave a slope."""
    calm, cliff = [2.0, 1.0, 0.1, 0.9], [2.0, 1.0, 0.1, math.nan]
    drift, notes = drift_of(calm, cliff, cliff, calm)
    assert drift.best_lrs == drift.refined_lrs == (0.1,) * 4
    assert not drift.refined
    assert drift.stays
    assert math.isnan(drift.slope.value)
    assert "no drift seen (grid step 1 decades) along width; the best learning rate stays at 0.1" in notes


def test_parabolas_serve_a_drift_where_all_neighbours_are_finite() -> None:
    falling = [2.0, 0.5, 0.1, 0.05, 0.9], [2.0, 0.3, 0.1, 0.4, 0.9], [2.0, 0.1, 0.2, 0.9, 1.9]
    drift, notes = drift_of(*falling, lrs=(1e-3, 1e-2, 1e-1, 1.0, 10.0))
    assert drift.refined
    assert drift.best_lrs == (1.0, 0.1, 0.01)
    assert drift.slope.value < 0
    # Three values two decades apart: half a decade at either end makes half a decade per decade of slope.
    assert drift.slope.low <= drift.slope.value - 0.5 + 1e-9
    assert drift.slope.high >= drift.slope.value + 0.5 - 1e-9
    assert "range over 3 seeds and half a grid step at each point" in notes
    assert "steps of the grid" not in notes


def test_a_best_rate_is_said_to_move_where_the_interval_of_its_slope_tells() -> None:
    at = [[2.0, 1.9, 1.8, 0.1, 1.9], [2.0, 1.9, 0.1, 1.8, 1.9], [2.0, 0.1, 1.8, 1.9, 1.95]]
    drift, notes = drift_of(*at, lrs=(1e-3, 1e-2, 1e-1, 1.0, 10.0))
    assert drift.slope.high < 0
    assert "adam: the best learning rate moves by -0.98 decades per decade of width [-1.5, -0.48]" in notes
    drift, notes = drift_of(at[1], at[0], at[1], at[1], lrs=(1e-3, 1e-2, 1e-1, 1.0, 10.0))
    assert drift.slope.low < 0 < drift.slope.high
    assert "adam: no clear drift along width: slope -0.097 decades per decade [-0.5, +0.3]" in notes
    assert "moves by" not in notes


def test_a_best_rate_at_the_edge_of_the_grid_is_left_out_of_the_drift() -> None:
    rising, inner = [2.0, 1.0, 0.5, 0.1], [2.0, 1.0, 0.1, 0.9]
    drift, notes = drift_of(rising, inner, inner, inner)
    assert math.isnan(drift.refined_lrs[0])
    assert drift.n_used == 3
    assert drift.stays
    assert "1 of 4 left out" in notes
    two, notes = drift_of(rising, inner, [2.0, 0.1, 0.5, 0.9])
    assert "the best learning rate may move along width: slope -" in notes
    assert "from too few points for an interval" in notes
    assert two.slope.value == pytest.approx(-1, abs=0.4)
    assert math.isnan(two.slope.low)
    one, notes = drift_of(rising, rising, inner)
    assert math.isnan(one.slope.value)
    assert "decades per decade of width" not in notes


def test_no_drift_from_rows_where_the_schedule_knows_its_end() -> None:
    runs = frame(table("adam", LRS, planted(), STARTS))
    rows = curves(runs, lambda lr, t: t)
    assert analyse(runs, rows, spec("adam", schedule="cosine"), {}).drifts == ()
    warm = spec("adam")
    warm.schedule = named("constant", warmup=0.1)
    assert analyse(runs, rows, warm, {}).drifts == ()
    warm.schedule = named("constant", warmup=10)
    assert len(analyse(runs, rows, warm, {}).drifts) == 1
    own = spec("adam")
    own.optimizers[0].schedule = named("linear")
    assert analyse(runs, rows, own, {}).drifts == ()


def test_best_rate_along_an_axis() -> None:
    """Planted: ten times the width, a tenth of the best rate."""
    parts = [
        table(label, LRS, valley(LRS, best)[:, None] + OFFSETS, STARTS, **{"model.width": width})
        for label in ("adam", "sgd")
        for width, best in ((10, 1e-1), (100, 1e-2), (1000, 1e-3))
    ]
    facts = analyse(frame(*parts), None, spec("adam", "sgd", axes={"model.width": [10, 100, 1000]}), {})
    assert [row.axes for row in facts.rows][:3] == [{"model.width": text} for text in ("10", "100", "1000")]
    adam, sgd = facts.drifts
    assert (adam.optimizer, sgd.optimizer, adam.against) == ("adam", "sgd", "model.width")
    assert adam.best_lrs == (1e-1, 1e-2, 1e-3)
    assert adam.slope.value == pytest.approx(-1, abs=1e-6)
    assert (adam.slope.low, adam.slope.high) == pytest.approx((-1.25, -0.75), abs=1e-4)
    assert len(facts.ratios) == 3


def test_axes_that_are_no_numbers_have_no_drift() -> None:
    parts = [table("adam", LRS, planted(), STARTS, schedule=name) for name in ("constant", "cosine")]
    facts = analyse(frame(*parts), None, spec("adam", axes={"schedule": ["constant", "cosine"]}), {})
    assert facts.drifts == ()
    assert [row.title for row in facts.rows] == ["adam, schedule=constant", "adam, schedule=cosine"]


def test_axis_values_keep_the_text_of_the_spec_when_they_come_back_as_numbers() -> None:
    parts = [table("adam", LRS, planted(), STARTS, decay=value) for value in (0.0, 0.1, 1e-5)]
    facts = analyse(frame(*parts), None, spec("adam", axes={"decay": [0, 0.1, 1e-5]}), {})
    assert [row.axes["decay"] for row in facts.rows] == ["0", "0.1", "1e-05"]


# ---------------------------------------------------------------------- directions and costs


def test_a_diverged_run_with_a_fine_last_loss_never_wins() -> None:
    runs = frame(table("adam", LRS, planted(), STARTS))
    top = runs["lr"] == 1.0
    runs.loc[top, ["objective", "final_val_loss"]] = -100.0
    (row,) = analyse(runs, None, spec("adam"), {}).rows
    assert row.best_lr.value == 1e-2
    assert row.rates[-1].objective == math.inf


def test_accuracy_is_maximised_and_shown_with_its_own_sign() -> None:
    runs = frame(table("adam", LRS, 1 - planted() / 4, STARTS))
    rows = curves(runs, lambda lr, t: t)
    rows["val_accuracy"] = np.where(rows["step"] == 0, 0.3, 0.5)
    (row,) = analyse(runs, rows, spec("adam", metric="val_accuracy", mode="max"), {"adam": 1e-3}).rows
    assert row.best_lr.value == 1e-2
    assert row.best_objective == pytest.approx(0.875)
    assert row.initial_objective == pytest.approx(0.3)
    assert row.good_range.threshold == pytest.approx(0.875 - 0.05 * 0.575)
    assert row.default.regret == pytest.approx(0.1)
    assert row.rates[-1].objective == -math.inf
    assert row.worst_objective == -math.inf


def test_mode_of_the_spec_wins_over_the_name_of_the_metric() -> None:
    (row,) = analyse(frame(table("adam", LRS, -planted(), (-2.0,))), None, spec("adam", mode="max"), {}).rows
    assert row.best_lr.value == 1e-2
    assert row.best_objective == pytest.approx(-0.5)


def test_summary_rows_are_plain_values() -> None:
    runs = frame(table("adam", LRS, planted(), STARTS))
    header, (row,) = summary_rows(analyse(runs, None, spec("adam"), {"adam": 1e-3}))
    assert list(row) == header
    assert summary_rows(analyse(runs[:0], None, spec("adam"), {"adam": 1e-3})) == (header, [])
    assert {type(value) for value in row.values()} <= {str, bool, int, float}


def test_facts_of_skips_unknown_runs_in_the_curves() -> None:
    runs = frame(table("adam", LRS, planted(), STARTS))
    rows = curves(runs, lambda lr, t: t)
    half = rows[rows["run_id"].str.endswith("|0|[]")]
    facts = facts_of(runs, tracks_of(half, "val_loss"), config_of(spec("adam"), {}))
    assert facts.rows[0].rates[8].arrived == 1


# ---------------------------------------------------------------------- diagnosis


def test_planted_shapes_are_diagnosed() -> None:
    """Along the rates: crawling, falling, arrived, spike that came back, oscillation, climbing."""
    k = np.arange(41)
    fall = 0.1 + 1.9 * np.exp(-k / 3)
    spike = np.r_[2.0, 1.0, 6.0, 4.0, fall[4:]]
    wobble = np.r_[2.0, 0.6 + 0.3 * (-1.0) ** k[1:]]
    shapes = [2.0 - 0.001 * k, 2.0 - 0.03 * k, fall, spike, wobble, 2.0 * 1.05**k]
    curves = []
    for lr, y in zip((1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 1.0), shapes, strict=True):
        status = "diverged" if finite_divergence(range(41), y.tolist(), y.tolist()) else "ok"
        curves += [Curve(lr=lr, seed=seed, status=status, train_loss=(y + 0.1 * seed).tolist()) for seed in range(3)]
    labels = ["too_slow", "improving", "converged", "recovered_spike", "oscillating", "diverged"]
    assert diagnose(curves) == [label for label in labels for _ in range(3)]


# ---------------------------------------------------------------------- coverage


@pytest.mark.parametrize(
    ("per_decade", "noise", "heavy"),
    [(1, 0.1, False), (2, 0.05, False), (2, 0.3, False), (4, 0.1, False), (2, 0.1, True)],
)
def test_interval_of_the_best_rate_covers_the_planted_one(per_decade: int, noise: float, heavy: bool) -> None:
    """Three seeds, an optimum anywhere between the rates: the 95 % interval holds it in at least 90 % of 150 sweeps."""
    rng = np.random.default_rng(7)
    lrs = [float(f"{10 ** (k / per_decade - 6):.6g}") for k in range(6 * per_decade + 1)]
    covered = 0
    tables, places = [], []
    for trial in range(150):
        place = rng.uniform(-3.5, -1.5)
        errors = rng.standard_t(3, size=(len(lrs), 3)) if heavy else rng.normal(size=(len(lrs), 3))
        values = 0.5 + (np.log10(lrs)[:, None] - place) ** 2 + noise * errors + 0.3 * rng.normal(size=3)
        values[np.log10(lrs) > place + 1.2] = math.nan
        tables.append([{**row, "trial": trial} for row in table("adam", lrs, values, (20.0,))])
        places.append(place)
    facts = analyse(frame(*tables), None, spec("adam", axes={"trial": list(range(150))}), {})
    for row, place in zip(facts.rows, places, strict=True):
        covered += row.best_lr.low <= 10**place <= row.best_lr.high
    assert covered >= 0.9 * 150


def test_the_helper_counts_a_run_once() -> None:
    assert run("adam", 0.1, 0, 1.0)["run_id"] != run("adam", 0.1, 1, 1.0)["run_id"]


def test_a_best_rate_too_noisy_to_judge_does_not_hide_that_others_trained() -> None:
    """At the highest rate the evaluations jump by far more than the gain; at 1e-2 they fall from 2 to 0.5."""
    lrs = [1e-3, 1e-2, 1e-1, 1.0]
    runs = frame(table("adam", lrs, np.array([[1.5], [0.5], [0.9], [0.1]]) + 0.01 * np.arange(3), STARTS))
    later = curves(runs, lambda lr, t: t)
    wild = later["run_id"].isin(runs[runs["lr"] == 1.0]["run_id"]) & (later["step"] > 0)
    later.loc[wild, "val_loss"] += 100 * (-1.0) ** np.arange(wild.sum())
    (row,) = analyse(runs, later, spec("adam"), {}).rows
    assert row.best_lr.value == 1.0
    assert row.trained
    assert "no learning rate improved" not in said(row)
    later.loc[later["step"] > 0, "val_loss"] += 100 * (-1.0) ** np.arange((later["step"] > 0).sum())
    (noisy,) = analyse(runs, later, spec("adam"), {}).rows
    assert not noisy.trained, "none can be told from noise"


def test_sensitivity_is_over_the_rates_that_have_results() -> None:
    """Rates whose runs failed stretch neither the range of S nor the window of three decades."""
    lrs = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    values = [[2.0, 2.0], [1.5, 1.5], [1.0, 1.0], [0.5, 0.5], [0.8, 0.8]]
    holes: list[list[Any]] = [[None, None], [None, None], *values[2:]]
    (whole,) = analyse(frame(table("adam", lrs, values)), None, spec("adam"), {}).rows
    (part,) = analyse(frame(table("adam", lrs, holes)), None, spec("adam"), {}).rows
    assert (whole.sensitivity.range_low, whole.sensitivity.window_low) == (1e-5, 1e-4)
    assert (part.sensitivity.range_low, part.sensitivity.range_high) == (1e-3, 1e-1)
    assert math.isnan(part.sensitivity.window)
    (alone,) = analyse(frame(table("adam", [1e-2], [[0.5, 0.5]])), None, spec("adam"), {}).rows
    assert math.isnan(alone.sensitivity.whole.value), "one rate is not sensitive to anything"
    assert "only learning rate tried, with" in said(alone)
    (other,) = analyse(frame(table("adam", [1e-2, 1e-1], [[0.5, 0.5], [None, None]])), None, spec("adam"), {}).rows
    assert "only learning rate tried that did not fail" in said(other)
