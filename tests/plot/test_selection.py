"""Where there is too much to show, plots and report show the best of it, say so, and stay small."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from lrsweep import plot
from lrsweep.analysis.facts import LONGEST_NAME
from lrsweep.plot import draw, facets, selection, style, u_curves
from lrsweep.report import page
from lrsweep.results import tables
from tests.support import tables as fabricate

RATES = [1e-3, 1e-2, 1e-1]
COUNT, MOST = 9, 6


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MOST_ROWS", MOST)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> plot.SweepFigures:
    """Nine optimizers."""
    labels = [f"o{number}" for number in range(COUNT)]
    folder = fabricate.folder(tmp_path_factory.mktemp("many"), optimizers=labels, rates=RATES, seeds=1, rows=3)
    return plot.load(folder)


@pytest.fixture(scope="module")
def long_axis(tmp_path_factory: pytest.TempPathFactory) -> plot.SweepFigures:
    """Two optimizers at 12 batch sizes."""
    axes = {"train.batch_size": list(range(1, 13))}
    folder = fabricate.folder(
        tmp_path_factory.mktemp("axis"), optimizers=["sgd", "adam"], rates=RATES, seeds=1, rows=3, axes=axes
    )
    return plot.load(folder)


def best(sweep: plot.SweepFigures, count: int) -> set[str]:
    ranked = sorted(sweep.facts.rows, key=lambda row: row.best_objective)
    return {row.title for row in ranked[:count]}


def test_the_best_are_shown_in_their_order_and_it_is_said(many: plot.SweepFigures) -> None:
    shown = many.shown.facts.rows
    assert {row.title for row in shown} == best(many, MOST)
    assert [row for row in many.facts.rows if row in shown] == list(shown)
    assert many.shown.setting.endswith("; the 6 best of 9 curves")
    figure = draw.u_curve(many)
    assert len([ax for ax in figure.axes if ax.lines]) == MOST + 1  # and all of them in one
    assert any("the 6 best of 9 curves" in text.get_text() for text in figure.texts)


def test_no_picture_has_more_than_a_picture_can_hold(many: plot.SweepFigures) -> None:
    for name, one in draw._drafts(many).items():
        figure = one()
        assert len([ax for ax in figure.axes if ax.lines or ax.collections]) <= MOST + 1, name


def test_a_row_without_a_finite_objective_is_the_last_to_be_shown(many: plot.SweepFigures) -> None:
    rows = list(many.facts.rows)
    rows[0] = replace(rows[0], best_objective=math.nan)
    assert rows[0] not in selection.best(rows, "min", COUNT - 1)
    assert selection.best(rows, "max", 1)[0].best_objective == max(row.best_objective for row in rows[1:])


def test_few_rows_are_all_shown(long_axis: plot.SweepFigures) -> None:
    few = replace(long_axis, facts=selection.with_rows(long_axis.facts, long_axis.facts.rows[:MOST]))
    assert few.shown is few
    assert few.leading is few
    assert few.in_panels is few
    assert "best of" not in few.setting


def test_of_an_axis_the_best_values_are_shown_where_each_takes_room(
    long_axis: plot.SweepFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {row.title for row in long_axis.shown.facts.rows} == best(long_axis, MOST)
    assert "the 6 best of 24 curves" in long_axis.shown.setting
    assert long_axis.crowd is long_axis
    monkeypatch.setattr(selection, "MOST_LINES", 20)
    sweep = replace(long_axis)  # the same, but without what it has kept
    assert len(sweep.crowd.facts.rows) == 20
    with style.styled():
        figure = facets.u_curve(sweep.crowd.facts, sweep.crowd.sheet)
    assert any("the 20 best of 24 curves" in text.get_text() for text in figure.texts)


def test_a_heatmap_keeps_every_value_of_the_optimizers_it_shows(
    long_axis: plot.SweepFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MOST_ROWS", 1)
    sweep = replace(long_axis)
    ((label, _, rows),) = selection.slices(sweep.in_panels.facts, "train.batch_size")
    assert len(rows) == 12
    assert label == min(sweep.facts.rows, key=lambda row: row.best_objective).optimizer
    assert sweep.in_panels.setting.endswith("; the 1 best of 2 optimizers")


def test_the_report_lists_the_best_and_says_where_all_are(
    many: plot.SweepFigures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tables.read_runs(fabricate.folder(tmp_path, optimizers=["sgd"], rates=RATES))
    monkeypatch.setattr(page, "MOST_CURVES", 5)
    monkeypatch.setattr(page, "MOST_DETAILS", 2 * len(RATES))
    monkeypatch.setattr(page, "FEW_DETAILS", 2 * len(RATES))
    text = page.html(many, [], runs, "name: x").partition('<section id="details"')[2]
    assert "Tables and lists show the 5 best of 9 curves; summary.csv has all of them." in text
    assert "Every learning rate of the 2 best of 9 curves; runs.csv has all of them." in text
    listed, detailed = best(many, 5), best(many, 2)
    for row in many.facts.rows:
        assert (f">{row.title}<" in text) == (row.title in listed)
        assert (f"{row.title}: every learning rate" in text) == (row.title in detailed)
    monkeypatch.undo()
    assert "best of 9" not in page.html(many, [], runs, "name: x").partition('<section id="details"')[2]


def test_a_text_of_ten_thousand_characters_is_cut_everywhere_but_in_the_tables(tmp_path: Path) -> None:
    values = ["a" * 10_000, "a" * 9_999 + "b"]
    folder = fabricate.folder(
        tmp_path, optimizers=["sgd", "adam"], rates=RATES, seeds=1, rows=3, axes={"task.target": values}
    )
    sweep = plot.load(folder)
    assert [row.axes["task.target"] for row in sweep.facts.rows] == values * 2
    titles = [row.title for row in sweep.facts.rows]
    assert len(set(titles)) == 4
    assert max(map(len, titles)) < 3 * LONGEST_NAME
    for one in draw._drafts(sweep).values():
        assert all(len(text.get_text()) < 1000 for text in one().findobj(lambda artist: hasattr(artist, "get_text")))
    text = page.html(sweep, [], tables.read_runs(folder), "name: x")
    assert "a" * LONGEST_NAME not in text
    assert values[0] in (folder / "summary.csv").read_text()


def test_many_dots_are_one_image(many: plot.SweepFigures, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "<image" not in style.rendered(draw.u_curve(many), "svg").decode()
    monkeypatch.setattr(u_curves, "MOST_DOTS", 1)
    assert "<image" in style.rendered(draw.u_curve(many), "svg").decode()
