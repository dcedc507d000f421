"""The U-curves of the terminal."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lrsweep.analysis import analyse
from lrsweep.cli import output
from lrsweep.wording import advice
from tests.support import planted_tables, plot_cases
from tests.support import tables as fabricate

RATES = [1e-3, 1e-2, 1e-1, 1.0]


def drawn(medians: dict[str, list[float]], **settings: object) -> list[str]:
    return output.u_curves(fabricate.facts_of_medians(RATES, medians, **settings)).split("\n")  # type: ignore[arg-type]


def test_height_is_cost_between_the_best_and_the_untrained_model() -> None:
    lines = drawn({"a": [2.0, 1.0, 0.0, math.inf], "bb": [2.0, 2.0, 0.5, 5.0]}, start=2.0)
    assert lines[0] == "a   █▅*x"
    assert lines[1] == "bb  ██*█"
    assert "1e-3" in lines[2]
    assert "diverged" in lines[2]
    assert "lower is better" in lines[2]


def test_a_maximised_metric_is_low_where_it_is_good() -> None:
    assert drawn({"a": [0.1, 0.5, 0.9, -math.inf]}, start=0.1, mode="max")[0] == "a  █▅*x"


def test_a_constant_added_to_every_loss_changes_nothing() -> None:
    one = drawn({"a": [2.0, 1.3, 0.2, 0.9]}, start=2.0)
    assert drawn({"a": [y - 100 for y in (2.0, 1.3, 0.2, 0.9)]}, start=-98.0) == one


def test_ascii_where_the_terminal_has_no_more() -> None:
    text = output.u_curves(
        fabricate.facts_of_medians(RATES, {"a": [2.0, 1.0, 0.0, math.inf]}, start=2.0), unicode=False
    )
    assert text.isascii()


@pytest.mark.parametrize("count", [1, 5, 60, 200])
def test_any_number_of_rates_fits_a_terminal(count: int) -> None:
    rates = [10 ** (-6 + 6 * k / max(count - 1, 1)) for k in range(count)]
    medians = [1.9 - k / count for k in range(count)]
    lines = output.u_curves(fabricate.facts_of_medians(rates, {"a": medians}, start=2.0)).split("\n")
    assert len(lines[0]) <= 3 + output.MOST_COLUMNS
    assert lines[0].count("*") == 1
    assert len(lines[1]) <= 100


def test_a_trace_of_an_improvement_is_no_cliff() -> None:
    """A fall of the loss by 4e-7 is no training, and a full bar beside an empty one would look like it."""
    lines = drawn({"a": [2.3, 2.3 - 4e-9, 2.3 - 4e-8, 2.3 - 4e-7], "b": [2.3, 2.3, 2.3, math.inf]}, start=2.3)
    assert lines[:2] == ["a  ████", "b  ███x"]


def test_the_summary_says_what_to_use_and_how_sure_that_is() -> None:
    facts = fabricate.facts_of_medians(
        RATES, {"a": [2.0, 1.0, 0.5, math.inf], "bb": [2.0, 0.52, 0.9, 1.9]}, start=2.0, spread=0.03
    )
    said = output.summary(facts, Path("results/x")).split("\n")
    assert said[0] == "made_up: use a at lr 0.1"
    assert said[1].startswith("final val_loss 0.5 (range over 3 seeds: 0.47 to 0.53). No other setting is tied with it")
    rows = [re.split(r"  +", line) for line in said if re.match("a |bb ", line)]
    assert rows[0][:7] == ["a", "0.1", "0.5 [0.47, 0.53]", rows[0][3], rows[0][4], rows[0][5], "1"]
    assert rows[1][:3] == ["bb", "0.01", "0.52 [0.49, 0.55]"]


def test_a_rival_that_is_better_for_some_seeds_is_tied() -> None:
    losses = {"a": [[2.0, 2.0, 2.0], [0.5, 0.6, 0.4]], "b": [[1.9, 1.9, 1.9], [0.52, 0.4, 0.63]]}
    runs = planted_tables.frame(*(planted_tables.table(label, [1e-3, 1e-2], some) for label, some in losses.items()))
    said = output.summary(analyse(runs, None, planted_tables.spec("a", "b"), {}), Path("x"))
    assert "use a at lr 0.01" in said
    assert "b is statistically tied with it, each at its recommended lr (3 seeds)" in " ".join(said.split())


def test_two_seeds_are_said_to_be_too_few() -> None:
    """Their interval holds everything: even a rival that is four times as bad at both is tied."""
    losses = {"a": [[2.0, 2.0], [0.5, 0.52]], "b": [[1.9, 1.9], [0.9, 1.3]]}
    runs = planted_tables.frame(*(planted_tables.table(label, [1e-3, 1e-2], some) for label, some in losses.items()))
    said = " ".join(output.summary(analyse(runs, None, planted_tables.spec("a", "b"), {}), Path("x")).split())
    assert "2 seeds cannot tell it from b, each at its recommended lr." in said
    assert "statistically" not in said


def test_nothing_finished_is_nothing_drawn() -> None:
    assert output.u_curves(fabricate.facts_of_medians(RATES, {}, start=2.0)) == ""


def test_a_study_of_names_at_one_learning_rate_lists_its_plot_and_says_nothing_of_a_grid(tmp_path: Path) -> None:
    facts = plot_cases.CASES["activations"]().facts
    short = [replace(row, runs=tuple(replace(run, diagnosis="improving") for run in row.runs)) for row in facts.rows]
    facts = replace(facts, rows=tuple(short))
    for name in ("by_model.activation.png", "by_model.activation__val_accuracy.png", "report.html"):
        (tmp_path / name).touch()
    said = output.summary(facts, tmp_path)
    assert said.endswith(f"{tmp_path}/: report.html, by_model.activation.png")
    assert re.search(r"- runs still improving in 2 of 6 settings \(.*\); train longer\n", said)
    assert re.search(r"- most seeds diverged at every learning rate in . of 6 settings; try another", said)
    said = "\n".join([said, *advice.sweep_warnings(facts)])
    assert not re.search("good range|grid|may shift|--refine|lr: ", said)
