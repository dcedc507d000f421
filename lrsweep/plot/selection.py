"""Which curves a plot shows where all of them would be too many to look at, and how it says so: always the best."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.objective import Mode, cost

MOST_PANELS = 16
"""More rows than this (axes multiply them): one panel per optimizer."""
MOST_ROWS = 50
"""Rows of a plot that has a panel, a bar or a legend entry for each."""
MOST_LINES = 1000
"""Rows of a plot that has a line for each."""


def best(rows: Iterable[OptimizerFacts], mode: Mode, most: int) -> tuple[OptimizerFacts, ...]:
    """The `most` rows with the best objective at their best learning rate, in their order; the first ones if tied."""
    rows = list(rows)
    ranks = sorted(range(len(rows)), key=lambda place: cost(rows[place].best_objective, mode))
    return tuple(rows[place] for place in sorted(ranks[:most]))


def best_of_each(facts: SweepFacts) -> tuple[OptimizerFacts, ...]:
    """The best row of every optimizer."""
    by_label: dict[str, list[OptimizerFacts]] = {}
    for row in facts.rows:
        by_label.setdefault(row.optimizer, []).append(row)
    return tuple(best(rows, facts.mode, 1)[0] for rows in by_label.values())


def best_optimizers(facts: SweepFacts) -> tuple[OptimizerFacts, ...]:
    """All rows of the MOST_ROWS optimizers whose best rows are the best."""
    kept = {row.optimizer for row in best(best_of_each(facts), facts.mode, MOST_ROWS)}
    return tuple(row for row in facts.rows if row.optimizer in kept)


def with_rows(facts: SweepFacts, rows: tuple[OptimizerFacts, ...]) -> SweepFacts:
    """The facts of these rows alone, and how the best learning rate moves for them."""
    cells: dict[str, list[OptimizerFacts]] = {}
    for row in rows:
        cells.setdefault(row.optimizer, []).append(row)
    drifts = (
        one
        for one in facts.drifts
        if any(one.fixed.items() <= row.axes.items() for row in cells.get(one.optimizer, ()))
    )
    return replace(facts, rows=rows, drifts=tuple(drifts))


def said(shown: int, there: int, noun: str) -> str:
    """`the 50 best of 1,000 curves`; empty where all are shown."""
    return f"the {shown:,} best of {there:,} {noun}" if shown < there else ""
