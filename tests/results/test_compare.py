"""Two sweeps side by side, and the verdict for CI."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrsweep.analysis.analyse import analyse
from lrsweep.analysis.cells import cells_of, config_of, tracks_of
from lrsweep.errors import UsageError
from lrsweep.results import tables
from lrsweep.results.compare import Change, Comparison, Limits, Side, check, check_summary, compare, compare_sides
from lrsweep.wording.comparison import SUMMARY_NOTE
from tests.support import tables as fabricate
from tests.support.planted_tables import HALF_DECADES, curves, frame, spec, table, valley

LRS = HALF_DECADES
OFFSETS = np.array([0.0, 0.1, -0.1])
STARTS = (2.0, 2.1, 1.9)


def values(best: float, *, floor: float = 0.5, depth: float = 0.4, seeds: int = 3, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(5)
    return valley(LRS, best, floor=floor, depth=depth)[:, None] + OFFSETS[:seeds] + noise * rng.normal(size=(13, seeds))


def side(name: str, *tables: list[dict[str, Any]], **options: Any) -> Side:
    runs = frame(*tables)
    labels = list(dict.fromkeys(runs["optimizer"]))
    config = config_of(spec(*labels, **options), {})
    later = curves(runs, lambda lr, t: t)
    return Side(name=name, config=config, cells=tuple(cells_of(runs, tracks_of(later, config.metric), config)))


def change_of(found: Comparison, name: str, row: int = 0) -> Change:
    return next(change for change in found.rows[row].changes if change.name == name)


def test_what_moved_is_told_with_its_size() -> None:
    before = side("A", table("adam", LRS, values(1e-2, noise=0.005), STARTS))
    after = side("B", table("adam", LRS, values(1e-3, floor=0.3, depth=0.1, noise=0.005), STARTS))
    found = compare_sides(before, after)
    assert found.rows[0].paired == 3
    best = change_of(found, "best_lr")
    assert (best.before, best.after, best.unit) == (1e-2, 1e-3, "decades")
    assert best.change.value == pytest.approx(-1)
    assert best.moved
    objective = change_of(found, "best_objective")
    assert objective.change.value == pytest.approx(-0.2, abs=0.02)
    assert objective.change.low < -0.2 < objective.change.high < 0
    s = change_of(found, "sensitivity")
    assert s.after < s.before
    assert s.change.value == pytest.approx(s.after - s.before, abs=0.01)
    assert s.moved
    good_range = change_of(found, "basin_decades")
    assert good_range.after > good_range.before
    assert good_range.moved


def test_what_the_grid_cut_off_is_cautioned_about() -> None:
    """A's best is the top of its grid, and what it says of the width is what was seen of it."""
    inside = table("adam", LRS, values(1e-2), STARTS)
    other = table("adam", LRS, values(1e-2, noise=0.002), STARTS)
    cut = [row for row in other if row["lr"] <= 1e-2]
    found = compare_sides(side("A", cut), side("B", inside))
    (caution,) = (line for line in found.text().split("\n") if "Caution" in line)
    assert "A's best learning rate is the highest of those compared" in caution
    assert "A's good range may extend past its grid" in caution
    assert "B's" not in caution
    (width,) = (line for line in found.text().split("\n") if "basin_decades" in line)
    assert re.match(r" *basin_decades +>= \S+ -> >= \d", width), "over the rates that both have"
    assert found.rows[0].at_least == (True, False)
    whole = compare_sides(side("A", inside), side("B", inside)).text()
    assert "Caution" not in whole
    assert ">=" not in whole
    low = [row for row in inside if row["lr"] >= 1e-2]
    assert (
        "B's best learning rate is the lowest of those compared"
        in compare_sides(side("A", inside), side("B", low)).text()
    )


def test_numbers_agree_with_the_summary() -> None:
    tables = [table(label, LRS, values(best, noise=0.01), STARTS) for label, best in (("adam", 1e-2), ("sgd", 0.1))]
    summary = fabricate.summary_frame(analyse(frame(*tables), None, spec("adam", "sgd"), {}))
    found = compare_sides(side("A", *tables), side("B", *tables))
    for number, row in enumerate(found.rows):
        for name in ("best_lr", "best_objective", "sensitivity", "sensitivity_norm", "basin_decades"):
            expected = summary.loc[number, name]
            assert change_of(found, name, number).before == pytest.approx(expected)
        assert row.title == summary.loc[number, "optimizer"]


def test_a_sweep_compared_with_itself_did_not_move() -> None:
    one = side("A", table("adam", LRS, values(1e-2, noise=0.1), STARTS))
    found = compare_sides(one, one)
    for change in found.rows[0].changes:
        assert (change.change.value, change.change.low, change.change.high) == (0, 0, 0), change.name
        assert not change.moved
    assert "identical" in found.text()


def test_paired_seeds_see_through_what_the_seeds_share() -> None:
    """Seeds differ by 1, the change is 0.1: paired by seed it stands out, unpaired it drowns."""
    wide = np.array([0.0, 1.0, -1.0])
    base = valley(LRS, 1e-2)[:, None] + wide
    before = side("A", table("adam", LRS, base, (9.0,)))
    after = side("B", table("adam", LRS, base - 0.1 + 0.001 * wide, (9.0,)))
    assert change_of(compare_sides(before, after), "best_objective").moved
    rows = table("adam", LRS, base - 0.1 + 0.001 * wide, (9.0,))
    other = side("B", [{**row, "seed": row["seed"] + 10} for row in rows])
    found = compare_sides(before, other)
    assert found.rows[0].paired == 0
    assert not change_of(found, "best_objective").moved
    assert change_of(found, "best_objective").change.n == 3


def test_seeds_that_only_one_sweep_has_change_nothing() -> None:
    """A third, bad seed in B alone would move every median of it."""
    before = side("A", table("adam", LRS, values(1e-2, seeds=2), STARTS[:2]))
    more = np.concatenate([values(1e-2, seeds=2) + 0.01, np.full((len(LRS), 3), 1.9)], axis=1)
    after = side("B", table("adam", LRS, more, (*STARTS[:2], 5.0, 5.0, 5.0)))
    fewer = side("B", table("adam", LRS, more[:, :2], STARTS[:2]))
    found = compare_sides(before, after)
    assert repr(found.rows[0].changes) == repr(compare_sides(before, fewer).rows[0].changes)
    assert "adam (2 paired seeds; A has 2, B has 5)" in found.text()
    assert "adam (2 paired seeds)" in compare_sides(before, fewer).text()
    assert found.rows[0].paired == 2
    assert "The seeds differ" in found.text()
    assert {change.verdict for change in found.rows[0].changes} <= {"identical", "too few seeds to tell"}


def shown(text: str) -> dict[str, list[float]]:
    """The numbers of every line of a comparison by name: before, after, change, low, high."""
    lines = [line for line in text.splitlines() if " -> " in line and line.startswith("  ") and "(" in line]
    pattern = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
    return {line.split()[0]: [float(n) for n in re.findall(pattern, line.split(maxsplit=1)[1])[:5]] for line in lines}


@pytest.mark.parametrize("draw", range(20))
def test_numbers_that_differ_are_shown_as_different_and_a_change_lies_in_its_interval(draw: int) -> None:
    rng = np.random.default_rng(draw)
    seeds = int(rng.integers(3, 8))
    tables = [
        table("adam", LRS, valley(LRS, 1e-2)[:, None] + scale * rng.standard_cauchy(size=(13, seeds)), (9.0,))
        for scale in rng.choice([1e-6, 1e-3, 0.1], size=2)
    ]
    found = compare_sides(side("A", *tables[:1]), side("B", *tables[1:]))
    for name, (before, after, change, low, high) in shown(found.text()).items():
        one = change_of(found, name)
        assert (before == after) == (one.before == one.after), name
        assert low <= change <= high, name


def test_both_sides_are_medians_and_the_change_is_over_the_seeds() -> None:
    """The median falls by 0.01 while the mean rises by 0.3: no claim."""
    a, b = np.full((13, 3), 1.5), np.full((13, 3), 1.5)
    a[8], b[8] = [0.5, 0.4, 0.6], [0.49, 0.39, 1.52]
    found = compare_sides(side("A", table("adam", LRS, a)), side("B", table("adam", LRS, b)))
    one = change_of(found, "best_objective")
    assert (one.before, one.after) == (0.5, 0.49)
    assert one.change.value == pytest.approx(0.88 / 3), "0.9 at the third seed, whose best is now 1.5"
    assert one.verdict == "no clear change"
    (line,) = (line for line in found.text().split("\n") if "best_objective" in line and "->" in line)
    assert "0.5 -> 0.49 " in line
    assert "range over 3 seeds" in line
    assert "95 %" not in found.text(), "three seeds do not carry the name"
    more = [np.concatenate([one, one + 0.001], axis=1) for one in (a, b)]
    text = compare_sides(*(side(name, table("adam", LRS, y)) for name, y in zip("AB", more, strict=True))).text()
    assert "95 % interval" in text


def test_a_comparison_says_in_one_sentence_what_changed_and_as_json() -> None:
    before = side("A", table("adam", LRS, values(1e-2, noise=0.005), STARTS))
    after = side("B", table("adam", LRS, values(1e-2, floor=0.3, noise=0.006), STARTS))
    found = compare_sides(before, after)
    assert "adam (3 paired seeds): changed: best_objective" in found.text()
    told = json.loads(json.dumps(found.as_json()))
    (row,) = told["rows"]
    verdicts = {one["name"]: one["verdict"] for one in row["changes"]}
    assert verdicts["best_objective"] == "changed"
    assert verdicts["best_lr"] == "identical"
    assert not told["identical"]
    same = compare_sides(before, before)
    assert same.as_json()["identical"]
    (line,) = (line for line in same.text().split("\n") if "identical" in line)
    assert line == "identical: 1 setting, every number of every seed"


def test_a_best_rate_that_jumps_by_one_step_of_the_grid_has_not_changed() -> None:
    found = compare_sides(
        side("A", table("adam", LRS, values(1e-2), STARTS)), side("B", table("adam", LRS, values(LRS[9]), STARTS))
    )
    assert change_of(found, "best_lr").verdict == "no clear change", "each is known to half a step"
    far = compare_sides(
        side("A", table("adam", LRS, values(1e-2), STARTS)), side("B", table("adam", LRS, values(1e-1), STARTS))
    )
    assert change_of(far, "best_lr").verdict == "changed"


def workload_spec(**changed: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task": {"name": "digits"}, "model": {"name": "mlp", "hidden": [128]}, "schedule": {"name": "constant"},
        "train": {"epochs": 20, "batch_size": 64}, "optimizers": [{"name": "adam", "label": "adam", "eps": 1e-8}],
    }  # fmt: skip
    return {**base, **changed}


def test_what_the_specs_differ_in_comes_before_the_numbers() -> None:
    one = side("A", table("adam", LRS, values(1e-2), STARTS))
    before = replace(one, workload_spec=workload_spec())
    after = replace(
        one,
        workload_spec=workload_spec(
            model={"name": "mlp", "hidden": [64, 64]},
            train={"epochs": 5, "batch_size": 16},
            optimizers=[{"name": "adam", "label": "adam", "eps": 1e-3}],
        ),
    )
    found = compare_sides(before, after)
    assert found.differences == (
        "model.hidden: [128] -> [64, 64]", "train.epochs: 20 -> 5", "train.batch_size: 64 -> 16",
        "optimizers.adam.eps: 1e-08 -> 0.001",
    )  # fmt: skip
    text = found.text()
    assert "Caution: the" not in text
    assert text.index("train.batch_size: 64 -> 16") < text.index("identical")
    assert compare_sides(before, before).differences == ()
    assert "specs differ" not in compare_sides(before, before).text()


def test_other_tasks_and_metrics_are_cautioned_about() -> None:
    rows = table("adam", LRS, values(1e-2), STARTS)
    before = replace(side("A", rows), workload_spec=workload_spec())
    other = replace(side("B", rows), workload_spec=workload_spec(task={"name": "two_moons", "noise": 0.1}))
    found = compare_sides(before, other)
    assert found.differences == ("task: digits -> two_moons(noise=0.1)",)
    assert "the tasks differ (digits and two_moons)" in found.text()
    metric = replace(side("B", rows, metric="train_loss"), workload_spec=workload_spec())
    assert "the objective is val_loss in A and train_loss in B" in compare_sides(before, metric).text()


def test_accuracy_keeps_its_sign() -> None:
    options = {"mode": "max", "metric": "val_loss"}
    before = side("A", table("adam", LRS, 1 - values(1e-2, noise=0.001), (-1.0,)), **options)
    after = side("B", table("adam", LRS, 1.2 - values(1e-2, noise=0.001), (-1.0,)), **options)
    objective = change_of(compare_sides(before, after), "best_objective")
    assert objective.before == pytest.approx(0.5, abs=0.01)
    assert objective.change.value == pytest.approx(0.2)


def test_one_seed_gives_no_interval() -> None:
    before = side("A", table("adam", LRS, values(1e-2, seeds=1)))
    after = side("B", table("adam", LRS, values(1e-3, seeds=1)))
    found = compare_sides(before, after)
    assert all(change.moved is None for change in found.rows[0].changes)
    assert "too few seeds to tell" in found.text()


def test_other_grids_are_compared_over_the_rates_they_share() -> None:
    before = side("A", table("adam", LRS, values(1e-2), STARTS))
    after = side("B", table("adam", LRS[4:], values(1e-2)[4:], STARTS))
    found = compare_sides(before, after)
    for name in ("sensitivity", "sensitivity_norm"):
        assert change_of(found, name).change.value == pytest.approx(0)
    assert "grids differ" in found.text()
    assert "grids differ" not in compare_sides(before, before).text()


@pytest.mark.parametrize(("start", "told"), [(2, "no learning rate"), (1, "only one learning rate"), (0, None)])
def test_with_fewer_than_two_shared_rates_no_number_is_compared(start: int, told: str | None) -> None:
    tried = [0.5, 0.7, 0.9, 1.2]
    before = side("A", table("adam", LRS[:2], [[y] * 3 for y in tried[:2]], STARTS))
    after = side("B", table("adam", LRS[start : start + 2], [[y] * 3 for y in tried[start : start + 2]], STARTS))
    found = compare_sides(before, after)
    names = [change.name for change in found.rows[0].changes]
    if told is not None:
        assert names == []
        lines = found.text().splitlines()
        assert lines[3:] == [f"adam (3 paired seeds): not comparable: the grids share {told}", "", SUMMARY_NOTE]
        assert not found.same
        (row,) = found.as_json()["rows"]
        assert (row["changes"], row["shared_rates"]) == ([], 2 - start)
    else:
        assert {"sensitivity", "sensitivity_norm", "best_lr"} <= set(names)
        assert found.same


def test_sweeps_of_the_same_single_rate_are_compared_by_their_objective() -> None:
    before = side("A", table("adam", LRS[:1], [[0.5, 0.6, 0.7]], STARTS))
    after = side("B", table("adam", LRS[:1], [[0.3, 0.41, 0.5]], STARTS))
    found = compare_sides(before, after)
    (change,) = found.rows[0].changes
    assert (change.name, change.verdict) == ("best_objective", "changed")
    assert change.change.value == pytest.approx(-0.59 / 3)
    assert compare_sides(before, before).same


def test_other_objectives_share_only_numbers_without_units() -> None:
    before = side("A", table("adam", LRS, values(1e-2), STARTS))
    after = side("B", table("adam", LRS, values(1e-2), STARTS), at="best")
    found = compare_sides(before, after)
    assert [change.name for change in found.rows[0].changes] == ["best_lr", "sensitivity_norm", "basin_decades"]
    assert "objectives differ" in found.text()


def test_rows_without_a_partner_are_listed() -> None:
    shared = table("adam", LRS, values(1e-2), STARTS)
    found = compare_sides(
        side("A", shared, table("sgd", LRS, values(1e-2), STARTS)), side("B", shared, table("lion", LRS, values(1e-2)))
    )
    assert (found.only_a, found.only_b) == (("sgd",), ("lion",))
    assert "only in A: sgd" in found.text()


def test_an_optimizer_without_a_finished_run_is_not_called_absent() -> None:
    sgd, adam = (table(label, LRS, values(1e-2), STARTS) for label in ("sgd", "adam"))
    before, after = side("A", sgd, adam), side("B", sgd, adam)
    found = compare_sides(replace(before, cells=before.cells[:1]), after)
    assert (found.only_b, found.unfinished_a) == ((), ("adam",))
    assert "no finished run in A: adam" in found.text()
    assert "only in" not in found.text()
    found = compare_sides(after, replace(before, cells=()))
    assert found.unfinished_b == ("sgd", "adam")


def test_two_sweeps_of_one_optimizer_are_compared_whatever_the_label() -> None:
    found = compare_sides(
        side("A", table("adam", LRS, values(1e-2), STARTS)), side("B", table("adam(warmup)", LRS, values(1e-2), STARTS))
    )
    assert found.rows[0].title == "adam -> adam(warmup)"


def test_sweeps_in_which_everything_diverged_can_be_compared() -> None:
    dead = side("B", table("adam", LRS, np.full((13, 3), math.nan), STARTS))
    alive = side("A", table("adam", LRS, values(1e-2), STARTS))
    for found in (compare_sides(alive, dead), compare_sides(dead, alive), compare_sides(dead, dead)):
        assert math.isnan(change_of(found, "best_lr").change.value)
        assert found.text()


def test_seven_seeds_draw_at_random_and_stay_the_same() -> None:
    rng = np.random.default_rng(0)
    many = valley(LRS, 1e-2)[:, None] + rng.normal(scale=0.05, size=(13, 7))
    one, other = side("A", table("adam", LRS, many)), side("B", table("adam", LRS, many - 0.2))
    assert compare_sides(one, other) == compare_sides(one, other)
    assert change_of(compare_sides(one, other), "best_objective").moved


# ---------------------------------------------------------------------- check


def summary(**columns: Any) -> list[dict[Any, Any]]:
    row = {
        "optimizer": "adam", "best_lr": 1e-2, "best_objective": 0.5, "at_edge": False, "basin_decades": 1.2,
        "sensitivity": 0.3, "n_runs": 39, "n_diverged": 6, "n_failed": 0, "recommended_lr": 5e-3, "default_regret": 0.2,
        "unusable_from": 0.1, "basin_decades_low": 1.0, "sensitivity_high": 0.4,
    }  # fmt: skip
    return [{**row, **columns}]


HOLDS = [
    (Limits(min_basin_decades=1.2), True),
    (Limits(min_basin_decades=1.3), False),
    (Limits(max_sensitivity=0.3), True),
    (Limits(max_sensitivity=0.29), False),
    (Limits(recommended_lr_within=(1e-3, 1e-2)), True),
    (Limits(recommended_lr_within=(1e-2, 1e-1)), False),
    (Limits(max_default_regret=0.2), True),
    (Limits(max_default_regret=0.1), False),
    (Limits(min_unusable_from=0.1), True),
    (Limits(min_unusable_from=0.2), False),
    (Limits(min_basin_decades=1.0, worst_end=True), True),
    (Limits(min_basin_decades=1.2, worst_end=True), False),
    (Limits(max_sensitivity=0.3, worst_end=True), False),
    (Limits(max_sensitivity=0.4, worst_end=True), True),
    (Limits(max_diverged=0.2), True),
    (Limits(max_diverged=0.1), False),
    (Limits(max_diverged=6 / 39), True),
    (Limits(best_lr_within=(1e-3, 1e-2)), True),
    (Limits(best_lr_within=(1e-2, 1e-2)), True),
    (Limits(best_lr_within=(2e-2, 1.0)), False),
    (Limits(), True),
    (Limits(min_basin_decades=1, max_sensitivity=1, max_diverged=1, best_lr_within=(1e-3, 1)), True),
    (Limits(min_basin_decades=1, max_sensitivity=0.1, max_diverged=1, best_lr_within=(1e-3, 1)), False),
]


@pytest.mark.parametrize(("limits", "ok"), HOLDS)
def test_limits(limits: Limits, ok: bool) -> None:
    assert check_summary(summary(), limits).ok is ok


def test_a_limit_missed_by_rounding_only_is_held() -> None:
    assert check_summary(summary(basin_decades=1.0799999999999996), Limits(min_basin_decades=1.08)).ok


@pytest.mark.parametrize(
    ("column", "limits"),
    [
        ("basin_decades", Limits(min_basin_decades=0.0)),
        ("sensitivity", Limits(max_sensitivity=1e9)),
        ("best_lr", Limits(best_lr_within=(1e-12, 1e3))),
    ],
)
def test_nan_holds_no_limit(column: str, limits: Limits) -> None:
    assert not check_summary(summary(**{column: math.nan}), limits).ok


@pytest.mark.parametrize("limits", [Limits(), Limits(max_sensitivity=1.0), Limits(max_diverged=1.0)])
def test_a_row_that_trained_nothing_is_broken_whatever_the_limits(limits: Limits) -> None:
    verdict = check_summary(summary(sensitivity=0.0, basin_decades=math.nan), limits)
    assert not verdict.ok
    assert "trained" in {one.check for one in verdict.checks}


def test_nothing_trained_in_a_real_summary() -> None:
    facts = analyse(frame(table("adam", LRS, np.full((13, 3), 2.2), (2.0,))), None, spec("adam"), {})
    assert not check_summary(fabricate.summary_frame(facts).to_dict("records"), Limits()).ok
    assert not check_summary(fabricate.summary_frame(facts).to_dict("records"), Limits(max_sensitivity=1.0)).ok


def test_where_every_run_failed_that_is_the_reason() -> None:
    lost = {"best_lr": math.nan, "basin_decades": math.nan, "sensitivity": math.nan, "n_diverged": 0}
    assert "every run failed" in check_summary(summary(**lost, n_failed=39), Limits()).text()
    for failed in (0, 38):
        text = check_summary(summary(**lost, n_failed=failed), Limits()).text()
        assert "no run improved on the untrained model" in text
        assert "every run failed" not in text


def test_every_row_has_to_hold_unless_one_is_named() -> None:
    both = [*summary(), *summary(optimizer="sgd", sensitivity=9.0)]
    limits = Limits(max_sensitivity=1.0)
    assert not check_summary(both, limits).ok
    assert check_summary(both, limits, optimizer="adam").ok
    with pytest.raises(UsageError, match="adam, sgd"):
        check_summary(both, limits, optimizer="lion")


def test_failed_runs_are_not_in_the_share_of_diverged_ones() -> None:
    assert not check_summary(summary(n_failed=19), Limits(max_diverged=0.2)).ok
    assert not check_summary(summary(n_failed=39, n_diverged=0), Limits(max_diverged=1.0)).ok


def test_a_sweep_without_rows_trained_nothing() -> None:
    verdict = check_summary([], Limits())
    assert not verdict.ok
    assert "nothing was trained" in verdict.text()


def test_json_is_json_even_for_nan() -> None:
    two = [*summary(), *summary(optimizer="sgd", best_lr=math.nan, basin_decades=math.nan)]
    verdict = check_summary(two, Limits(best_lr_within=(1e-3, 1e-1), max_sensitivity=0.5))
    read = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
    assert read["ok"] is False
    assert read["checks"][0] == {
        "optimizer": "adam", "check": "max_sensitivity", "value": 0.3, "limit": 0.5, "ok": True
    }  # fmt: skip
    assert read["checks"][1]["limit"] == [1e-3, 1e-1]
    assert {one["value"] for one in read["checks"] if one["check"] == "best_lr_within"} == {1e-2, "nan"}
    assert "FAIL  " in verdict.text()


@pytest.mark.parametrize("side", ["low", "high"])
def test_a_censored_range_is_shown_as_a_lower_bound(side: str) -> None:
    rows = summary(basin_decades=1.18, **{f"basin_{side}_censored": True})
    broken, held = (check_summary(rows, Limits(min_basin_decades=limit)) for limit in (2.0, 1.0))
    assert not broken.ok
    assert "good range of >= 1.18 decades" in broken.text()
    assert "widen the grid to know" in broken.text()
    assert ">= 1.18" in held.text()
    assert "widen" not in held.text()
    assert ">=" not in check_summary(summary(basin_decades=1.18), Limits(min_basin_decades=2.0)).text()


def test_a_censored_range_is_read_from_the_files(tmp_path: Any) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd",), rates=fabricate.grid(1e-3, 0.1), axes={})
    assert "good range of >= " in check(folder, min_basin_decades=9).text()
    assert "incomplete" not in check(folder).text()


def test_runs_that_a_verdict_knows_nothing_of_are_counted(tmp_path: Any) -> None:
    """The stored sweep has 12 runs, of which 4 failed; then two of the others are as if never trained."""
    shutil.copytree(Path(__file__).parents[1] / "data" / "results-v1", tmp_path / "results")
    folder = tmp_path / "results" / "stored"
    assert check(folder).text().endswith("incomplete: of 12 planned runs, 4 failed; the verdict is based on the rest")
    assert check(folder).ok is check_summary(tables.read_summary(folder).to_dict("records"), Limits()).ok
    (journal,) = (folder / "journal").glob("*.jsonl")
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    ended = [line for line in lines if '"status":"ok"' in line.replace(" ", "")][:2]
    journal.write_text("".join(line for line in lines if line not in ended), encoding="utf-8")
    (folder / "journal" / "tables.json").unlink()
    assert "of 12 planned runs, 2 not run yet and 4 failed" in check(folder).text()


def test_axis_values_name_the_row() -> None:
    (row,) = summary()
    (one,) = check_summary([{"optimizer": "adam", "train.batch_size": 16, **row}], Limits()).checks
    assert one.optimizer == "adam, train.batch_size=16"


@pytest.mark.parametrize(
    "limits",
    [
        {"max_diverged": 1.5}, {"max_diverged": -0.1}, {"max_diverged": math.nan}, {"min_basin_decades": math.nan},
        {"max_sensitivity": -1.0}, {"best_lr_within": (1.0, 0.1)}, {"best_lr_within": (0.0, 1.0)},
        {"best_lr_within": (math.nan, 1.0)},
    ],
)  # fmt: skip
def test_limits_nobody_could_hold_are_a_mistake(limits: dict[str, Any], tmp_path: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{next(iter(limits))}="):
        check(tmp_path, **limits)


def test_a_folder_without_a_sweep_is_a_mistake(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="no sweep"):
        check(tmp_path)
    with pytest.raises(UsageError, match="no sweep"):
        compare(tmp_path, tmp_path)


def test_the_hint_to_widen_the_grid_knows_of_runs_that_failed() -> None:
    limits = Limits(min_basin_decades=3.0)
    rows = summary(basin_decades=1.0, basin_high_censored=True, n_failed=2)
    assert "(it extends past the grid, or ends at runs that failed)" in check_summary(rows, limits).text()
    rows = summary(basin_decades=1.0, basin_high_censored=True, n_failed=0)
    assert "(it extends past the grid; widen the grid to know)" in check_summary(rows, limits).text()
