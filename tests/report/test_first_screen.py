"""The table and the sentence that a report opens with, and the drawings in it, without a browser."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lrsweep.analysis.facts import SweepFacts
from lrsweep.cli import output
from lrsweep.plot import style, tags
from lrsweep.report import first_screen, points, svg
from lrsweep.report.rules import RULES, anchor
from lrsweep.report.template import data
from tests.support import tables as fabricate

RATES = [1e-3, 1e-2, 1e-1, 1.0]
LOOKS = [style.look(0), style.look(1)]


@pytest.fixture(scope="module")
def facts() -> SweepFacts:
    medians = {"sgd": [2.0, 1.0, 0.5, math.inf], "adam": [2.0, 0.52, 0.51, 0.5]}
    return fabricate.facts_of_medians(RATES, medians, start=2.0, spread=0.01)


def cells(html: str) -> list[dict[str, str]]:
    """The texts of each line by label."""
    lines = re.findall(r'<tr role="row" data-row.*?</tr>', html, flags=re.S)
    return [
        {label: re.sub("<[^>]+>", " ", cell) for label, cell in re.findall(r'data-label="([^"]+)">(.*?)</td>', line)}
        for line in lines
    ]


def test_each_line_says_what_to_use_what_it_gives_and_where_it_ends(facts: SweepFacts) -> None:
    sgd, adam = cells(first_screen.table(facts, LOOKS, [0, 1]))
    assert sgd["use lr"] == "0.1"
    assert sgd["final val_loss there"].split() == ["0.5", "0.49", "–", "0.51"]
    assert sgd["unusable from"] == "1"
    assert adam["unusable from"] == "&gt; 1"
    assert "≥" in adam["good range"]
    assert "extends past the grid" in adam["caveats"] or "the highest one tried" in adam["caveats"]
    assert "test_loss there" not in sgd
    tested = replace(facts, rows=tuple(replace(row, test_at_recommended=0.625) for row in facts.rows))
    assert [one["test_loss there"] for one in cells(first_screen.table(tested, LOOKS, [0, 1]))] == ["0.625"] * 2


def test_bars_of_all_lines_share_one_axis(facts: SweepFacts) -> None:
    html = first_screen.table(facts, LOOKS, [0, 1])
    assert re.findall(r'class="out" style="left:([\d.]+)%', html) == ["100.0"]
    (use, _) = re.findall(r'class="use" style="left:([\d.]+)%', html)
    assert float(use) == pytest.approx(100 * 2 / 3, abs=0.01)
    assert html.count("open-high") == 1  # the good range of adam goes on past the grid


def test_an_optimizer_that_did_not_train_has_a_line_without_numbers() -> None:
    found = fabricate.facts_of_medians(RATES, {"sgd": [2.0] * 4, "adam": [2.0, 1.0, 0.5, 1.0]}, start=2.0)
    sgd, _ = cells(first_screen.table(found, LOOKS, [0, 1]))
    assert sgd["use lr"] == "–"
    assert sgd["good range"] == " nothing trained "
    assert "use adam" in first_screen.sentence(found).lower()


def test_every_head_leads_to_a_definition(facts: SweepFacts) -> None:
    found = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', first_screen.table(facts, LOOKS, [0, 1]), flags=re.S)
    linked = [re.search(r'href="#([^"]+)"', head) for head in found]
    assert [one is not None for one in linked] == [False, *[True] * (len(found) - 2), False]
    assert {one[1] for one in linked if one} <= {anchor(name) for name, _, _ in RULES}


def test_nothing_in_the_data_of_the_script_ends_it() -> None:
    hostile = "</script><!--\u2028&<script>"
    html = data({"title": hostile})
    assert html.count("<") == 2
    assert json.loads(html[html.index(">") + 1 : html.rindex("<")]) == {"title": hostile}


def test_the_data_of_the_script_are_the_runs(facts: SweepFacts) -> None:
    curves = points.Curves(facts.rows)
    said = curves.said(facts, '<g data-row="1" data-runs="0 1">')["rows"]
    assert [row["title"] for row in said] == ["sgd", "adam"]
    assert "runs" not in said[0]  # none of its marks are in the plots
    told = [(said[1]["rates"][rate][0], seed, value) for rate, seed, value, _ in said[1]["runs"]]
    assert told == [(f"{run.lr:.3g}", run.seed, f"{run.objective:.4g}") for run in facts.rows[1].runs]
    assert said[0]["rates"][3][1:] == ["inf", "3 seeds, 3 diverged"]


def drawn(body: str) -> str:
    """As a part of the page, if matplotlib had drawn it."""
    key = tags.key("adam")
    return svg.inline("f", f'<svg viewBox="0 0 72 72">{body.replace("KEY", key)}</svg>', "alt", {key: 4})


def test_ids_become_data_and_unknown_ones_go() -> None:
    assert '<g data-row="4" data-runs="0 1 2 7">' in drawn('<g id="runs-KEY-0-5-0_2.7"><path/></g>')
    assert '<g data-row="4" data-runs="36">' in drawn('<g id="runs-KEY-4-8-36"><path/></g>')
    assert '<g data-row="4" data-rates="1" data-lines>' in drawn('<g id="rateslines-KEY-0-5-1"><path/></g>')
    assert '<g data-row="4">' in drawn('<g id="row-KEY-3"><path/></g>')
    assert "data-row" not in drawn('<g id="row-00000000-3"><path/></g><g id="patch_1"><path/></g>')


def test_a_drawing_gets_smaller_and_stays_the_same() -> None:
    path = drawn('<path d="M 1.239 2 \nL -3.5 0.015625 \nz\n" style="fill: none; stroke: #000"/>')
    assert 'd="M1.23 2L-3.5 0.01z"' in path
    assert 'style="fill:none;stroke:#000"' in path
    use = '<use xlink:href="#m" x="1" y="2" style="{}"/>'
    same = drawn(f"<g>{use.format('fill: red') * 2}</g>")
    assert same.count("fill:red") == 1
    assert drawn(f"<g>{use.format('opacity: 0.5') * 2}</g>").count("opacity") == 2, "of a group it is another"
    assert drawn(f"<g>{use.format('fill: red')}{use.format('fill: blue')}</g>").count("fill") == 2
    text = drawn("<text>a: b; c  d</text>")
    assert "<text>a: b; c  d</text>" in text


def test_losses_far_from_zero_are_shown_to_the_digits_that_differ() -> None:
    medians = {"sgd": [1e4 + 2.0, 1e4 + 1.0, 1e4 + 0.512, 1e4 + 1.5]}
    found = fabricate.facts_of_medians(RATES, medians, start=1e4 + 2.3, spread=0.01)
    (sgd,) = cells(first_screen.table(found, LOOKS[:1], [0]))
    assert sgd["final val_loss there"].split() == ["10000.51", "10000.5", "–", "10000.52"]
    assert "final val_loss 10000.51 (range over 3 seeds: 10000.5 to 10000.52)" in first_screen.sentence(found)


def test_a_study_of_another_number_has_no_grid_of_learning_rates() -> None:
    axes = {"optimizers.momentum": [0.0, 0.5, 0.9]}
    runs, curves = fabricate.frames(("sgd",), rates=[0.01], seeds=5, rows=12, axes=axes)
    found = fabricate.facts_of(runs, curves, ("sgd",), rows=12, axes=axes)
    looks = [style.look(number) for number in range(3)]
    for line in cells(first_screen.table(found, looks, [0, 1, 2])):
        assert {"use lr", "final val_loss there", "caveats"} <= set(line)
        assert not {"good range", "S", "unusable from"} & set(line)
    said = output.summary(found, Path("x"))
    assert "use sgd (momentum=" in said
    assert "good range" not in said
    assert "lower is better" not in said
