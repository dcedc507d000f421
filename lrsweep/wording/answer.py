"""The table that answers a sweep, as text: what to use for each optimizer, and how good that is."""

from __future__ import annotations

import math

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.analysis.leader import at_recommended
from lrsweep.objective import Mode
from lrsweep.wording import advice, words


def answer(facts: SweepFacts) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head, and a line per row of the summary, whose last cell is its weightiest caveat. A sweep with one learning
    rate has no columns that are about a grid."""
    head = ("optimizer", "use lr", f"{facts.metric} there", "good range", "decades", "S", "unusable from", "")
    rows = [_line(row, facts.mode) for row in facts.rows]
    if facts.one_rate:
        return (*head[:3], ""), [(*row[:3], row[-1]) for row in rows]
    return head, rows


def _line(row: OptimizerFacts, mode: Mode) -> tuple[str, ...]:
    if not row.trained:
        return (row.title, *["-"] * 6, advice.warning_line(row))
    there = at_recommended(row, mode)
    low, high = (words.objective_text_of(row, end, 3) for end in (there.low, there.high))
    ends = f" [{low}, {high}]" if math.isfinite(there.low) else ""
    return (
        row.title,
        words.rate_text(row.recommended_lr),
        f"{words.objective_text_of(row, there.value)}{ends}",
        " .. ".join(words.good_range_ends(row)),
        f"{'>= ' if row.good_range.at_least else ''}{words.decades_text(row)}",
        words.number_text(row.sensitivity.whole.value, 3),
        words.unusable_text(row),
        advice.warning_line(row),
    )
