"""Which optimizer did best at its recommended rate, by how much of what seeds can tell, and which ones are tied."""

from __future__ import annotations

import math

import numpy as np

from lrsweep.analysis.facts import Interval, OptimizerFacts, SweepFacts
from lrsweep.analysis.stats import Floats, bootstrapped, medians, resampled_medians
from lrsweep.analysis.tied import is_tied
from lrsweep.objective import Mode, cost, uncost


def leader(facts: SweepFacts) -> OptimizerFacts | None:
    """The row with the best median at its recommended rate, the first if several have it; None if nothing trained."""
    trained = [row for row in facts.rows if row.trained and math.isfinite(row.recommended_objective)]
    return min(trained, key=lambda row: cost(row.recommended_objective, facts.mode), default=None)


def rivals(facts: SweepFacts, best: OptimizerFacts) -> tuple[OptimizerFacts, ...]:
    """The other rows that the seeds cannot tell from `best`, each at its recommended rate, paired by seed."""
    ours = _costs(best, best.recommended_lr, facts.mode)
    found = []
    for row in facts.rows:
        if row is best or not row.trained:
            continue
        theirs = _costs(row, row.recommended_lr, facts.mode)
        shared = [seed for seed in ours if seed in theirs]
        if is_tied(np.array([theirs[seed] - ours[seed] for seed in shared if math.isfinite(ours[seed])])):
            found.append(row)
    return tuple(found)


def at_recommended(row: OptimizerFacts, mode: Mode) -> Interval:
    """The objective at the recommended rate: median and interval over seeds."""
    costs: Floats = np.array([list(_costs(row, row.recommended_lr, mode).values())], dtype=float)
    if not costs.size:
        return Interval(value=math.nan, low=math.nan, high=math.nan, n=0)
    found = bootstrapped(float(medians(costs)[0]), resampled_medians(costs)[:, 0], costs.shape[1])
    low, high = sorted(uncost(end, mode) for end in (found.low, found.high))
    return Interval(value=uncost(found.value, mode), low=low, high=high, n=found.n)


def _costs(row: OptimizerFacts, lr: float, mode: Mode) -> dict[int, float]:
    """By seed; a diverged run costs +inf, a failed one is left out."""
    runs = [run for run in row.runs if run.lr == lr and run.status != "failed"]
    return {run.seed: cost(run.objective, mode) if run.status == "ok" else math.inf for run in runs}
