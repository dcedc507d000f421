"""What the script tells about each mark of a plot: lr, seed, value and status, from the facts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lrsweep.analysis.facts import OptimizerFacts, RatePoint, RunPoint, SweepFacts
from lrsweep.plot import tags
from lrsweep.wording import words
from lrsweep.wording.words import objective_text_of, plural, rate_text

MOST_TOLD = 200
"""Curves whose numbers are all on the page."""


class Curves:
    """The numbers by which the page knows the curves of a sweep."""

    def __init__(self, rows: Sequence[OptimizerFacts]) -> None:
        self.places = {tags.key(row.title): place for place, row in enumerate(rows)}

    def place(self, row: OptimizerFacts) -> int:
        return self.places[tags.key(row.title)]

    def said(self, facts: SweepFacts, figures: str, summary: str = "") -> dict[str, Any]:
        """Texts by number of the curve and of its rate or run; the runs of those curves alone whose runs are drawn.

        Of more than MOST_TOLD curves, those alone that have marks in `figures` or in the figure of the `summary`.
        """
        drawn = {int(place) for place in re.findall(r'data-row="(\d+)" data-runs', figures)}
        told = {int(place) for text in (figures, summary) for place in re.findall(r'data-row="(\d+)" data-r', text)}
        few = len(facts.rows) <= MOST_TOLD
        rows = [
            _row(row, runs=place in drawn) if few or place in told else None for place, row in enumerate(facts.rows)
        ]
        return {"objective": words.objective_text(facts), "rows": rows}


def _row(row: OptimizerFacts, *, runs: bool) -> dict[str, Any]:
    numbers = {point.lr: place for place, point in enumerate(row.rates)}
    found = {"title": row.title, "rates": [[rate_text(point.lr), *_rate(row, point)] for point in row.rates]}
    return {**found, "runs": [[numbers[run.lr], run.seed, *_run(row, run)] for run in row.runs]} if runs else found


def _rate(row: OptimizerFacts, point: RatePoint) -> tuple[str, str]:
    """Median, and what became of the seeds."""
    gone = [f"{n} {name}" for n, name in ((point.n_diverged, "diverged"), (point.n_failed, "failed")) if n]
    return objective_text_of(row, point.objective), ", ".join([plural(point.n_runs, "seed"), *gone])


def _run(row: OptimizerFacts, run: RunPoint) -> tuple[str, str]:
    """Value and status, and of a run that is ok, how its curve looks."""
    at = f" at step {run.diverged_step:.0f}" if run.status == "diverged" and run.diverged_step >= 0 else ""
    looks = f", {run.diagnosis.replace('_', ' ')}" if run.status == "ok" and run.diagnosis else ""
    return objective_text_of(row, run.objective), f"{run.status}{at}{looks}"
