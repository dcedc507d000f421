"""The ids in an SVG say what its parts show, so that the report can tell about each mark."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest

from lrsweep import plot
from lrsweep.plot import style, tags
from tests.support import tables as fabricate

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> plot.SweepFigures:
    folder = fabricate.folder(
        tmp_path_factory.mktemp("tags"), optimizers=("sgd", "adam"), rates=fabricate.grid(1e-3, 10.0, 1), rows=8,
        failed=(3, 4),
    )  # fmt: skip
    return plot.load(folder)


def groups(svg: bytes) -> Iterator[tuple[list[str], list[ElementTree.Element]]]:
    """The parts of the id of each group with marks, and its marks."""
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        found = re.fullmatch(r"(runs|rates)(?:lines)?-(\w+)-\d+-\d+-([\d_.]+)", group.get("id", ""))
        if found:
            marks = list(group.iter(f"{SVG}use")) or [path for path in group.findall(f"{SVG}path")]
            yield list(found.groups()), marks


def x_of(mark: ElementTree.Element) -> float:
    """Of a mark that is used in several places, or of one with a shape of its own."""
    return float(mark.get("x") or mark.get("d", "").split()[1])


def test_every_mark_has_its_run_or_rate(sweep: plot.SweepFigures) -> None:
    rows = {tags.key(row.title): row for row in sweep.facts.rows}
    shown: dict[str, set[str]] = {}
    u_curve, loss_curves = (style.rendered(figure, "svg") for figure in (plot.u_curve(sweep), plot.loss_curve(sweep)))
    for svg in (u_curve, loss_curves):
        for (kind, key, places), marks in groups(svg):
            assert len(tags.unpacked(places)) == len(marks)
            if kind == "runs" and svg is u_curve:
                shown.setdefault(key, set()).update(rows[key].runs[place].run_id for place in tags.unpacked(places))
    for key, row in rows.items():
        assert shown[key] == {run.run_id for run in row.runs}
    ids = re.findall(rb'id="([^"]+)"', u_curve)
    assert len(ids) == len(set(ids))


def test_marks_stand_in_the_order_of_their_rates(sweep: plot.SweepFigures) -> None:
    """A dot that told about another run would be worse than one that tells nothing."""
    (row, *_) = sweep.facts.rows
    svg = style.rendered(plot.u_curve(sweep), "svg")
    for (kind, key, places), marks in groups(svg):
        if kind == "runs" and key == tags.key(row.title):
            points = [(row.runs[place], x_of(mark)) for place, mark in zip(tags.unpacked(places), marks, strict=True)]
            by_place = [run.lr for run, _ in sorted(points, key=lambda one: one[1])]
            assert by_place == sorted(by_place)


def test_places_are_packed_and_unpacked() -> None:
    for places in ([], [3], [0, 1, 2, 7, 9, 10], [5, 4, 3]):
        assert tags.unpacked(tags.packed(places)) == places
    assert tags.packed([0, 1, 2, 7]) == "0_2.7"


def test_a_curve_has_the_same_key_in_every_process() -> None:
    assert tags.key("adam") == "ebefe715"
