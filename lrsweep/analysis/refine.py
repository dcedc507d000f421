"""`--refine`: the rates worth adding to a finished sweep, and no others."""

from __future__ import annotations

from lrsweep.analysis.facts import SweepFacts
from lrsweep.analysis.suggest import ENOUGH, TOO_CLOSE, close_enough, next_rates, spaced

ROUNDS = 5
"""How often one command looks for missing rates and trains them. A round goes a decade past an edge at most."""


def refine(facts: SweepFacts) -> dict[str, list[float]]:
    """Rates to add per optimizer label, rising; labels without any are left out.

    A grid belongs to an optimizer, so what one set of axis values asks for is added to all of them. The rule is that of
    `next_rates`: past an edge the best rate or the basin touches, into a basin with fewer than three rates, and into
    the gap between the basin and a rate beside it that diverged or, above it, lost half of the gain. No rate is added
    within 12 % of another.
    """
    added: dict[str, set[float]] = {}
    known: dict[str, set[float]] = {}
    for row in facts.rows:
        known.setdefault(row.optimizer, set()).update(point.lr for point in row.rates)
        added.setdefault(row.optimizer, set()).update(next_rates(row))
    return {label: list(rates) for label in added if (rates := spaced(added[label], known[label]))}


def nothing_added(facts: SweepFacts) -> str:
    """What can be said of the rates where `refine` adds none."""
    if not facts.trained:
        return "--refine: no rate to add"
    failed = "; none is added beside rates whose runs failed" if any(row.failed_lrs for row in facts.rows) else ""
    if thin := [row.title for row in facts.rows if close_enough(row)]:
        more = f" and {len(thin) - 4} more" if len(thin) > 4 else ""
        return f"--refine: no rate to add: around the best rate of {', '.join(thin[:4])}{more}, {TOO_CLOSE}{failed}"
    return (
        f"--refine: no rate is missing by its rules: {ENOUGH} or more in each good range, and at most a factor of 2 "
        f"between it and a rate beside it that diverges or, above it, loses half of the gain{failed}"
    )
