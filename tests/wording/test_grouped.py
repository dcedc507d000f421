"""The warnings of many settings, in few lines."""

from __future__ import annotations

from typing import get_args

import numpy as np

from lrsweep.analysis.analyse import analyse
from lrsweep.analysis.caveats import Caveat
from lrsweep.analysis.facts import SweepFacts
from lrsweep.wording import advice, words
from lrsweep.wording.grouped import KINDS, MOST_LINES, few_warnings
from tests.support.planted_tables import HALF_DECADES, frame, spec, table, valley

OFFSETS = np.array([0.0, 0.1, -0.1])


def widths(*bests: float) -> SweepFacts:
    """A setting per best rate, each with a narrow good range."""
    parts = [
        table("adam", HALF_DECADES, valley(HALF_DECADES, best)[:, None] + OFFSETS, width=width)
        for width, best in enumerate(bests)
    ]
    return analyse(frame(*parts), None, spec("adam", axes={"width": list(range(len(bests)))}), {})


def test_every_caveat_has_a_name_for_many() -> None:
    assert set(KINDS) == set(get_args(Caveat))


def test_what_many_settings_share_is_one_line_with_its_count() -> None:
    facts = widths(*[1e-3] * 16, 1.0, 1e-6)
    lines = few_warnings(facts)
    assert len(advice.sweep_warnings(facts)) > 16
    assert len(lines) <= MOST_LINES
    assert "narrow good range in 16 of 18 settings; rerun with --refine" in lines, "two are cut off by the grid"
    assert any(line.startswith("best learning rate at the end of the grid in 2 of 18 settings (") for line in lines)


def test_few_warnings_are_said_in_full() -> None:
    facts = widths(1e-3, 1e-3)
    assert few_warnings(facts) == advice.sweep_warnings(facts)


def test_a_good_range_of_one_grid_point_is_marked_as_rough() -> None:
    (row,) = widths(1e-3).rows
    assert len(row.good_range.rates) == 1
    assert words.decades_text(row).startswith("~")
