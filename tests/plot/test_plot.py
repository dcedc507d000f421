"""The pictures: everything that was run is in them, nothing odd in the numbers bends them, and bytes repeat."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from lrsweep import plot
from lrsweep.analysis.facts import SweepFacts
from lrsweep.errors import UsageError
from lrsweep.plot import (
    best_lr_drift,
    draw,
    heatmap,
    loss_curves,
    overlays,
    rail,
    selection,
    sensitivity,
    style,
    text,
    ticks,
    time_to_target,
    u_curves,
)
from lrsweep.spec.model import Named
from lrsweep.wording import advice, words
from tests.support import plot_cases
from tests.support import tables as fabricate
from tests.support.sweeps import forked

RATES = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
U = [2.2, 1.5, 0.3, 0.6, math.inf]


def looks(facts: SweepFacts) -> list[style.Look]:
    return [style.look(index) for index in range(len(facts.rows))]


def u_curve(facts: SweepFacts) -> Figure:
    with style.styled():
        return u_curves.u_curve(facts, looks(facts))


def marks(ax: Axes, *, color: str | None = None) -> list[PathCollection]:
    found = [one for one in ax.collections if isinstance(one, PathCollection)]
    return [one for one in found if color is None or to_hex(one.get_edgecolor()[0]) == color.lower()]


def counted(collections: list[PathCollection]) -> int:
    return sum(len(one.get_offsets()) for one in collections)  # type: ignore[arg-type]


def texts(figure: Figure) -> str:
    return "\n".join(one.get_text() for one in figure.findobj(Text))  # type: ignore[attr-defined]


def fits(figure: Figure) -> list[str]:
    """Texts that stick out of the figure."""
    with style.styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        box = figure.bbox.padded(2)
        out = []
        for one in figure.findobj(Text):
            if one.get_visible() and one.get_text().strip():  # type: ignore[attr-defined]
                extent = one.get_window_extent(renderer)
                if not (box.contains(extent.x0, extent.y0) and box.contains(extent.x1, extent.y1)):
                    out.append(one.get_text())  # type: ignore[attr-defined]
        return out


# --- the U-curve --------------------------------------------------------------------------------------------------


def test_every_run_has_a_mark_whatever_became_of_it() -> None:
    runs, curves = fabricate.frames(("sgd", "adam"), failed=(3, 4), seeds=3)
    facts = fabricate.facts_of(runs, curves, ("sgd", "adam"))
    figure = u_curve(facts)
    for ax, row in zip(figure.axes, facts.rows, strict=False):
        diverged = marks(ax, color=style.RED)
        assert counted(diverged) == row.n_diverged > 0
        stars_and_rings = [one for one in marks(ax) if one.get_zorder() >= 7]
        assert counted(marks(ax)) - counted(stars_and_rings) == row.n_runs


def test_a_loss_of_1e30_bends_no_axis_and_is_still_there() -> None:
    facts = fabricate.facts_of_medians(RATES, {"sgd": [2.2, 1.5, 0.3, 0.6, 1e30]}, start=2.3)
    ax = u_curve(facts).axes[0]
    assert ax.get_ylim()[1] < 4.0
    assert ax.get_ylim()[0] > -1.0
    beyond = [one for one in marks(ax) if one.get_zorder() == 6]
    assert counted(beyond) == 3
    assert "off scale (finite)" in texts(ax.figure)  # type: ignore[arg-type]
    assert "1e30" in texts(ax.figure).split("\n")  # type: ignore[arg-type]
    assert {"off scale"} == {text.get_text() for text in ax.texts} & {"off scale", "diverged", "failed"}


def test_the_rail_is_above_for_losses_and_below_for_accuracies() -> None:
    for mode, medians, start in (("min", U, 2.3), ("max", [0.1, 0.5, 0.9, 0.8, -math.inf], 0.1)):
        ax = u_curve(fabricate.facts_of_medians(RATES, {"sgd": medians}, start=start, mode=mode)).axes[0]
        (cross,) = marks(ax, color=style.RED)
        heights = np.asarray(cross.get_offsets())[:, 1]  # axes fractions
        assert np.all(heights > 0.95) if mode == "min" else np.all(heights < 0.05)
        places = [tick for tick in ax.get_yticks() if ax.get_ylim()[0] <= tick <= ax.get_ylim()[1]]
        fractions = [(tick - ax.get_ylim()[0]) / np.diff(ax.get_ylim())[0] for tick in places]
        assert all(f <= 0.95 for f in fractions) if mode == "min" else all(f >= 0.05 for f in fractions)


def test_best_recommended_default_and_traditional_rates_are_marked() -> None:
    facts = fabricate.facts_of_medians(RATES, {"sgd": U}, start=2.3)
    row = facts.rows[0]
    ax = u_curve(facts).axes[0]
    star = [one for one in marks(ax) if one.get_zorder() == 8]
    ring = [one for one in marks(ax) if one.get_zorder() == 7]
    assert np.allclose(star[0].get_offsets(), [[1e-2, 0.3]])
    assert np.allclose(np.asarray(ring[0].get_offsets())[0, 0], row.recommended_lr)
    vertical = [line for line in ax.lines if list(line.get_xdata()) == [1e-3, 1e-3]]
    assert len(vertical) == 1  # torch's default rate of sgd
    assert {0.01, 0.1} <= {round(float(tick), 9) for tick in ax.get_xticks()}
    triangles = [line for line in ax.lines if line.get_marker() == "^" and line.get_linestyle() == "None"]
    assert list(triangles[0].get_xdata()) == [0.01, 0.1]


@pytest.mark.parametrize(
    ("medians", "said"),
    [
        ([2.2, 1.5, 0.9, 0.6, 0.3], "best lr is at the high end; widen the grid"),
        ([0.3, 0.6, 1.0, 2.0, math.inf], "best lr is at the low end; widen the grid"),
        ([2.4, 2.5, 2.6, 2.7, 2.8], "no lr improved on the untrained model"),
        ([math.inf] * 5, "half or more seeds diverge at every lr"),
        ([0.51, 0.5, 0.5, 0.5, 0.51], "flat: all learning rates perform about the same"),
    ],
)
def test_it_says_when_there_is_no_u(medians: list[float], said: str) -> None:
    facts = fabricate.facts_of_medians(RATES, {"sgd": medians}, start=2.3, spread=0.001)
    assert said in texts(u_curve(facts)) or said in advice.warning_line(facts.rows[0])
    assert said in texts(u_curve(facts))


def test_every_picture_of_a_sweep_carries_its_budget(drawn: plot.SweepFigures) -> None:
    for picture in plot.pictures(drawn):
        assert "20 epochs" in texts(picture.figure), picture.name
        assert "3 seeds" in texts(picture.figure), picture.name


def test_positive_losses_over_decades_get_a_log_axis_and_negative_ones_a_linear_one() -> None:
    medians = [1.0, 0.1, 1e-5, 1e-3, math.inf]
    assert u_curve(fabricate.facts_of_medians(RATES, {"sgd": medians}, start=2.0)).axes[0].get_yscale() == "log"
    moved = [value - 50 for value in medians]
    assert u_curve(fabricate.facts_of_medians(RATES, {"sgd": moved}, start=-48.0)).axes[0].get_yscale() == "linear"


# --- colours ------------------------------------------------------------------------------------------------------


def test_colours_follow_the_spec_and_not_what_is_there(drawn: plot.SweepFigures) -> None:
    by_label = dict(zip([row.optimizer for row in drawn.facts.rows], drawn.looks, strict=True))
    fewer = replace(drawn, facts=replace(drawn.facts, rows=drawn.facts.rows[:0:-1]))
    for row, look in zip(fewer.facts.rows, fewer.looks, strict=True):
        assert look == by_label[row.optimizer]


def test_looks_stay_distinct_for_77_curves() -> None:
    assert len({style.look(index) for index in range(77)}) == 77


@pytest.mark.parametrize("kind", ["normal", "protanopia", "deuteranopia", "tritanopia"])
def test_the_first_seven_colours_differ_for_everyone(kind: str) -> None:
    """Machado, Oliveira and Fernandes 2009, full severity, on linear RGB; told apart by 0.05 or more there."""
    matrix = {
        "normal": "1 0 0; 0 1 0; 0 0 1",
        "protanopia": "0.152286 1.052583 -0.204868; 0.114503 0.786281 0.099216; -0.003882 -0.048116 1.051998",
        "deuteranopia": "0.367322 0.860646 -0.227968; 0.280085 0.672501 0.047413; -0.011820 0.042940 0.968881",
        "tritanopia": "1.255528 -0.076749 -0.178779; -0.078411 0.930809 0.147602; 0.004733 0.691367 0.303900",
    }[kind]
    rgb = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in style.COLORS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array([row.split() for row in matrix.split(";")], dtype=float).T, 0, 1)
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert distance[~np.eye(len(seen), dtype=bool)].min() > 0.05


# --- loss curves --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate.folder(tmp_path_factory.mktemp("plot"), rates=fabricate.grid(1e-4, 1.0, 2), failed=(5,))


@pytest.fixture(scope="module")
def drawn(folder: Path) -> plot.SweepFigures:
    return plot.load(folder)


def segments(ax: Axes) -> int:
    found = [one for one in ax.collections if isinstance(one, LineCollection)]
    return sum(len(one.get_segments()) for one in found)


def crosses(ax: Axes) -> list[PathCollection]:
    """Where diverged runs left a panel of loss curves."""
    return [one for one in ax.collections if isinstance(one, PathCollection) and one.get_zorder() == 9]


def test_every_run_is_a_line_and_every_divergence_a_cross(drawn: plot.SweepFigures) -> None:
    figure = plot.loss_curve(drawn)
    for ax, row in zip(figure.axes, drawn.facts.rows, strict=False):
        at_best = sum(run.lr == row.best_lr.value for run in row.runs)
        assert segments(ax) == row.n_runs - row.n_failed + at_best  # and the training loss at the best rate
        assert counted(crosses(ax)) == row.n_diverged
        assert ax.get_yscale() == "log"
        assert ax.get_ylim()[1] < 100


def test_a_diverged_run_is_marked_where_it_left_and_not_at_its_start(drawn: plot.SweepFigures) -> None:
    figure = plot.loss_curve(drawn)
    for ax, row in zip(figure.axes, drawn.facts.rows, strict=False):
        places = np.concatenate([np.asarray(one.get_offsets()) for one in crosses(ax)])
        assert np.all(places[:, 0] > 0)
        assert np.all(places[:, 1] == ax.get_ylim()[1])
        ends = {run.run_id: run.diverged_step for run in row.runs if run.status == "diverged"}
        outside = drawn.curves[drawn.curves["run_id"].isin(list(ends))]
        outside = outside[~(outside["val_loss"] <= ax.get_ylim()[1])]
        assert sorted(places[:, 0]) == sorted(outside.groupby("run_id")["epoch"].min())


def test_at_most_seven_rates_of_a_panel_have_names_the_best_and_the_first_unusable_among_them() -> None:
    rates = fabricate.grid(1e-6, 1.0, 4)
    runs, curves = fabricate.frames(("sgd", "adam"), rates=rates, seeds=2)
    facts = fabricate.facts_of(runs, curves, ("sgd", "adam"))
    with style.styled():
        lines = loss_curves.lines(curves, facts, "val_loss")
        figure = loss_curves.loss_curves(facts, facts.rows, lines, "val_loss", x="epoch")
    for ax, row in zip(figure.axes, facts.rows, strict=True):
        named = [note.get_text() for note in ax.texts if note.get_position() == (4, 0)]
        assert len(named) == 7
        assert f"{words.compact(row.best_lr.value)} ★" in named
        assert words.compact(row.margins.unusable_from) in named
        boxes = sorted(
            (note.get_window_extent() for note in ax.texts if note.get_position() == (4, 0)), key=lambda box: box.y0
        )
        assert all(low.y1 <= high.y0 + 2.5 for low, high in pairwise(boxes)), "names side by side"


@pytest.mark.parametrize("shift", [-100.0, -1.0], ids=["all below", "start above"])
def test_losses_below_zero_are_drawn_on_a_linear_axis(shift: float) -> None:
    runs, curves = fabricate.frames(("adam",), seeds=2, shift=shift)
    facts = fabricate.facts_of(runs, curves, ("adam",))
    with style.styled():
        lines = loss_curves.lines(curves, facts, "val_loss")
        ax = loss_curves.loss_curves(facts, facts.rows, lines, "val_loss", x="epoch").axes[0]
    assert ax.get_yscale() == "linear"
    assert shift - 1 < ax.get_ylim()[0] < ax.get_ylim()[1] < shift + 10


def test_many_seeds_become_a_median_with_its_range() -> None:
    runs, curves = fabricate.frames(("adam",), rates=[1e-3, 1e-2], seeds=8)
    facts = fabricate.facts_of(runs, curves, ("adam",))
    with style.styled():
        lines = loss_curves.lines(curves, facts, "val_loss")
        ax = loss_curves.loss_curves(facts, facts.rows, lines, "val_loss", x="epoch").axes[0]
    bands = [one for one in ax.collections if isinstance(one, PolyCollection)]
    assert len(bands[0].get_paths()) == 2
    tables = [curves[curves["lr"] == lr].pivot(index="epoch", columns="seed", values="val_loss") for lr in (1e-3, 1e-2)]
    found = [one for one in ax.collections if isinstance(one, LineCollection) and len(one.get_segments())]
    medians = [part for one in found for part in one.get_segments()]
    expected = sorted(table.median(axis=1).to_numpy().sum() for table in tables)
    assert np.allclose(sorted(part[:, 1].sum() for part in medians), expected)


def test_medians_over_seeds_pass_over_what_is_not_finite_or_not_there() -> None:
    a = np.array([[0, 2.0], [1, 1.0], [2, 0.5]])
    b = np.array([[0, 4.0], [1, np.nan]])
    x, middle, low, high = loss_curves.over_seeds([a, b])
    assert x.tolist() == [0, 1, 2]
    assert middle.tolist() == [3.0, 1.0, 0.5]
    assert low.tolist() == [2.0, 1.0, 0.5]
    assert high.tolist() == [4.0, 1.0, 0.5]
    *_, low, high = loss_curves.over_seeds([np.array([[0.0, y]]) for y in range(1, 9)])
    assert (low[0], high[0]) == (2, 6), "quartiles that were seen"


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    runs, curves = fabricate.frames(("adam",), rates=[1e-3], seeds=1, rows=5000)
    facts = fabricate.facts_of(runs, curves, ("adam",), rows=5000)
    (line,) = loss_curves.lines(curves, facts, "val_loss").values()
    assert len(line.xy) <= loss_curves.MOST_POINTS + 1
    assert line.xy[0, 0] == 0
    assert line.xy[-1].tolist() == [5000.0, curves["val_loss"].iloc[-1]]


# --- the other pictures -------------------------------------------------------------------------------------------


def test_aligned_curves_touch_zero_at_their_best_rate() -> None:
    medians = {"sgd": U, "adam": [1.0, 0.4, 1.0, 2.0, math.inf], "stuck": [2.4, 2.5, 2.6, 2.7, 2.8]}
    facts = fabricate.facts_of_medians(RATES, medians, start=2.3)
    with style.styled():
        figure = overlays.aligned(facts, looks(facts))
    curves = [line for line in figure.axes[0].lines if line.get_marker() in {"o", "s", "^"}]
    assert len(curves) == 2
    for line in curves:
        at = dict(zip(np.round(line.get_xdata(), 9), line.get_ydata(), strict=True))
        assert at[1.0] == pytest.approx(0.0)
    assert "not shown (nothing trained): stuck" in texts(figure)


def test_share_of_the_gain_that_is_lost() -> None:
    row = fabricate.facts_of_medians(RATES, {"sgd": U}, start=2.3).rows[0]
    assert row.lost_share(0.3) == 0.0
    assert row.lost_share(2.3) == pytest.approx(1.0)
    assert row.lost_share(1.3) == pytest.approx(0.5)
    assert row.lost_share(math.inf) == math.inf


def test_a_heatmap_has_a_cell_per_rate_and_axis_value_a_ridge_and_crosses(tmp_path: Path) -> None:
    axes = {"train.batch_size": [16, 64, 256]}
    rates = fabricate.grid(1e-3, 1)
    sweep = plot.load(fabricate.folder(tmp_path, optimizers=("sgd", "adam"), rates=rates, seeds=1, axes=axes))
    with style.styled():
        figure = heatmap.heatmap(sweep.facts, "train.batch_size")
    for label, ax in zip(("sgd", "adam"), figure.axes, strict=False):
        rows = [row for row in sweep.facts.rows if row.optimizer == label]
        cells = [one for one in ax.collections if isinstance(one, PolyCollection)]
        assert [len(one.get_facecolor()) for one in cells] == [row.n_rates for row in rows] == [7, 7, 7]
        gone = sum(not math.isfinite(point.objective) for row in rows for point in row.rates)
        assert counted(marks(ax, color=style.RED)) == gone
        ridge = [line for line in ax.lines if line.get_marker() == "*"]
        outlined = [one for one in ax.patches if to_hex(one.get_edgecolor()) == heatmap.OUTLINE.lower()]
        assert len(outlined) == sum(row.trained for row in rows), "the good range of each"
        grid = sorted({point.lr for row in rows for point in row.rates})
        assert [grid[int(x)] for line in ridge for x in line.get_xdata()] == [row.best_lr.value for row in rows]
    assert [one.get_text() for one in figure.axes[0].get_yticklabels()] == ["16", "64", "256"]


def test_the_plot_of_sensitivities_shows_the_numbers_of_the_summary(drawn: plot.SweepFigures) -> None:
    with style.styled():
        spread, width, cost = sensitivity.sensitivity(drawn.facts, drawn.looks).axes
    rows = drawn.facts.rows
    dots = [line for line in spread.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [row.sensitivity.window for row in rows]  # type: ignore[index]
    ranges = [list(line.get_xdata()) for line in width.lines if line.get_linewidth() == 4]
    assert ranges == [[row.good_range.low, row.good_range.high] for row in rows]
    at_default = [line.get_xdata()[0] for line in cost.lines if line.get_marker() in ("s", "x")]  # type: ignore[index]
    lost = [row.lost_share(row.default.objective) for row in rows if math.isfinite(row.default.objective)]
    assert at_default == pytest.approx([min(share, sensitivity.BORDER) for share in lost])
    assert spread.get_xlabel() == "S, best three decades (val_loss)"


def test_times_that_never_come_stand_on_their_rail(drawn: plot.SweepFigures) -> None:
    with style.styled():
        (ax,) = time_to_target.time_to_target(drawn.facts, drawn.looks).axes
    never = [line for line in ax.lines if line.get_linestyle() == "None" and line.get_transform() != ax.transData]
    never = [line for line in never if line.get_markersize() == 3]
    wanted = sum(point.time == math.inf for row in drawn.facts.rows for point in row.rates)
    assert sum(len(line.get_xdata()) for line in never) == wanted > 0  # type: ignore[arg-type]


# --- sizes --------------------------------------------------------------------------------------------------------


def test_long_and_odd_labels_are_cut_and_never_read_as_mathematics(tmp_path: Path) -> None:
    labels = ("$x_1$ with $ signs", "a" * 200, "日本語 <b>")
    folder = fabricate.folder(tmp_path, optimizers=labels, rates=RATES, seeds=2, rows=8)
    for picture in plot.pictures(plot.load(folder)):
        style.rendered(picture.figure, "svg")
        assert fits(picture.figure) == [], picture.name
        assert "$x_1$" in texts(picture.figure)
        assert not any(one.get_parse_math() for one in picture.figure.findobj(Text))  # type: ignore[attr-defined]


def test_many_axis_values_are_one_panel_per_optimizer(tmp_path: Path) -> None:
    axes = {"train.batch_size": [2**k for k in range(10)]}
    folder = fabricate.folder(tmp_path, optimizers=("sgd", "adam"), rates=RATES, seeds=1, rows=8, axes=axes)
    sweep = plot.load(folder)
    assert len(plot.u_curve(sweep).axes) == 2
    names = [picture.name for picture in plot.pictures(sweep)]
    assert "heatmap_train.batch_size" in names
    assert all(fits(picture.figure) == [] for picture in plot.pictures(sweep))


def test_texts_are_wrapped_between_their_parts_and_only_then_shortened() -> None:
    facts = "best 0.1 · good 0.05 to 0.2 (0.6 decades) · S 1.2"
    assert text.wrap(facts, 9.0, 8) == [facts]
    assert text.wrap("", 9.0, 8) == []
    assert text.wrap(facts, 2.0, 8) == ["best 0.1", "good 0.05 to 0.2 (0.6 decades)", "S 1.2"]
    label = "sgd(momentum=0.9, nesterov=True)"
    assert text.wrap(label, 1.2, 9) == ["sgd(momentum=", "0.9,", "nesterov=True)"]
    assert text.wrap("a" * 200, 1.0, 9)[0].count("…") == 1
    assert text.wrap("one two three four", 0.4, 9, most=2)[-1].endswith("four") or "…" in "".join(
        text.wrap("one two three four", 0.4, 9, most=2)
    )


def test_cut_texts_keep_both_ends_and_fit() -> None:
    cut = text.fit("sgd(momentum=0.9, nesterov=True, weight_decay=0.0001)", 1.5, 9)
    assert cut.startswith("sgd(mom")
    assert cut.endswith(")")
    assert "…" in cut
    assert text.width_of(cut, 9) <= 1.5
    assert text.fit("short", 1.5, 9) == "short"


# --- ticks and numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "name"),
    [(1e-6, "1e-6"), (3.16228e-3, "3.16e-3"), (0.01, "0.01"), (0.316228, "0.316"), (1.0, "1"), (1e4, "1e4")],
)
def test_rates_where_there_is_little_room(rate: float, name: str) -> None:
    assert words.compact(rate) == name


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1), (1e-12, 1e3), (0.1, 0.9), (0.30, 0.34), (1e-3, 1.1e-3), (2, 40)])
def test_ticks_of_a_log_axis_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks.log_ticks(low, high)
    assert 1 <= len(found) <= 12
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in found)
    assert found == sorted(set(found))


def test_tick_texts_tell_neighbours_apart() -> None:
    assert ticks.tick_texts([0.0, 0.5, 1.0]) == ["0", "0.5", "1"]
    assert ticks.tick_texts([1e-6, 1e-4, 1.0]) == ["1e-6", "0.0001", "1"]
    assert ticks.tick_texts([10000.0, 20000.0]) == ["10000", "20000"]
    assert ticks.tick_texts([100000.1, 100000.2]) == ["100000.1", "100000.2"]
    for start in (100, 12345, 1e6):  # a name is much nearer to its own tick than to the next
        places = [start + 0.125 * number for number in range(1, 5)]
        assert [float(name) for name in ticks.tick_texts(places)] == pytest.approx(places, rel=0, abs=0.125 / 20)


# --- files --------------------------------------------------------------------------------------------------------

DRAW = """
import sys
from pathlib import Path
sys.path.insert(0, {package!r})
from lrsweep import plot
formats = ("png", "svg", "pdf")
only = ("u_curve", "loss_curves", "heatmap_train.batch_size")
for path in plot.save(plot.rendered(plot.load({folder!r}), formats, only), Path({folder!r}), formats):
    print(path.name)
assert "torch" not in sys.modules, "torch was imported"
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
"""


@pytest.mark.slow
def test_two_processes_draw_the_same_bytes_without_torch(tmp_path: Path) -> None:
    axes = {"train.batch_size": [16, 64]}
    folder = fabricate.folder(tmp_path, optimizers=("sgd", "adam"), rates=RATES, seeds=2, rows=10, axes=axes)
    code = DRAW.format(package=str(Path(plot.__file__).parents[2]), folder=str(folder))
    digests = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
        names = done.stdout.split()
        assert {"u_curve.png", "u_curve.svg", "u_curve.pdf", "loss_curves.png"} <= set(names)
        assert "heatmap_train.batch_size.png" in names
        digests.append({name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names})
    assert digests[0] == digests[1]


def test_the_style_of_the_user_changes_nothing_and_is_left_alone(drawn: plot.SweepFigures) -> None:
    plain = style.rendered(plot.u_curve(drawn), "svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.hashsalt": None, "savefig.dpi": 20}):
        assert style.rendered(plot.u_curve(drawn), "svg") == plain
        assert matplotlib.rcParams["font.size"] == 30
        assert matplotlib.rcParams["axes.facecolor"] == "black"


def test_another_metric_is_drawn_from_the_files_alone(folder: Path) -> None:
    sweep = plot.load(folder, metric="val_accuracy", at="best")
    assert sweep.facts.mode == "max"
    figure = plot.u_curve(sweep)
    assert "best val_accuracy" in texts(figure)
    curves = pd.read_csv(folder / "curves.csv")
    runs = pd.read_csv(folder / "runs.csv")
    ok = curves[(curves["step"] > 0) & curves["run_id"].isin(runs["run_id"][runs["status"] == "ok"])]
    best = ok.groupby("run_id")["val_accuracy"].max()
    dots = [run for row in sweep.facts.rows for run in row.runs if run.status == "ok"]
    assert {run.run_id: run.objective for run in dots} == pytest.approx(best.to_dict())
    shown = [one for one in marks(figure.axes[0]) if one.get_zorder() == 3]
    assert counted(shown) == sweep.facts.rows[0].n_ok


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "val_accuracies"}, r"metric='val_accuracies': not a column of curves\.csv.*val_accuracy"),
        ({"metric": "lr_now"}, r"metric='lr_now': not a column of curves\.csv"),
        ({"at": "last"}, "at='last'.*last_K"),
        ({"formats": ("png", "bmp")}, "bmp.*png, svg, pdf"),
    ],
)
def test_what_cannot_be_drawn_is_said(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plot.draw_all(folder, **options)


def test_a_folder_without_a_sweep_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sweep"):
        plot.draw_all(tmp_path)


def test_of_a_sweep_that_has_not_finished_a_run_nothing_is_drawn(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("adam",), rates=[1e-3, 1e-2], seeds=1, rows=8)
    for name in ("runs.csv", "curves.csv", "summary.csv"):
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8").split("\n", 1)[0] + "\n", encoding="utf-8")
    assert plot.draw_all(folder) == []
    assert not list(folder.glob("*.png"))
    assert plot.nothing(plot.load(folder).facts).endswith("no run has finished yet")


def test_runs_that_rise_from_the_first_row_on_leave_no_best_rate_to_draw(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd",), rates=[1.3, 1.7], seeds=2)
    runs = pd.read_csv(folder / "runs.csv", dtype=str)
    runs.assign(status="diverged", diverged_step="1").to_csv(folder / "runs.csv", index=False)
    names = [path.name for path in plot.draw_all(folder)]
    assert {"u_curve.png", "loss_curves.png"} <= set(names)
    assert "best_lr_drift.png" not in names


def test_a_single_rate_that_trains_is_drawn(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd",), rates=[0.1], seeds=1)
    sweep = plot.load(folder)
    assert sweep.facts.rows[0].trained
    low, high = plot.u_curve(sweep).axes[0].get_xlim()
    assert low < 0.1 < high


def test_a_picture_that_a_smaller_sweep_no_longer_has_is_removed(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd", "adam"), seeds=2, axes={"train.batch_size": [16, 64]})
    before = ("u_curve_overlay.png", "heatmap_train.batch_size.png", "loss_curves_zoom.png")
    for name in before:
        (folder / name).write_bytes(b"drawn before")
    kept = [folder / name for name in ("u_curve_overlay.pdf", "mine.png", "heatmap_mine.png", "range_test.png")]
    for path in kept:
        path.write_bytes(b"not of this drawing")
    fabricate.folder(tmp_path, optimizers=("sgd",), seeds=2)
    after = {path.name for path in plot.draw_all(folder)}
    assert not after & set(before)
    assert {path.name for path in folder.glob("*.png")} == after | {path.name for path in kept if path.suffix == ".png"}
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("seeds", [1, 2, 3, 8])
@pytest.mark.parametrize("rates", [[10.0, 100.0, 1000.0], [10.0, 20.0], [100.0], [10.0**k for k in range(1, 8)]])
def test_the_crosses_of_the_outermost_rates_lie_within_the_panel(rates: list[float], seeds: int) -> None:
    runs, curves = fabricate.frames(("sgd",), rates, seeds=seeds, rows=6)
    runs = runs.assign(status="diverged", diverged_step=17)
    figure = u_curve(fabricate.facts_of(runs, curves, ("sgd",)))
    low, high = figure.axes[0].get_xlim()
    places = np.concatenate([one.get_offsets() for one in marks(figure.axes[0], color=style.RED)])[:, 0]
    assert len(set(places)) == len(rates) * seeds
    assert low * 1.02 < places.min()
    assert places.max() < high / 1.02


def test_a_forked_process_opens_the_fonts_itself() -> None:
    # Two processes that read one open file move each other's place in it: texts came out garbled, now and then.
    font = text._font(False)
    assert forked(lambda: None if text._font(False) is not font else sys.exit(1)) == 0


# --- several sweeps, one process ----------------------------------------------------------------------------------


def test_sweeps_drawn_one_after_another_on_several_processes_are_the_bytes_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A font file that parent and child had open together moved under both: wrong glyphs, then an error.
    axes = {"train.batch_size": [16, 64]}
    sweep = plot.load(fabricate.folder(tmp_path, optimizers=("adam",), rates=RATES, seeds=1, rows=6, axes=axes))
    drawings = []
    for processes in (1, 4, 4, 4):
        monkeypatch.setattr(draw, "available_cores", lambda count=processes: count)
        text._advance.cache_clear()
        drawings.append({one.name: one.files["png"] for one in plot.rendered(sweep, ("png",))})
    assert len(drawings[0]) > 5
    assert all(drawing == drawings[0] for drawing in drawings)
    assert [list(drawing) for drawing in drawings] == 4 * [[picture.name for picture in plot.pictures(sweep)]]


# --- what a picture says of its marks -----------------------------------------------------------------------------


def key(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def overlay(facts: SweepFacts) -> Figure:
    with style.styled():
        return overlays.overlay(facts, looks(facts))


@pytest.mark.parametrize("apart", [1.0, 40.0])
def test_untrained_models_far_apart_have_a_line_each(apart: float) -> None:
    """As those of standardized and of raw inputs: a line between them would be that of neither."""
    facts = fabricate.facts_of(*fabricate.frames(("sgd", "rmsprop")), ("sgd", "rmsprop"))
    sgd, other = facts.rows
    other = dataclasses.replace(other, initial_objective=sgd.initial_objective * apart)
    figure = overlay(dataclasses.replace(facts, rows=(sgd, other)))
    flat = [one for one in figure.axes[0].lines if one.get_linestyle() == "--" and list(one.get_xdata()) == [0, 1]]
    heights = sorted({float(one.get_ydata()[0]) for one in flat})
    assert heights == pytest.approx(sorted({sgd.initial_objective, other.initial_objective}))
    assert len({one.get_color() for one in flat}) == len(heights)


def dotted(ax: Axes) -> list[Any]:
    """The arms to the rail."""
    dashes = [(line, line._unscaled_dash_pattern[1]) for line in ax.lines]  # type: ignore[attr-defined]
    return [line for line, dash in dashes if dash and list(dash) == [1, 1.5]]


def test_an_arm_is_dotted_to_a_diverged_rate_and_a_line_to_a_finite_one_beyond_the_axis() -> None:
    gone = fabricate.facts_of_medians(RATES, {"sgd": U, "adam": U}, start=2.3)
    far = fabricate.facts_of_medians(RATES, {"sgd": [*U[:4], 1e4], "adam": [*U[:4], 2.0]}, start=2.3)
    for draw_it in (overlay, u_curve):
        assert len(dotted(draw_it(gone).axes[-1])) == 2
        figure = draw_it(far)
        ax = figure.axes[-1]
        assert dotted(ax) == []
        triangles = [one for one in marks(ax) if one.get_zorder() == 6 and counted([one])]
        (place,) = np.asarray(triangles[0].get_offsets())
        arm = next(line for line in ax.lines if list(line.get_xdata()) == [0.1, 1.0])
        end = ax.transData.transform((1.0, arm.get_ydata()[1]))  # type: ignore[index]
        assert ax.transAxes.inverted().transform(end)[1] == pytest.approx(place[1])


@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_is_off_the_scale_stands_beyond_all_that_is_on_it(mode: str) -> None:
    sign = 1 if mode == "min" else -1
    medians = [sign * value for value in [2.2, 1.5, 0.3, 2.68, 1e4]]  # the last but one lies at the end of the scale
    facts = fabricate.facts_of_medians(RATES, {"sgd": medians, "adam": medians}, start=sign * 2.3, mode=mode)
    for ax in (*u_curve(facts).axes, *overlay(facts).axes):
        (line,) = [one for one in ax.lines if len(one.get_xdata()) == 5 and one.get_marker() == "o"] or [ax.lines[0]]  # type: ignore[arg-type]
        on_scale = np.asarray(line.get_ydata())[:4]
        heights = ax.transAxes.inverted().transform(ax.transData.transform([(1.0, y) for y in on_scale]))[:, 1]
        off = [one for one in marks(ax) if one.get_zorder() == 6]
        places = np.concatenate([np.asarray(one.get_offsets()) for one in off])[:, 1]
        assert np.all(places > heights.max()) if mode == "min" else np.all(places < heights.min())
        assert np.all((places > 0) & (places < 1))


def test_adam_at_its_default_is_a_line_only_where_all_that_is_shown_has_its_setting() -> None:
    sweep = plot_cases.CASES["one_axis"]()
    limits = rail.value_range(sweep.facts.rows, "min")
    assert u_curves.line_to_beat(sweep.facts, limits) is None
    for size in ("16", "64"):
        some = tuple(row for row in sweep.facts.rows if row.axes["train.batch_size"] == size)
        found = u_curves.line_to_beat(replace(sweep.facts, rows=some), limits)
        assert found is not None
        assert found.axes == {"train.batch_size": size}


def test_a_legend_names_the_marks_that_are_there_and_no_others() -> None:
    calm = fabricate.facts_of_medians(RATES, {"sgd": [2.2, 1.5, 0.3, 0.6, 2.0], "adam": [*U[:4], 1.0]}, start=2.3)
    wild = fabricate.facts_of_medians(RATES, {"sgd": U, "adam": [*U[:4], 1e4]}, start=2.3)
    with style.styled():
        for make in (overlays.overlay, u_curves.u_curve):
            quiet, loud = (" ".join(key(make(facts, looks(facts)))) for facts in (calm, wild))
            assert "diverged" not in quiet, make.__name__
            assert "off scale" not in quiet, make.__name__
            assert "diverged" in loud, make.__name__
            assert "off scale" in loud, make.__name__
        assert {"untrained model", "adam at its default 1e-3", "traditional defaults 0.01, 0.1"} <= {
            *key(overlays.overlay(wild, looks(wild)))
        }


def test_no_text_stands_in_a_box_over_the_data(drawn: plot.SweepFigures) -> None:
    for picture in plot.pictures(drawn):
        assert not any(text.get_bbox_patch() for text in picture.figure.findobj(Text)), picture.name  # type: ignore[attr-defined]


def test_a_share_beyond_the_axis_stands_there_as_a_number() -> None:
    facts = fabricate.facts_of_medians(RATES, {"sgd": [2.2, 2000.3, 0.3, 0.6, 1.0], "adam": U}, start=2.3)
    with style.styled():
        figure = sensitivity.sensitivity(facts, looks(facts))
    assert [sensitivity.far_text(row) for row in facts.rows] == ["1e3", ""]
    assert "1e3" in texts(figure).split("\n")
    assert fits(figure) == []


def test_crosses_stay_with_their_rate() -> None:
    runs, curves = fabricate.frames(("sgd",), [0.01, 0.1, 1.0], seeds=3, rows=6)
    runs = runs.assign(status="diverged", diverged_step=17)
    ax = u_curve(fabricate.facts_of(runs, curves, ("sgd",))).axes[0]
    places = np.concatenate([one.get_offsets() for one in marks(ax, color=style.RED)])[:, 0]
    assert np.abs(np.log10(places) - np.round(np.log10(places))).max() < 0.1


def test_rates_are_written_in_one_way(drawn: plot.SweepFigures) -> None:
    for picture in plot.pictures(drawn):
        assert not re.search(r"\d[eE][-+]0|\b0\.00\d+", texts(picture.figure).replace("+0.00", "")), picture.name


# --- axes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> plot.SweepFigures:
    axes = {"train.batch_size": [16, 64], "model.dropout": [0.1, 0.2]}
    rates = fabricate.grid(1e-3, 1)
    root = tmp_path_factory.mktemp("crossed")
    return plot.load(fabricate.folder(root, optimizers=("sgd", "adam"), rates=rates, seeds=2, rows=8, axes=axes))


def test_a_heatmap_has_a_panel_per_combination_of_the_other_axes(crossed: plot.SweepFigures) -> None:
    parts = selection.slices(crossed.facts, "train.batch_size")
    wanted = [(label, f"dropout={value}") for label in ("sgd", "adam") for value in (0.1, 0.2)]
    assert [(label, others) for label, others, _ in parts] == wanted
    with style.styled():
        shown = texts(heatmap.heatmap(crossed.facts, "train.batch_size")).split("\n")
    assert {"dropout=0.1", "dropout=0.2"} <= set(shown)


def test_where_the_combinations_are_too_many_all_panels_hold_the_same(
    crossed: plot.SweepFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MOST_SLICES", 3)
    parts = selection.slices(crossed.facts, "train.batch_size")
    best = min(crossed.facts.rows, key=lambda row: row.best_objective)
    held = f"dropout={best.axes['model.dropout']}"
    assert [(label, others) for label, others, _ in parts] == [("sgd", held), ("adam", held)]


def test_every_line_of_the_drift_has_a_name_and_a_look_of_its_own(crossed: plot.SweepFigures) -> None:
    with style.styled():
        figure = best_lr_drift.drift(crossed.facts, ["sgd", "adam"])
    for ax in figure.axes:
        legend = ax.get_legend()
        assert legend is not None
        names = [text.get_text().partition(": ")[0] for text in legend.get_texts()]
        styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in legend.get_lines()}
        assert len(set(names)) == len(styles) == len(names) >= 4
        known = {best_lr_drift.name_of(one) for one in crossed.facts.drifts}
        assert set(names) <= known
        assert all("=" in name for name in names)
    assert fits(figure) == []


def test_the_budget_line_says_what_holds_for_every_row(drawn: plot.SweepFigures) -> None:
    facts, plain = drawn.facts, drawn.spec
    cosine = Named(name="cosine", args={"warmup": 0})
    assert "mlp(hidden=[128, 128])" in draw.setting_text(plain, facts)
    varied = replace(plain, axes={"model.hidden": [[8], [32]]})
    assert "· mlp ·" in draw.setting_text(varied, facts)
    assert "cosine schedule" in draw.setting_text(replace(plain, schedule=cosine), facts)
    one, *rest = plain.optimizers
    mixed = [replace(one, schedule=Named(name="constant")), *rest]
    assert "schedule" not in draw.setting_text(replace(plain, schedule=cosine, optimizers=mixed), facts)
    own = [replace(each, schedule=cosine) for each in plain.optimizers]
    assert "cosine schedule" in draw.setting_text(replace(plain, optimizers=own), facts)
