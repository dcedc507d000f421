"""What a picture does not show is marked in it, and its texts say what it shows."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from lrsweep import plot
from lrsweep.analysis.analyse import analyse
from lrsweep.analysis.facts import Drift, Interval, SweepFacts
from lrsweep.plot import best_lr_drift, colors, heatmap, loss_curves, overlays, rail, style, ticks, u_curves
from lrsweep.plot.style import INK
from lrsweep.wording import words
from tests.support import tables as fabricate
from tests.support.planted_tables import frame, spec, table

RATES = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
MEDIANS = [2.2, 1.5, 0.3, 0.6, np.inf]


def texts(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.findobj(Text)]  # type: ignore[attr-defined]


def looks(facts: SweepFacts) -> list[style.Look]:
    return [style.look(index) for index in range(len(facts.rows))]


def u_curve(facts: SweepFacts) -> Figure:
    with style.styled():
        return u_curves.u_curve(facts, looks(facts))


# --- curves that leave their panel --------------------------------------------------------------------------------

VIEW = {"left": 0.0, "right": 4.0, "low": 0.1, "high": 10.0}


def exits(ax: Axes) -> list[PathCollection]:
    """The marks at the upper or lower border."""
    return [one for one in ax.collections if isinstance(one, PathCollection) and one.get_zorder() == 8]


@pytest.mark.parametrize(
    ("ys", "log", "expected"),
    [
        ([1, 2, 9, 1], False, None),
        ([1, 19, 1, 99], False, (0.5, True)),
        ([1, 100, 1], True, (0.5, True)),
        ([1, 1e30], False, (0.0, True)),
        ([1, 1, 0.05], False, (1 + 0.9 / 0.95, False)),
        ([1, -3], True, (0.0, False)),
        ([50, 1], False, (0.0, True)),
    ],
)
def test_where_a_curve_first_leaves(ys: list[float], log: bool, expected: tuple[float, bool] | None) -> None:
    xy = np.column_stack([np.arange(len(ys)), ys]).astype(float)
    found = loss_curves.exit_of(xy, loss_curves.Window(**VIEW, log=log))
    if expected is None:
        assert found is None
    else:
        assert found == (pytest.approx(expected[0], abs=0.01), expected[1])


@pytest.mark.parametrize("seeds", [2, 8])
def test_every_curve_that_leaves_its_panel_is_marked_and_counted(seeds: int) -> None:
    runs, curves = fabricate.frames(("sgd",), seeds=seeds)
    spike = (
        (curves["lr"] == 0.1) & (curves["epoch"] == 5) & (curves["seed"] < (2 if seeds == 2 else 5))
    )  # and thus the median
    curves = curves.assign(val_loss=curves["val_loss"].where(~spike, 1e4))
    facts = fabricate.facts_of(runs, curves, ("sgd",))
    lines = loss_curves.lines(curves, facts, "val_loss")
    with style.styled():
        figure = loss_curves.loss_curves(facts, facts.rows, lines, "val_loss", x="epoch")
        calm = fabricate.frames(("sgd",), rates=[1e-3, 1e-2], seeds=seeds)
        quiet_facts = fabricate.facts_of(*calm, ("sgd",))
        quiet_lines = loss_curves.lines(calm[1], quiet_facts, "val_loss")
        quiet = loss_curves.loss_curves(quiet_facts, quiet_facts.rows, quiet_lines, "val_loss", x="epoch")
    top = figure.axes[0].get_ylim()[1]
    ok = curves[curves["run_id"].isin(runs["run_id"][runs["status"] == "ok"])]
    medians = curves.groupby(["lr", "epoch"])["val_loss"].median()
    if seeds <= loss_curves.MOST_SEEDS:
        count = ok["run_id"][ok["val_loss"] > top].nunique()
    else:
        count = len(set(medians[medians > top].index.get_level_values("lr")) & set(ok["lr"]))
    places = np.concatenate([one.get_offsets() for one in exits(figure.axes[0])])
    assert len(places) == count > 0
    assert np.all(places[:, 1] == top)
    assert f"▲ {count} off scale" in texts(figure)
    assert "goes off scale" in texts(figure)
    assert not exits(quiet.axes[0])
    assert "▲" not in " ".join(texts(quiet))


def test_a_maximised_metric_leaves_downwards(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd",), seeds=1)
    sweep = plot.load(folder, metric="val_accuracy")
    view = loss_curves.window(list(sweep.lines.values()), "max")
    assert view.low > -0.5
    curve = np.array([[0.0, 0.1], [1.0, view.low - 5]])
    found = loss_curves.exit_of(curve, view)
    assert found is not None
    assert not found[1]


# --- colours of lines ---------------------------------------------------------------------------------------------


def test_lines_of_every_rate_stand_out_from_the_paper_and_grow_lighter() -> None:
    rgb = np.array([to_rgb(color) for color in colors.rate_colormap().colors])  # type: ignore[union-attr]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    light = linear @ np.array([0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(light) > 0)
    assert (1.05 / (light + 0.05)).min() >= 3.0


# --- axes of rates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(1e-8, 100.0), (1e-12, 1e3), (1e-6, 1.0), (1e-9, 1.0)])
def test_ticks_of_a_rate_axis_are_a_decade_apart_and_their_names_evenly_spread(low: float, high: float) -> None:
    figure = Figure()
    ax = figure.add_subplot()
    ticks.rate_axis(ax, low, high)
    places = np.log10(ax.get_xticks())
    assert np.allclose(np.diff(places), 1)
    named = [place for place, text in zip(places, ax.get_xticklabels(), strict=True) if text.get_text()]
    assert 4 <= len(named) <= 8
    assert len(set(np.round(np.diff(named)))) == 1


# --- the page -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (7, 3), (10, 4)])
def test_panels_are_laid_out_without_a_hole_where_three_do(count: int, columns: int) -> None:
    assert style.columns_for(count) == columns


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_good_range_has_a_hue_of_its_own_and_ends_at_the_rail(mode: str) -> None:
    sign = 1 if mode == "min" else -1
    medians = [sign * value for value in MEDIANS]
    ax = u_curve(fabricate.facts_of_medians(RATES, {"sgd": medians}, start=sign * 2.3, mode=mode)).axes[0]
    spans = {
        color: [one for one in ax.patches if to_hex(one.get_facecolor()) == color.lower()]
        for color in (style.GOOD, "#f7ecec")
    }
    (good,), (rail,) = spans.values()
    boxes = [one.get_window_extent() for one in (good, rail)]
    below, above = boxes if mode == "min" else reversed(boxes)
    assert below.y1 == pytest.approx(above.y0)
    assert style.GOOD not in style.COLORS


@pytest.mark.parametrize("worst", [2.0, np.inf])
def test_there_is_a_rail_only_where_something_diverged(worst: float) -> None:
    ax = u_curve(fabricate.facts_of_medians(RATES, {"sgd": [*MEDIANS[:4], worst]}, start=2.3)).axes[0]
    names = {text.get_text() for text in ax.texts}
    assert ("diverged" in names) == math.isinf(worst)
    share = (ax.get_ylim()[1] - 2.3) / np.diff(ax.get_ylim())[0]
    assert (share > 0.1) == math.isinf(worst), "no empty band above the untrained model"


def test_a_long_title_leaves_room_for_the_key_beside_it() -> None:
    names = ("sgd(momentum=0.9, nesterov=True, weight_decay=0.0005)", "adam")
    figure = u_curve(fabricate.facts_of_medians(RATES, dict.fromkeys(names, MEDIANS), start=2.3))
    with style.styled():
        figure.canvas.draw()
        ax = figure.axes[0]
        title = next(text for text in ax.texts if text.get_text().startswith("sgd(momentum"))
        end = title.get_window_extent(figure.canvas.get_renderer()).x1  # type: ignore[attr-defined]
    box = ax.get_window_extent()
    assert end < box.x1 - u_curves.KEY * box.width


def test_every_panel_at_the_left_names_its_axis() -> None:
    labels = tuple("abcdef")
    figure = u_curve(fabricate.facts_of_medians(RATES, dict.fromkeys(labels, MEDIANS), start=2.3))
    named = [index for index, ax in enumerate(figure.axes) if ax.get_ylabel()]
    assert named == [0, 3, 6]


# --- what is shown ------------------------------------------------------------------------------------------------


def test_every_picture_says_by_which_metric_and_at_what_point_of_the_run(tmp_path: Path) -> None:
    axes = {"train.batch_size": [16, 64]}
    folder = fabricate.folder(tmp_path, optimizers=("sgd", "adam"), rates=RATES, seeds=2, rows=10, axes=axes)
    for metric, at, short, long in (
        ("val_accuracy", "best", "val_accuracy (best)", "best val_accuracy"),
        ("train_loss", "last_3", "train_loss (last 3)", "train_loss (mean of the last 3 evaluations)"),
    ):
        drawn = list(plot.pictures(plot.load(folder, metric=metric, at=at)))
        assert len(drawn) >= 8
        for picture in drawn:
            found = " ".join([*texts(picture.figure), *(ax.get_ylabel() for ax in picture.figure.axes)])
            assert short in found or long in found, picture.name


def test_numbers_of_few_digits_are_written_out() -> None:
    assert words.compact(183.0, 2) == "180"
    assert words.compact(0.0123, 2) == "0.012"
    assert words.compact(316.228) == "316"


@pytest.mark.parametrize("failed", [True, False])
def test_the_rail_names_failed_runs_apart_from_diverged_ones(failed: bool) -> None:
    """Squares beside the word `diverged` alone read as runs that diverged."""
    runs, curves = fabricate.frames(("sgd", "adam"), fabricate.grid(per_decade=1), failed=(0, 1, 2) if failed else ())
    figure = u_curve(fabricate.facts_of(runs, curves, ("sgd", "adam")))
    notes = {note.get_text(): note for note in figure.axes[0].texts if note.get_text() in ("diverged", "failed")}
    assert set(notes) == ({"diverged", "failed"} if failed else {"diverged"})
    if failed:
        boxes = [notes[name].get_window_extent() for name in ("failed", "diverged")]
        assert boxes[0].y1 <= boxes[1].y0 + 1, "one above the other"
        assert boxes[1].y1 <= figure.axes[0].get_window_extent().y1 + 2
        drawn = figure.axes[0].collections
        (squares,) = (mark for mark in drawn if len(mark.get_facecolor()) == 0 and mark.zorder == 6)
        assert notes["failed"].xy[1] == pytest.approx(squares.get_offsets()[0][1])


# --- the heatmap --------------------------------------------------------------------------------------------------


def heat(tmp_path: Path, rates: list[float], metric: str) -> tuple[Figure, SweepFacts]:
    axes = {"train.batch_size": [16, 64, 256]}
    folder = fabricate.folder(tmp_path, optimizers=("sgd", "adam"), rates=rates, seeds=1, rows=10, axes=axes)
    facts = plot.load(folder, metric=metric).facts
    with style.styled():
        figure = heatmap.heatmap(facts, "train.batch_size")
        figure.canvas.draw()
    return figure, facts


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_colour_bar_of_a_heatmap_has_the_values_of_the_metric_and_the_lightest_is_the_best(
    tmp_path: Path, metric: str
) -> None:
    figure, facts = heat(tmp_path, RATES, metric)
    bar = figure.axes[-1]
    seen = [point.objective for row in facts.rows for point in row.rates if np.isfinite(point.objective)]
    best, start = (max, min) if metric == "val_accuracy" else (min, max)
    ends = sorted([best(seen), start(row.initial_objective for row in facts.rows)])
    assert sorted(bar.get_ylim()) == pytest.approx(ends)
    shown = [float(text.get_text()) for text in bar.get_yticklabels() if text.get_text()]
    assert any(ends[0] <= value <= ends[1] for value in shown)
    assert min(shown) >= 0
    row = facts.rows[-1]  # adam at 256
    cells = figure.axes[1].collections[0].get_facecolor()[-len(RATES) :, :3].sum(axis=1)  # type: ignore[index]
    finite = {point.lr: light for point, light in zip(row.rates, cells, strict=True) if np.isfinite(point.objective)}
    assert max(finite, key=lambda lr: finite[lr]) == row.best_lr.value


def test_the_name_above_the_colour_bar_is_clear_of_the_panels(tmp_path: Path) -> None:
    figure, _ = heat(tmp_path, RATES, "val_accuracy")
    (name,) = (one for one in figure.findobj(Text) if one.get_text() == "val_accuracy")  # type: ignore[attr-defined]
    box = name.get_window_extent()
    assert box.x0 > figure.axes[1].get_window_extent().x1
    assert box.x1 < figure.bbox.x1


def test_the_rates_below_a_heatmap_stand_apart_where_they_are_many_and_uneven(tmp_path: Path) -> None:
    decades = [1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3]
    rates = [*decades, *(float(f"{rate:.3g}") for rate in np.geomspace(2e-3, 9e-3, 25)), 0.01, 0.1]
    figure, _ = heat(tmp_path, rates, "val_loss")
    for ax in figure.axes[:2]:
        boxes = [text.get_window_extent() for text in ax.get_xticklabels() if text.get_text()]
        assert len(boxes) >= 3
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


# --- titles -------------------------------------------------------------------------------------------------------


def test_panels_of_several_axes_tell_their_values_apart(tmp_path: Path) -> None:
    axes = {"train.batch_size": [16, 256], "model.hidden": [[128, 128], [256, 256]]}
    label = "sgd(momentum=0.9)"
    sweep = plot.load(fabricate.folder(tmp_path, optimizers=(label,), rates=RATES, seeds=2, rows=8, axes=axes))
    pictures = {picture.name: picture.figure for picture in plot.pictures(sweep)}
    parts = {"u_curve": ["hidden=[128, 128]", "hidden=[256, 256]"]}
    parts["loss_curves"] = [words.axes_text(row.axes) for row in sweep.facts.rows]
    for name, wanted in parts.items():
        for values, ax in zip(wanted, pictures[name].axes, strict=True):
            lines = {note.get_text(): note for note in ax.texts}
            assert values in lines, "whole"
            assert lines[values].get_color() == style.GREY
            heights = [lines[text].get_window_extent().y0 for text in (label, values)]
            assert heights[0] > heights[1]
        figure = pictures[name]
        subtitle = next(note for note in figure.texts if "2 seeds" in note.get_text())
        titles = [note for ax in figure.axes for note in ax.texts if note.get_text() == label]
        assert max(note.get_window_extent().y1 for note in titles) < subtitle.get_window_extent().y0
    assert {"batch_size=16", "batch_size=256"} <= set(key(pictures["u_curve"])), "the other axis is told by color"


# --- the drift of the best rate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("refined", [False, True])
def test_a_line_of_the_drift_joins_what_its_slope_is_fitted_to(refined: bool) -> None:
    """The points at an edge of the grid rise, the others fall."""
    used = [np.nan, 3.5e-2, 1.2e-2, 2.8e-3, np.nan] if refined else [np.nan, 0.03, 0.01, 0.003, np.nan]
    one = Drift(
        optimizer="sgd", against="width", fixed={}, values=(1.0, 10.0, 100.0, 1000.0, 10000.0),
        best_lrs=(1e-4, 0.03, 0.01, 0.003, 1.0), refined_lrs=tuple(used), refined=refined,
        slope=Interval(value=-0.5, low=np.nan, high=np.nan, n=1), from_rows=False,
        stays=False, grid_step=0.5,
    )  # fmt: skip
    whole = replace(
        one, optimizer="adam", values=one.values[1:4], best_lrs=one.best_lrs[1:4], refined_lrs=tuple(used[1:4])
    )
    facts = replace(fabricate.facts_of_medians(RATES, {"sgd": MEDIANS}, start=2.3), drifts=(one, whole))
    with style.styled():
        figure = best_lr_drift.drift(facts, ["sgd", "adam"])
    (ax,) = figure.axes
    joined = [line for line in ax.lines if line.get_linestyle() != "None"]
    assert [list(line.get_xdata()) for line in joined] == [[10, 100, 1000]] * 2
    assert [list(line.get_ydata()) for line in joined] == [used[1:4]] * 2
    (faint,) = [line for line in ax.lines if line.get_linestyle() == "None"]
    assert list(zip(faint.get_xdata(), faint.get_ydata(), strict=True)) == [(1, 1e-4), (10000, 1)]
    assert faint.get_alpha() < 0.6
    assert ["3 of 5 points" in text.get_text() for text in ax.get_legend().get_texts()] == [True, False]
    named = key(figure)
    assert "at the edge of the grid (not used in the fit)" in named
    assert any("parabola" in text for text in named) == refined
    calm = replace(facts, drifts=(whole,))
    with style.styled():
        assert not any("left out" in text for text in key(best_lr_drift.drift(calm, ["sgd", "adam"])))


def test_where_no_drift_is_seen_the_line_is_flat() -> None:
    """A parabola falls within the grid step where the grid's best rate stays; the key says `no drift seen`."""
    calm = Drift(
        optimizer="sgd", against="budget", fixed={}, values=(10.0, 100.0, 1000.0, 10000.0),
        best_lrs=(0.01, 0.01, 0.01, 1.0), refined_lrs=(1.4e-2, 1e-2, 7e-3, np.nan), refined=True,
        slope=Interval(value=np.nan, low=np.nan, high=np.nan, n=3), from_rows=True, stays=True, grid_step=0.5,
    )  # fmt: skip
    moving = replace(
        calm, optimizer="adam", best_lrs=(0.03, 0.01, 0.003, 1.0), stays=False,
        slope=Interval(value=-0.5, low=np.nan, high=np.nan, n=3),
    )  # fmt: skip
    facts = replace(fabricate.facts_of_medians(RATES, {"sgd": MEDIANS}, start=2.3), drifts=(calm, moving))
    with style.styled():
        figure = best_lr_drift.drift(facts, ["sgd", "adam"])
    (ax,) = figure.axes
    (flat, sloped) = [line for line in ax.lines if line.get_linestyle() != "None"]
    assert list(flat.get_ydata()) == [0.01] * 3
    assert list(sloped.get_ydata()) == [1.4e-2, 1e-2, 7e-3]
    assert "no drift seen" in ax.get_legend().get_texts()[0].get_text()
    assert (flat.get_markerfacecolor(), sloped.get_markerfacecolor()) == (flat.get_color(), "white")
    assert key(figure)[:2] == [
        "best learning rate of the grid",
        "best learning rate, between grid points (parabola)",
    ]
    with style.styled():
        alone = key(best_lr_drift.drift(replace(facts, drifts=(calm,)), ["sgd", "adam"]))
    assert not any("parabola" in text for text in alone)


def key(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


# --- the aligned curves -------------------------------------------------------------------------------------------


def test_the_lines_at_a_factor_of_three_are_in_the_key() -> None:
    facts = fabricate.facts_of_medians(RATES, {"sgd": MEDIANS}, start=2.3)
    with style.styled():
        figure = overlays.aligned(facts, looks(facts))
    drawn = [line for line in figure.axes[0].lines if list(line.get_xdata()) in ([1 / 3] * 2, [3.0] * 2)]
    assert len(drawn) == 2
    handles = dict(zip(key(figure), figure.legends[0].legend_handles, strict=True))
    found = handles["a factor of 3 from the best lr"]
    assert {(line.get_color(), line.get_linewidth()) for line in drawn} == {(found.get_color(), found.get_linewidth())}


def test_aligned_curves_have_a_gap_where_runs_failed_and_a_cross_where_they_diverged() -> None:
    lrs = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
    values: list[list[Any]] = [[2.0, 2.0], [None, None], [0.5, 0.5], [0.9, 0.9], [math.inf, math.inf], [None, None]]
    facts = analyse(frame(table("sgd", lrs, values)), None, spec("sgd"), {})
    with style.styled():
        figure = overlays.aligned(facts, looks(facts))
    lines = [(np.round(line.get_xdata(), 6).tolist(), line) for line in figure.axes[0].lines if len(line.get_xdata())]
    joined = {tuple(x): line for x, line in lines if line.get_linestyle() != "None" and len({*x} & {1.0, 10.0, 100.0})}
    assert {(1.0, 10.0), (10.0, 100.0)} <= set(joined)
    ends = {place for x, line in lines if line.get_linestyle() != "None" and line.get_color() != INK for place in x}
    assert not ends & {0.1, 1000.0}, "no line goes to a rate whose runs failed"
    assert joined[10.0, 100.0].is_dashed(), "dotted, to a diverged rate"
    assert not joined[1.0, 10.0].is_dashed()
    assert [x for x, line in lines if line.get_marker() == "x"] == [[100.0]]
    assert "half or more of the seeds diverged" in key(figure)


def test_values_off_the_scale_keep_clear_of_each_other() -> None:
    scale = SimpleNamespace(offset=0.0, exponent=0)
    limits = SimpleNamespace(low=0.0, scale=scale, place=lambda name: 0.95)
    figure = Figure(figsize=(2.6, 2.0), dpi=100)
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    ax.set_xscale("log")
    for low in (0.2, 0.25, 0.316, 0.4, 0.5):
        ax.cla()
        ax.set_xscale("log")
        ax.set_xlim(1e-3, 1.2)
        rail.write_values(ax, {low: 0.5, 1.0: 0.59}, limits)  # type: ignore[arg-type]
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in ax.texts]
        assert boxes, "room for one"
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2)), low


# --- minor ticks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "numbers"), [(9.0, [2, 3, 4, 5, 6, 7, 8, 9]), (4.0, [2, 5]), (0.8, [])])
def test_a_log_axis_has_the_minor_ticks_that_can_be_told_apart(width: float, numbers: list[int]) -> None:
    ax = Figure(figsize=(width, 2)).add_axes((0, 0, 1, 1))
    ticks.rate_axis(ax, 1e-6, 1.0)
    assert [round(tick * 1e3, 9) for tick in ax.xaxis.get_minorticklocs() if 1e-3 < tick < 1e-2] == numbers
