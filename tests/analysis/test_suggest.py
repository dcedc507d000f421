"""Which rates `--refine` adds, and the `lr:` line to paste."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import yaml

from lrsweep.analysis.analyse import analyse
from lrsweep.analysis.caveats import caveats_of
from lrsweep.analysis.facts import SweepFacts
from lrsweep.analysis.suggest import divided, extended, refine, spaced
from lrsweep.grids import generate
from lrsweep.wording import advice, words
from tests.support.planted_tables import HALF_DECADES, curves, frame, opening, said, spec, table, valley

OFFSETS = np.array([0.0, 0.01, -0.01])


def facts(values: Any, lrs: Any = HALF_DECADES) -> SweepFacts:
    return analyse(frame(table("adam", lrs, np.asarray(values)[:, None] + OFFSETS)), None, spec("adam"), {})


def test_a_best_rate_at_the_top_edge_gets_a_decade_above() -> None:
    assert refine(facts(valley(HALF_DECADES, 1.0))) == {"adam": [3.16228, 10.0]}


def test_a_best_rate_at_the_bottom_edge_gets_a_decade_below() -> None:
    assert refine(facts(valley(HALF_DECADES, 1e-6))) == {"adam": [1e-7, 3.16228e-7]}


def test_a_basin_that_runs_out_of_the_grid_is_followed() -> None:
    values = valley(HALF_DECADES, 0.3, depth=0.05)
    assert refine(facts(values)) == {"adam": [3.16228, 10.0]}


def test_a_thin_basin_is_filled_and_nothing_else() -> None:
    found = facts(valley(HALF_DECADES, 1e-2))
    (added,) = refine(found).values()
    good_range = found.rows[0].good_range
    assert len(added) == 2
    assert all(good_range.low < rate < good_range.high for rate in added)
    assert added == [pytest.approx(10**-2.25, rel=1e-5), pytest.approx(10**-1.75, rel=1e-5)]


def test_rates_outside_the_basin_are_not_added() -> None:
    lrs = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert refine(facts([2.0, 1.9, 1.0, 0.5, 0.6, math.nan], lrs)) == {"adam": [0.0215443, 0.0464159]}


DECADES = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]


def test_the_gap_up_to_a_diverged_rate_is_filled() -> None:
    """Best 0.1, and 1 diverges: 0.316228 may be better than both, however many rates the good range holds."""
    found = facts([1.9, 1.8, 0.53, 0.52, 0.5, math.nan], DECADES)
    assert refine(found) == {"adam": [0.316228]}
    (row,) = found.rows
    assert "0.316228" in advice.lr_line(row)
    assert list(caveats_of(row)) == ["cliff"]
    assert advice.lr_line(row) in advice.warnings(row)[0][1]
    assert "to at least 0.1 (1 diverges; nothing in between was tried)" in said(row)
    assert row.good_range.high == 0.1
    assert "refine the gap before divergence" in opening(found)


def test_the_gap_down_to_a_diverged_rate_is_filled() -> None:
    found = facts([math.nan, 0.5, 0.52, 0.53, 0.8, 2.0], DECADES)
    assert refine(found) == {"adam": [3.16228e-5]}
    assert "at most 0.0001 to" in said(found.rows[0])


def test_filling_up_to_the_cliff_ends_within_a_factor_of_two() -> None:
    lrs = [1e-3, 1e-2, 1e-1, 1e1]
    added: list[dict[str, list[float]]] = []
    while new := refine(facts([math.nan if lr > 0.7 else 0.5 + 0.01 * abs(math.log10(lr / 0.1)) for lr in lrs], lrs)):
        added.append(new)
        if lrs[0] < 1e-9 or len(added) > 20:
            break
        lrs = sorted({*lrs, *new["adam"]})
    highest = max(lr for lr in lrs if lr < 0.7)
    assert min(lr for lr in lrs if lr > 0.7) / highest <= 2
    assert added[0]["adam"][-3:] == [0.316228, 1.0, 3.16228]


def test_a_failed_rate_beside_the_basin_is_no_cliff() -> None:
    runs = frame(table("adam", DECADES[:5], [[2.0] * 3, [0.52] * 3, [0.5] * 3, [0.53] * 3, [None] * 3]))
    (row,) = analyse(runs, None, spec("adam"), {}).rows
    assert math.isnan(row.cliff_above)
    assert "cliff" not in set(caveats_of(row))


def test_a_basin_with_three_rates_is_left_alone() -> None:
    assert refine(facts(valley(HALF_DECADES, 1e-3, depth=0.1))) == {}


def test_no_rate_is_added_close_to_one_that_was_tried() -> None:
    """Neighbours less than a tenth of a decade apart differ by their seeds: refining noise ends, and says so."""
    noise = np.random.default_rng(0)
    lrs = [0.1, 1.0, 10.0]
    values = {lr: 0.5 + noise.uniform(0, 1) for lr in lrs} | {0.1: 1.9, 10.0: 1.9}
    for _ in range(30):
        found = facts([values[lr] for lr in lrs], lrs)
        if not (added := refine(found)):
            break
        for lr in added["adam"]:
            assert min(abs(math.log10(lr / tried)) for tried in lrs) > 0.0499
        lrs = sorted({*lrs, *added["adam"]})
        values |= {lr: 0.5 + noise.uniform(0, 1) for lr in added["adam"]}
    assert not added
    assert min(np.diff(np.log10(lrs))) > 0.0499
    assert "add seeds, not learning rates" in advice.nothing_added(found)
    (row,) = found.rows
    assert "narrow" not in set(caveats_of(row))
    assert any("add seeds, not learning rates" in text and "lr:" not in text for _, text in advice.warnings(row))
    assert "add seeds, not learning rates, for adam" in opening(found)


def test_axis_values_do_not_ask_for_nearly_the_same_rate() -> None:
    assert spaced([1e-2, 1.05e-2, 1.5e-2, 0.98], [1.0]) == (1e-2, 1.5e-2)


def test_a_single_rate_between_diverged_ones_gets_the_gaps_beside_it() -> None:
    assert refine(facts([math.nan, 0.5, math.nan], [1e-3, 1e-2, 1e-1])) == {"adam": [0.00316228, 0.0316228]}


def test_a_very_thin_basin_gets_some_rates() -> None:
    values = np.minimum(0.5 + 20 * (np.log10(np.array(HALF_DECADES)) + 2) ** 2, 2.0)
    assert refine(facts(values)) == {"adam": [pytest.approx(5.62342e-3), pytest.approx(1.77828e-2)]}


def test_ends_that_are_read_between_far_rates_are_looked_at() -> None:
    """Three rates in a good range of one rate per decade say little of where it ends: half a decade is tried."""
    coarse = facts([2.0, 1.5, 0.52, 0.5, 0.51, 1.1], [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    assert refine(coarse) == {"adam": [3.16228e-5, 3.16228e-4, 3.16228e-3, 3.16228e-2]}


def too_small(gains: Any, lrs: Any) -> SweepFacts:
    """Three seeds whose untrained losses are 2, 2.01 and 1.99, and that improve by `gains`."""
    starts = np.array([2.0, 2.01, 1.99])
    return analyse(
        frame(table("adam", lrs, starts - np.asarray(gains)[:, None], starts.tolist())), None, spec("adam"), {}
    )


def test_a_loss_that_falls_in_proportion_to_tiny_rates_is_not_trained_and_goes_up_by_decades() -> None:
    lrs = [1e-12, 1e-11, 1e-10, 1e-9, 1e-8]
    found = too_small([0, 0, 2e-6, 2e-5, 2e-4], lrs)
    (row,) = found.rows
    assert (row.trained, row.rates_too_small) == (False, True)
    assert row.good_range.rates == ()
    for number in (row.recommended_lr, row.sensitivity.whole.value, row.good_range.decades, found.target):
        assert math.isnan(number)
    assert list(caveats_of(row)) == ["too_small"]
    assert refine(found) == {"adam": [1e-7, 1e-6, 1e-5, 1e-4]}, "2e-4 in proportion is 2 after four decades"
    for text in (opening(found), said(row), advice.warning_line(row), advice.warnings(row)[0][1]):
        assert re.search("learning rates (are )?too small", text)
    assert advice.lr_line(row) == "lr: {min: 1e-08, max: 0.0001, per_decade: 1}"


def test_rates_that_make_no_difference_are_too_small() -> None:
    (row,) = too_small([0, 1e-15, 0], [1e-12, 1e-11, 1e-10]).rows
    assert (row.trained, row.rates_too_small) == (False, True)
    assert refine(too_small([0, 0, 0], [1e-12, 1e-11, 1e-10])) == {"adam": [1e-9, 1e-8, 1e-7, 1e-6]}


def test_gains_within_the_noise_of_the_evaluations_do_not_say_that_the_rates_are_too_small() -> None:
    lrs = [1e-3, 1e-2, 1e-1]
    runs = frame(table("adam", lrs, np.full((3, 3), 1.999), [2.0]))
    noisy = curves(runs, lambda lr, share: share)
    noisy["val_loss"] += 0.1 * (-1.0) ** np.arange(len(noisy)) * (noisy["step"] > 0)
    (row,) = analyse(runs, noisy, spec("adam"), {}).rows
    assert (row.trained, row.rates_too_small) == (False, False)
    assert "no learning rate improved on the untrained model" in said(row)


def test_rates_that_train_and_are_too_small_say_so_and_keep_what_was_trained() -> None:
    found = too_small([0.01, 0.1, 0.9], [1e-5, 1e-4, 1e-3])
    (row,) = found.rows
    assert (row.trained, row.rates_too_small) == (True, True)
    assert "still grows in proportion to lr at 0.001" in advice.warnings(row)[0][1]
    assert refine(found) == {"adam": [1e-2, 0.1]}
    (grown,) = too_small([0.2, 0.9, 1.4], [1e-5, 1e-4, 1e-3]).rows
    assert not grown.rates_too_small


def test_rates_that_failed_are_not_told_to_go_on_growing() -> None:
    starts = np.array([2.0, 2.01, 1.99])
    values = [*(starts - np.array([[0.01], [0.1], [0.9]])).tolist(), [None] * 3]
    runs = frame(table("adam", [1e-5, 1e-4, 1e-3, 1e-2], values, starts.tolist()))
    (row,) = analyse(runs, None, spec("adam"), {}).rows
    assert any("still grows in proportion to lr at 0.001;" in f"{text};" for _, text in advice.warnings(row))
    assert advice.warning_line(row) == "learning rates too small; runs above them failed"
    assert "decades" not in advice.next_steps([row])
    assert words.unusable_text(row) == "> 0.001", "nothing is known of 0.01"


def test_everything_diverged_goes_down() -> None:
    assert refine(facts([math.nan] * 3, [1e-3, 1e-2, 1e-1])) == {"adam": [1e-6, 1e-5, 1e-4]}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([2.5, 2.5, 2.5], [1.0]),  # the rates make no difference: too small
        ([2.6, 2.55, 2.5], [1.0]),
        ([2.5, 2.6, 2.9], [1e-4]),  # the higher the worse
        ([2.6, 2.5, 2.6], [1e-4, 1.0]),
        ([2.5, 2.5, math.nan], [1e-4]),
        ([2.6, 2.5, math.nan], [1e-4]),
    ],
)
def test_where_nothing_trained_the_grid_grows_towards_its_best_rate(values: list[float], wanted: list[float]) -> None:
    assert refine(facts(values, [1e-3, 1e-2, 1e-1])) == {"adam": wanted}


def test_a_lone_rate_gets_both_sides() -> None:
    assert refine(facts([0.5], [1e-2])) == {"adam": [1e-3, 0.00316228, 0.0316228, 0.1]}


def test_everything_failed_asks_for_nothing() -> None:
    runs = frame(table("adam", [1e-2, 1e-1], [[None], [None]]))
    assert refine(analyse(runs, None, spec("adam"), {})) == {}


def test_axis_values_of_one_optimizer_share_a_grid() -> None:
    parts = [
        table("adam", HALF_DECADES, valley(HALF_DECADES, best)[:, None] + OFFSETS, width=width)
        for width, best in ((1, 1.0), (2, 1e-6))
    ]
    found = analyse(frame(*parts), None, spec("adam", axes={"width": [1, 2]}), {})
    assert refine(found) == {"adam": [1e-7, 3.16228e-7, 3.16228, 10.0]}


def test_refining_ends() -> None:
    """Following the advice on a known valley leads to a grid that asks for nothing, with the best rate inside."""
    lrs = [1e-6, 1e-5, 1e-4]
    for _ in range(20):
        found = facts(valley(lrs, 2e-2, depth=0.3), lrs)
        added = refine(found)
        if not added:
            break
        lrs = sorted({*lrs, *added["adam"]})
    assert refine(found) == {}
    assert abs(math.log10(found.rows[0].best_lr.value / 2e-2)) < 0.3
    assert len(lrs) < 15


def test_grids_stop_somewhere() -> None:
    assert extended([1e2, 1e3], down=False, up=True) == ()
    assert extended([1e-12, 1e-11], down=True, up=False) == ()


def test_cut_is_even_in_log() -> None:
    assert divided([1e-2, 1e-1], 2) == [0.0316228]
    assert divided([1e-3, 1e-2, 1e-1], 3) == [0.00215443, 0.00464159, 0.0215443, 0.0464159]


@pytest.mark.parametrize(("low", "high", "per_decade"), [(1e-6, 1.0, 2), (3e-4, 3.0, 3), (1e-5, 0.1, 1)])
def test_the_line_to_paste_gives_the_same_rates(low: float, high: float, per_decade: int) -> None:
    rates = generate(low, high, per_decade=per_decade)
    line = yaml.safe_load(advice.written(rates))["lr"]
    assert {key: float(value) for key, value in line.items()} == {"min": low, "max": high, "per_decade": per_decade}


def test_an_irregular_grid_is_listed() -> None:
    assert advice.written([1e-3, 2e-3, 0.1]) == "lr: [0.001, 0.002, 0.1]"


def test_the_gap_up_to_a_much_worse_rate_is_filled_though_nothing_diverged_there() -> None:
    """3.16 ends worse than untrained in the median; between it and 1 a better rate may lie."""
    lrs = [0.0316228, 1e-1, 0.316228, 1.0, 3.16228, 10.0]
    found = facts([1.9, 0.53, 0.52, 0.5, 2.2, math.nan], lrs)
    assert refine(found) == {"adam": [1.77828]}
    (row,) = found.rows
    warned = dict(advice.warnings(row))["steep"]
    assert "nothing was tried between 1 and 3.16" in warned
    assert "much worse" in opening(found)
    closer = [*lrs[:4], 1.77828, *lrs[4:]]
    assert refine(facts([1.9, 0.53, 0.52, 0.5, 0.505, 2.2, math.nan], closer)) == {}
    assert refine(facts([1.9, 0.53, 0.52, 0.5, 0.9, 1.5], lrs)) == {}, "a slope of less than half of the gain is read"


def with_failed(values: list[float | None], lrs: list[float]) -> SweepFacts:
    return analyse(frame(table("adam", lrs, [[value] * 3 for value in values])), None, spec("adam"), {})


def test_no_rate_is_added_past_rates_that_failed_and_nothing_is_said_of_divergence_there() -> None:
    lrs = [1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0]
    found = with_failed([0.7, 0.6, 0.51, 0.5, None, None], lrs)
    (row,) = found.rows
    assert all(lr < 1 for lr in refine(found).get("adam", []))
    words = " ".join([opening(found), said(row), advice.RECOMMENDED[row.recommended_by], *advice.sweep_warnings(found)])
    assert "diverge" not in words
    assert "every run failed at 10 and 100" in said(row)
    assert "best of the 4 learning rates tried that did not fail" in said(row)
    kinds = list(caveats_of(row))
    assert "failed_edge" in kinds
    assert not {"edge", "censored"} & set(kinds)
    assert "1000" not in words
    assert "widen it first" not in words
    assert "find out why runs failed" in opening(found)
    assert "widen" not in opening(found)


def test_a_failed_end_does_not_keep_the_other_end_from_being_widened() -> None:
    found = with_failed([0.5, 0.51, 0.51, None], [1e-3, 1e-2, 1e-1, 1.0])
    (added,) = refine(found).values()
    assert min(added) == 1e-4
    assert max(added) < 1
    assert {"failed_edge", "censored"} <= set(caveats_of(found.rows[0]))


def test_where_the_untrained_model_is_not_finite_no_rate_is_to_blame() -> None:
    runs = frame(table("adam", [1e-3, 1e-2, 1e-1], [[math.nan] * 3] * 3))
    runs["diverged_step"] = 0.0
    found = analyse(runs, None, spec("adam"), {})
    (row,) = found.rows
    assert refine(found) == {}
    assert advice.lr_line(row) == ""
    assert list(caveats_of(row)) == ["broken_start"]
    words = " ".join([opening(found), said(row), advice.warnings(row)[0][1]])
    assert words.count("the initial loss is NaN or infinite, so the learning rate is not the cause") == 3
    assert "smaller" not in words
    assert "grid" not in words


def test_what_is_said_where_no_rate_is_added_claims_no_more_than_the_rules() -> None:
    good = facts(valley(HALF_DECADES, 1e-3, depth=0.1))
    assert "neighboring learning rates are at most a factor of 3.2 apart" in advice.nothing_added(good)
    assert "failed" not in advice.nothing_added(good)
    thin = with_failed([2.0, 0.9, 0.5, None], [1e-2, 1e-1, 1.0, 10.0])
    (added,) = refine(thin).values()
    assert all(thin.rows[0].good_range.low < lr < 1 for lr in added)
    failing = with_failed([0.7, 0.52, 0.51, 0.5, None], [3.16228e-2, 1e-1, 0.316228, 1.0, 10.0])
    assert refine(failing) == {}
    assert "none is added next to learning rates whose runs failed" in advice.nothing_added(failing)
    assert advice.nothing_added(facts([math.nan], [1e-2])) == "--refine: nothing to add"


def test_a_list_of_many_rates_is_no_line_to_paste() -> None:
    lrs = [10 ** (k / 4) for k in range(-20, -3)] + [1.0]
    values = [0.5 + 0.1 * abs(math.log10(lr / lrs[16])) for lr in lrs[:-1]] + [math.nan]
    (row,) = facts(values, lrs).rows
    warned = dict(advice.warnings(row))["cliff"]
    assert warned.endswith("; `--refine` tries it")
