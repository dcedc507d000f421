"""The picture of a range test, and what is printed of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from lrsweep.analysis.lr_finder import AxisValue, Ramp, RampResult, RangeTest
from lrsweep.cli import output
from lrsweep.plot import lr_finder as drawing
from lrsweep.plot.style import GREY
from tests.analysis.test_lr_finder import LRS, curve
from tests.support import tables as fabricate


def found_on(losses: Any, axes: tuple[AxisValue, ...] = ()) -> RangeTest:
    lrs = np.logspace(-7, 1, len(losses))
    result = RampResult(label="sgd", ramp=Ramp(lrs=lrs, losses=np.asarray(losses), stopped=None), row=None)
    return RangeTest(
        name="r", low=1e-7, high=10.0, steps=len(losses), seed=0, axes=axes, results=(result,), facts=None, files=()
    )


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_the_picture_says_which_axis_values_it_shows() -> None:
    axes = (AxisValue(axis="train.batch_size", value="256", listed=("16", "256")),)
    assert "at train.batch_size=256" in texts(drawing.range_test(found_on(curve(LRS), axes)))
    assert not any(text.startswith("at ") for text in texts(drawing.range_test(found_on(curve(LRS)))))


def test_a_suggestion_before_the_loss_has_moved_is_a_warning() -> None:
    noise = 0.05 * np.random.default_rng(1).standard_normal(100)
    # The draw of the first batches, which `steepest` takes for the beginning of a fall.
    noise[0], noise[1:4] = 0.12, -0.05
    losses = 2.3 - 2 / (1 + np.exp(-1.5 * (np.linspace(-7, 1, 100) + 2))) + noise  # falls at 1e-2
    found = found_on(losses)
    (result,) = found.results
    rules = result.suggested
    assert rules["steepest"] < 1e-6
    assert rules["minimum_over_10"] > 1e-3
    assert {"steepest", "per_unit"} <= result.unmoved
    assert "minimum_over_10" not in result.unmoved
    printed_text = output.range_test(found)
    for rule, rate in rules.items():
        row = next(row for row in printed_text.splitlines() if row.split()[1:2] == [rule])
        assert row.endswith("before the ramp's loss clearly fell") == (rule in result.unmoved), (rule, rate)
    figure = drawing.range_test(found)
    marks = {one.get_marker(): one.get_color() for ax in figure.axes for one in ax.lines if len(one.get_xdata()) == 1}
    assert marks["p"] == marks["x"] == GREY
    assert marks["s"] != GREY
    assert "gray: before the ramp's loss clearly fell" in texts(figure)


def test_every_curve_that_leaves_its_panel_is_marked_where_it_does() -> None:
    for rise, told in ((1.0, "▲ 3 off scale"), (0.0, None)):
        lrs = np.logspace(-7, 1, 81)
        found = found_on(2.3 - 2 * lrs / (1e-3 + lrs) + rise * (lrs / 0.1) ** 2)
        medians = [1.0, 0.5, 0.5, 0.5 + 9 * rise]
        facts = fabricate.facts_of_medians([1e-3, 1e-2, 0.1, 1.0], {"sgd": medians}, start=2.3)
        result = dataclasses.replace(found.results[0], row=facts.rows[0])
        figure = drawing.range_test(dataclasses.replace(found, results=(result,)))
        ax = figure.axes[0]
        places = [tuple(place) for one in ax.collections for place in np.asarray(one.get_offsets())]
        assert [text for text in texts(figure) if text.startswith("▲")] == ([told] if told else [])
        assert ("goes off scale" in texts(figure)) == bool(told)
        assert len(places) == (3 if told else 0)
        if told:
            top = ax.get_ylim()[1]
            assert {y for _, y in places} == {top}
            raw = next(x for x, y in zip(lrs, result.ramp.losses, strict=True) if x > 0.01 and y > top)
            assert raw / 10**0.1 < places[0][0] <= raw
            share = (top - 0.5) / 9  # of the way from 0.1 to 1, on the axis as it is drawn
            assert places[2][0] == pytest.approx(10 ** (share - 1))


def beside_a_sweep(medians: list[float], start: float, mode: str) -> Any:
    lrs = np.logspace(-7, 1, 81)
    found = found_on(2.3 - 2 * lrs / (1e-3 + lrs))
    facts = fabricate.facts_of_medians([1e-3, 1e-2, 0.1, 1.0], {"sgd": medians}, start=start, mode=mode)
    result = dataclasses.replace(found.results[0], row=facts.rows[0])
    return drawing.range_test(dataclasses.replace(found, results=(result,), facts=facts))


def test_an_accuracy_stands_on_an_axis_of_its_own_beside_the_ramps_loss() -> None:
    medians = [0.5, 0.9, 0.8, 0.3]
    figure = beside_a_sweep(medians, 0.1, "max")
    ramp, sweep = figure.axes
    assert "train_loss" in ramp.get_ylabel()
    assert "val_accuracy (final)" in sweep.get_ylabel()
    assert not any(list(line.get_ydata()) == medians for line in ramp.lines)
    shown, *rules = sweep.lines
    assert list(shown.get_ydata()) == medians
    assert all(len(mark.get_xdata()) == 1 for mark in rules), "the rules that point into the sweep stand on its curve"
    low, high = sweep.get_ylim()
    assert low <= min(medians) <= max(medians) <= high < 1.2
    assert ramp.get_ylim()[0] > 0.1, "the accuracies have no part in the limits of the loss"
    assert ramp.get_xlim() == sweep.get_xlim()


def test_a_loss_shares_the_axis_of_the_ramp_and_both_are_named() -> None:
    medians = [1.0, 0.5, 0.6, 0.9]
    (ax,) = beside_a_sweep(medians, 2.3, "min").axes
    assert any(list(line.get_ydata()) == medians for line in ax.lines)
    assert "train_loss" in ax.get_ylabel()
    assert "val_loss (final)" in ax.get_ylabel()
    assert "train_loss" in drawing.range_test(found_on(curve(LRS))).axes[0].get_ylabel()


def test_the_key_of_the_rules_is_as_they_are_drawn_and_named_as_in_the_text() -> None:
    found = found_on(curve(LRS))
    names = list(found.results[0].suggested)

    def key(unmoved: set[str], gone: str = "") -> dict[str, str]:
        result = dataclasses.replace(found.results[0])
        suggested = {rule: math.nan if rule == gone else lr for rule, lr in result.suggested.items()}
        vars(result).update(suggested=suggested, unmoved=frozenset(unmoved))
        legend = drawing.range_test(dataclasses.replace(found, results=(result,))).legends[0]
        handles = {one.get_label().partition(":")[0]: one for one in legend.legend_handles}
        return {name: handles[name].get_color() for name in names if name in handles}

    calm = key({"per_unit"})
    assert list(calm) == names
    assert [name for name, color in calm.items() if color == GREY] == ["per_unit"]
    assert [name for name, color in key({"valley", "slide", "per_unit"}).items() if color == GREY] == [
        "valley", "slide", "per_unit",
    ]  # fmt: skip
    assert "slide" not in key({"per_unit"}, gone="slide")
