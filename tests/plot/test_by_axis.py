"""Sweeps with one learning rate: their plots stand against the number that they study."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from lrsweep import plot
from lrsweep.analysis.caveats import caveats_of
from lrsweep.plot import by_axis, rail
from lrsweep.wording import advice, words
from tests.support import layout, plot_cases
from tests.support import tables as fabricate

SIZES = [8, 32, 128, 512]


@pytest.fixture(scope="module")
def sizes() -> plot.SweepFigures:
    return plot_cases.CASES["batch_size"]()


@pytest.fixture(scope="module")
def panels(sizes: plot.SweepFigures) -> list[Axes]:
    (picture,) = plot.pictures(sizes)
    return picture.figure.axes


def marks(ax: Axes) -> list[list[float]]:
    """The marks of the medians of a panel, which can be hidden one by one."""
    found = [one for one in ax.lines if one.get_marker() == "o"]
    assert len({one.get_gid() for one in found}) == len(found)
    return [list(map(float, point)) for one in found for point in one.get_xydata() if np.isfinite(point).all()]  # type: ignore[union-attr]


def line(ax: Axes) -> tuple[list[float], list[float]]:
    """The one line of a panel, that has a mark at each of its points."""
    (found,) = [one for one in ax.lines if one.get_linestyle() == "-"]
    x, y = (list(map(float, values)) for values in found.get_data())  # type: ignore[arg-type]
    assert marks(ax) == [[a, b] for a, b in zip(x, y, strict=True) if np.isfinite(b)]
    assert str(found.get_gid()).startswith("some-"), "it is hidden with the last of them"
    return x, y


def test_there_is_no_u_curve_no_sensitivity_and_no_drift_of_one_rate(sizes: plot.SweepFigures) -> None:
    assert plot.names(sizes) == ["by_train.batch_size"]
    assert plot.head(sizes) is None
    assert plot.names(plot_cases.CASES["patience"]()) == ["by_schedule.patience", "lr_schedule"]
    assert by_axis.axes_of(plot_cases.CASES["one_axis"]().facts) == [], "many rates"
    assert by_axis.axes_of(plot_cases.CASES["one_rate"]().facts) == [], "no axis"


def test_the_medians_the_steps_and_the_spreads_stand_against_the_axis(
    sizes: plot.SweepFigures, panels: list[Axes]
) -> None:
    for number, label in enumerate(("sgd", "adam")):
        rows = [row for row in sizes.facts.rows if row.optimizer == label]
        metric, _, steps, spread = panels[4 * number : 4 * number + 4]
        assert line(metric) == (SIZES, [row.rates[0].objective for row in rows])
        dots = [one for one in metric.collections if isinstance(one, PathCollection)]
        assert sum(len(one.get_offsets()) for one in dots) == sum(row.n_runs for row in rows)  # type: ignore[arg-type]
        times = [row.rates[0].time for row in rows]
        shown = line(steps)[1]
        assert all(a == b or (np.isinf(a) and np.isnan(b)) for a, b in zip(times, shown, strict=True))
        never = [one for one in steps.lines if one.get_marker() == "x"]
        assert sum(len(one.get_xdata()) for one in never) == sum(map(np.isinf, times))  # type: ignore[arg-type]
        objectives = [[run.objective for run in row.runs] for row in rows]
        assert line(spread)[1] == pytest.approx([max(some) - min(some) for some in objectives])
        for ax in (metric, steps, spread):
            assert (ax.get_xlabel(), ax.get_xscale()) == ("batch_size", "log")
            assert [text.get_text() for text in ax.get_xticklabels()] == ["8", "32", "128", "512"]


def test_train_and_val_curves_of_every_value_are_in_one_panel_with_names(panels: list[Axes]) -> None:
    for ax in (panels[1], panels[5]):
        colors = [one.get_color() for one in ax.lines]
        assert {color: colors.count(color) for color in colors} == dict.fromkeys(colors, 2), "train and val"
        assert len(set(colors)) == len(SIZES)
        named = [note for note in ax.texts if note.get_text() in {"8", "32", "128", "512"}]
        assert {note.get_color() for note in named} == set(colors)
        boxes = sorted((note.get_window_extent() for note in named), key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 + 2.5 for low, high in pairwise(boxes))


def test_optimizers_that_are_compared_share_the_axes_of_every_column(panels: list[Axes]) -> None:
    for column in range(4):
        assert panels[column].get_ylim() == panels[column + 4].get_ylim()


def test_one_rate_is_no_grid_to_be_warned_about(sizes: plot.SweepFigures) -> None:
    grid = {"edge", "narrow", "censored", "cliff", "steep", "crowded"}
    for row in sizes.facts.rows:
        assert not grid & set(caveats_of(row))
    assert advice.next_steps(sizes.facts.rows) == ""
    assert grid & set(caveats_of(plot_cases.CASES["one_rate"]().facts.rows[0])), "without an axis it is"


def test_the_rate_in_use_is_drawn_as_it_was(sizes: plot.SweepFigures) -> None:
    sweep = plot_cases.CASES["patience"]()
    figure = plot.figure(sweep, "lr_schedule")
    ax = figure.axes[0]
    wanted = sweep.curves[sweep.curves["optimizer"] == "sgd"]
    drawn = sorted(tuple(one.get_ydata()) for one in ax.lines)  # type: ignore[arg-type]
    assert drawn == sorted(tuple(some["lr_now"]) for _, some in wanted.groupby("run_id"))
    assert ax.get_yscale() == "log"
    assert "lr_schedule" not in plot.names(sizes), "a constant schedule needs no plot"


def test_values_that_are_names_have_a_place_each_in_the_order_of_the_spec() -> None:
    sweep = plot_cases.CASES["activations"]()
    assert plot.names(sweep) == ["by_model.activation"], "no U-curve"
    assert plot.head(sweep) is None
    (picture,) = plot.pictures(sweep)
    panels = picture.figure.axes
    for number, label in enumerate(("sgd", "adam")):
        rows = [row for row in sweep.facts.rows if row.optimizer == label]
        metric, _, steps, spread = panels[4 * number : 4 * number + 4]
        for ax in (metric, steps, spread):
            assert (ax.get_xlabel(), ax.get_xscale()) == ("activation", "linear")
            assert [text.get_text() for text in ax.get_xticklabels()] == ["relu", "tanh", "gelu"]
            assert not [one for one in ax.lines if len(one.get_xdata()) == 3], "there is nothing between two names"  # type: ignore[arg-type]
        objectives = [point.objective for row in rows for point in row.rates]
        assert marks(metric) == [[place, value] for place, value in enumerate(objectives) if value < 3]


def test_long_names_below_the_panels_are_upright_and_cover_nothing() -> None:
    (picture,) = plot.pictures(plot_cases.CASES["eight_names"]())
    assert layout.faults(picture.figure) == {}
    names = [text.get_text() for text in picture.figure.axes[0].get_xticklabels()]
    assert len(names) == len(plot_cases.NAMES)
    assert all(names)


@pytest.mark.parametrize(("metric", "arrow"), [("val_loss", "\u2191"), ("val_accuracy", "\u2193")])
def test_an_untrained_model_far_from_all_values_is_written_and_takes_no_room(metric: str, arrow: str) -> None:
    sweep = plot_cases.close(metric)
    (picture,) = plot.pictures(sweep)
    panel = picture.figure.axes[0]
    start = float(np.median([row.initial_objective for row in sweep.facts.rows]))
    assert f"untrained model: {words.compact(start)} {arrow}" in [note.get_text() for note in panel.texts]
    assert not dashed(panel)
    assert "untrained model" not in [text.get_text() for text in picture.figure.legends[0].get_texts()]
    low, high = panel.get_ylim()
    objectives = [run.objective for row in sweep.facts.rows for run in row.runs]
    assert low < min(objectives) < max(objectives) < high
    assert max(objectives) - min(objectives) > 0.6 * (high - low)
    assert layout.faults(picture.figure) == {}


def test_an_untrained_model_near_the_values_is_a_line(sizes: plot.SweepFigures, panels: list[Axes]) -> None:
    for number, label in enumerate(("sgd", "adam")):
        starts = [row.initial_objective for row in sizes.facts.rows if row.optimizer == label]
        (line_there,) = dashed(panels[4 * number])
        assert line_there == pytest.approx(np.median(starts))
        assert not [note for note in panels[4 * number].texts if "untrained" in note.get_text()]


@pytest.mark.parametrize(
    ("values", "start", "log", "alone"),
    [
        ([0.40, 0.42], 2.3, False, True),
        ([0.40, 1.5], 2.3, False, False),
        ([0.40, 0.42], 100.0, False, True),  # linear, where an axis up to the untrained model would be a log one
        ([1e-4, 0.1], 1e12, True, True),
        ([1e-4, 0.1], 10.0, True, False),
        ([0.40, 3.0], 2.3, False, False),
        ([0.40, 0.40], 2.3, False, True),
    ],
)
def test_the_axis_of_the_metric_is_up_to_the_untrained_model_or_of_the_values_alone(
    values: list[float], start: float, log: bool, alone: bool
) -> None:
    rows = fabricate.facts_of_medians([0.1, 0.2], {"sgd": values}, start=start).rows
    limits = rail.close_range(rows, "min")
    assert limits.log == log
    assert limits.low < min(values)
    assert limits.inside(start) != alone
    if alone:
        assert limits.high > max(values)
    else:
        assert limits == rail.value_range(rows, "min")


def dashed(ax: Axes) -> list[float]:
    """The heights of the dashed lines across a panel."""
    return [float(one.get_ydata()[0]) for one in ax.lines if one.get_linestyle() == "--" and one.get_marker() == "None"]  # type: ignore[index]
