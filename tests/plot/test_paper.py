"""Figures for papers, and the user's own axes."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

import lrsweep
from lrsweep import plot
from lrsweep.errors import UsageError
from tests.support import tables as fabricate

RATES = [1e-3, 1e-2, 1e-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = ("sgd", "adam", "$x_1$")
    return fabricate.folder(tmp_path_factory.mktemp("paper"), optimizers=labels, rates=RATES, seeds=2, rows=6)


def texts(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.findobj(Text)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [3.25, 5.5, 6.75])
def test_a_figure_is_as_wide_as_was_asked_and_has_no_title(folder: Path, width: float) -> None:
    sweep = plot.load(folder, width=width, titled=False, optimizers=["adam"])
    (one,) = plot.rendered(sweep, ("svg",), ["u_curve"])
    svg = one.files["svg"].decode()
    assert re.search(r'width="([\d.]+)pt"', svg)[1] == f"{width * 72:g}"  # type: ignore[index]
    assert "final val_loss by learning rate" not in svg
    assert ">sgd<" not in svg
    assert ">adam<" in svg, "text is text"
    assert set(re.findall('font-family: ([^;"]*)', svg)) == {"'DejaVu Sans', Verdana, sans-serif"}


def test_no_font_of_a_pdf_is_type_3(folder: Path) -> None:
    (one,) = plot.rendered(plot.load(folder), ("pdf",), ["u_curve"])
    assert b"/Type3" not in one.files["pdf"]
    assert b"/CIDFontType2" in one.files["pdf"] or b"/TrueType" in one.files["pdf"]


def test_what_shows_something_else_replaces_nothing_and_is_named_so(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd", "adam"), rates=RATES, seeds=1, rows=6)
    plot.draw_sweep(plot.load(folder), folder, ("png",), ["u_curve"])
    before = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    for options, name in (
        ({"metric": "val_accuracy"}, "u_curve__val_accuracy"),
        ({"at": "best"}, "u_curve__best"),
        ({"optimizers": ["adam"], "width": 3.25}, "u_curve__adam__3.25in"),
        ({"titled": False}, "u_curve__untitled"),
    ):
        paths = plot.draw_sweep(plot.load(folder, **options), folder, ("png",), ["u_curve"])  # type: ignore[arg-type]
        assert [path.name for path in paths] == [f"{name}.png"]
    after = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert before.items() < after.items()
    plot.save([], folder, ("png",))
    assert {path.name for path in folder.glob("*.png")} == set(after) - set(before), "no later drawing removes them"


def test_one_plot_alone_leaves_the_others(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd",), rates=RATES, seeds=1, rows=6)
    (folder / "sensitivity.png").write_bytes(b"drawn before")
    plot.draw_sweep(plot.load(folder), folder, ("png",), ["u_curve"])
    assert {path.name for path in folder.glob("*.png")} == {"u_curve.png", "sensitivity.png"}


@pytest.mark.parametrize("optimizer", [None, "adam"])
def test_the_u_curve_is_drawn_into_axes_of_the_user(folder: Path, optimizer: str | None) -> None:
    with matplotlib.rc_context({"font.size": 7}):
        figure = Figure(figsize=(7, 3))
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        right.set_title("mine")
        found = lrsweep.load(folder).u_curve(right, optimizer=optimizer)
        assert found is right
        figure.draw_without_rendering()
    assert (right.get_title(), right.get_xlabel(), right.get_ylabel()) == ("mine", "learning rate", "val_loss (final)")
    assert right.get_xscale() == "log"
    assert not left.lines
    legend = right.get_legend()
    assert legend is not None
    assert ("$x_1$" in [text.get_text() for text in legend.get_texts()]) == (optimizer is None)


def own_axes() -> Axes:
    figure = Figure(figsize=(7, 3))
    FigureCanvasAgg(figure)
    axes: Axes = figure.subplots()
    return axes


def test_loss_curves_are_drawn_into_axes_of_the_user(folder: Path) -> None:
    """Those of one optimizer: the one that is asked for, or the one to use. The lines are the runs in the tables."""
    results = lrsweep.load(folder)
    for optimizer in (None, "adam"):
        ax = own_axes()
        assert results.loss_curves(ax, optimizer=optimizer) is ax
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "val_loss")
        label = optimizer or results.recommended["optimizer"]
        legend = ax.get_legend()
        assert legend is not None
        assert legend.get_title().get_text() == label
        of_label = results.curves[results.curves["optimizer"] == label]
        best = of_label[of_label["lr"] == results.best(label)["best_lr"]]
        drawn = [line for part in ax.collections if isinstance(part, LineCollection) for line in part.get_segments()]
        for _, curve in best.groupby("run_id"):
            assert any(np.array_equal(line, curve[["epoch", "val_loss"]]) for line in drawn)


def test_steps_to_the_target_are_drawn_into_axes_of_the_user(folder: Path) -> None:
    results, ax = lrsweep.load(folder), own_axes()
    assert results.time_to_target(ax) is ax
    assert ax.get_ylabel().startswith("steps to val_loss")
    fastest = results.summary.set_index("optimizer")["fastest_lr"]
    medians = [line.get_xydata() for line in ax.lines if line.get_linewidth() == 1.6 and line.get_linestyle() != "None"]
    for optimizer, xy in zip(results.summary["optimizer"], medians, strict=True):
        assert np.isnan(xy[:, 1]).all() or fastest[optimizer] == xy[np.nanargmin(xy[:, 1]), 0]


def test_every_plot_can_be_reached_from_results(folder: Path) -> None:
    results = lrsweep.load(folder)
    for name in plot.names(plot.load(folder)):
        assert isinstance(results.figure(name), Figure)
    assert "sensitivity S" in texts(results.sensitivity())
    assert any(text.startswith("steps to") for text in texts(results.time_to_target()))
    with pytest.raises(UsageError, match=r"no such plot.*u_curve_aligned"):
        results.figure("heatmap_depth")
