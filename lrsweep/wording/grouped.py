"""The warnings of a sweep in few lines: one per kind where there are many, the weightiest first."""

from __future__ import annotations

from typing import get_args

from lrsweep.analysis.caveats import Caveat, caveats_of
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.wording import advice
from lrsweep.wording.verdict import name
from lrsweep.wording.words import plural

MOST_LINES = 5
FEW_NAMES = 3
KINDS: dict[Caveat, tuple[str, str]] = {
    "failed": ("failed runs", "rerun to retry them"),
    "broken_start": ("initial loss NaN or infinite", "check the data, the loss and the model"),
    "all_diverged": ("most seeds diverged at every learning rate", "go down by decades or rerun with --refine"),
    "no_start": ("no finite value of the untrained model", "improvements cannot be measured"),
    "untrained": ("no improvement on the untrained model", "shift the grid"),
    "too_small": ("learning rates too small", "go up by decades or rerun with --refine"),
    "mostly_diverged": ("over half the runs diverged", "lower the grid"),
    "worse_than_untrained": ("runs that finished worse than the untrained model", "see the report"),
    "failed_edge": ("every run failed next to the good range", "fix the failures before widening the grid"),
    "edge": ("best learning rate at the end of the grid", "widen it or rerun with --refine"),
    "censored": ("good range extends past the grid", "widen it or rerun with --refine"),
    "crowded": ("few grid points in the good range, close together", "add seeds"),
    "narrow": ("narrow good range", "rerun with --refine"),
    "cliff": ("untested gap before divergence", "rerun with --refine"),
    "steep": ("untested gap before half of the improvement is lost", "rerun with --refine"),
    "flat": ("no U-shape", "every learning rate ends about as well as the best"),
    "short_budget": ("runs still improving", "train longer"),
    "one_seed": ("only one seed", "no intervals"),
    "few_seeds": ("many learning rates tied with the best", "add seeds"),
}
"""What to call a caveat that several settings share, and what to do about it."""
OF_THE_RATE: tuple[Caveat, ...] = ("all_diverged", "untrained", "too_small", "mostly_diverged")
"""Where a sweep with one learning rate has no grid to change."""


def few_warnings(facts: SweepFacts) -> list[str]:
    """At most five lines for a terminal; the report has every warning (`advice.sweep_warnings`)."""
    every = advice.sweep_warnings(facts)
    if len(every) <= MOST_LINES:
        return every
    by_kind: dict[Caveat, list[OptimizerFacts]] = {kind: [] for kind in get_args(Caveat)}
    for row in facts.rows:
        found = caveats_of(row)
        cut_off = bool({"edge", "censored"} & {*found})  # by the grid: how narrow it is, is not known
        for kind in found:
            if not (kind == "narrow" and cut_off):
                by_kind[kind].append(row)
    lines = [_line(kind, rows, len(facts.rows)) for kind, rows in by_kind.items() if rows]
    if len(lines) <= MOST_LINES:
        return lines
    rest = len(lines) - MOST_LINES + 1
    return [*lines[: MOST_LINES - 1], f"{plural(rest, 'more kind')} of warning; the report lists all of them"]


def _line(kind: Caveat, rows: list[OptimizerFacts], settings: int) -> str:
    if len(rows) == 1:
        return dict(advice.warnings(rows[0]))[kind]
    what, then = KINDS[kind]
    if rows[0].holds_rate and kind in OF_THE_RATE:
        then = "try another learning rate"
    elif kind == "too_small" and any("high" in row.failed_ends for row in rows):
        then = "fix the failed runs above them, then go up by decades"
    names = f" ({', '.join(map(name, rows))})" if len(rows) <= FEW_NAMES else ""
    return f"{what} in {len(rows)} of {settings} settings{names}; {then}"
