"""Which curves a plot shows where all of them would be too many to look at, and how it says so: always the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.objective import Mode, cost
from lrsweep.wording import words

Slice = tuple[str, str, list[OptimizerFacts]]
"""An optimizer, where the other axes are held ("" if there are none), and its rows along an axis."""
MOST_PANELS = 16
"""More rows than this (axes multiply them): each optimizer at its best axis values."""
MOST_SLICES = 12
"""More panels than this along an axis: the other axes are held at one place."""
MOST_LISTED = 12
"""Rows of a plot and a table that are to be read at one glance."""
MOST_ROWS = 50
"""Rows of a plot that has a panel, a bar or a legend entry for each."""
MOST_LINES = 1000
"""Rows of a plot that has a line for each."""


def best(rows: Iterable[OptimizerFacts], mode: Mode, most: int) -> tuple[OptimizerFacts, ...]:
    """The `most` rows with the best objective at their best learning rate, in their order; the first ones if tied."""
    rows = list(rows)
    ranks = sorted(range(len(rows)), key=lambda place: cost(rows[place].best_objective, mode))
    return tuple(rows[place] for place in sorted(ranks[:most]))


def ranked(rows: Iterable[OptimizerFacts], mode: Mode) -> list[OptimizerFacts]:
    """The rows, best first."""
    return sorted(rows, key=lambda row: cost(row.best_objective, mode))


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


def of_optimizers(facts: SweepFacts, labels: Sequence[str]) -> SweepFacts:
    """The facts of these optimizers alone."""
    rows = tuple(row for row in facts.rows if row.optimizer in labels)
    counts = {name: sum(getattr(row, name) for row in rows) for name in ("n_runs", "n_diverged", "n_failed")}
    return replace(with_rows(facts, rows), **counts)


def said(shown: int, there: int, noun: str) -> str:
    """`the 50 best of 1,000 curves`; empty where all are shown."""
    return f"the {shown:,} best of {there:,} {noun}" if shown < there else ""


def slices(facts: SweepFacts, axis: str) -> list[Slice]:
    """Per optimizer and combination of the other axes the rows along `axis`.

    Where these are more than MOST_SLICES, the other axes are held where the best row of all is, in every panel alike.
    """
    held = [tuple((name, text) for name, text in row.axes.items() if name != axis) for row in facts.rows]
    if len({(row.optimizer, others) for row, others in zip(facts.rows, held, strict=True)}) > MOST_SLICES:
        best = min(range(len(held)), key=lambda i: cost(facts.rows[i].best_objective, facts.mode))
        kept = {held[best]}
    else:
        kept = set(held)
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[OptimizerFacts]] = {}
    for row, others in zip(facts.rows, held, strict=True):
        if others in kept:
            found.setdefault((row.optimizer, others), []).append(row)
    return [(label, words.axes_text(dict(others)), rows) for (label, others), rows in found.items()]
