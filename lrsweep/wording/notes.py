"""The sentences that belong under every reading of a sweep: what its numbers mean, and how the best rate moves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrsweep.analysis.cells import PLATEAU_METRIC
from lrsweep.analysis.facts import Drift, OptimizerFacts, SweepFacts, full_title
from lrsweep.wording.words import interval_name, listed, rate_text

MANY = 12
"""Sentences or names of one kind that are still read."""
NO_RANKING = (
    "No optimizer is best everywhere. These results are for one task, one model and one budget: do not read "
    "them as a ranking of optimizers, only as how each one responds to its learning rate here."
)
BENGIO = "Bengio (2012): the best learning rate is often within a factor of 2 of the largest one that does not diverge."
ADADELTA = (
    "Adadelta's lr multiplies a step that already has the units of the weights, so it is on a different "
    "scale (torch's default is 1.0)."
)
WINDOWS = (
    "Sensitivity depends on the range of learning rates. Where lr means something different (Lion, Muon, "
    "Adadelta, Schedule-Free), compare it only over windows centered on each optimizer's best learning rate."
)


def notes(facts: SweepFacts) -> list[str]:
    """The sentences that belong under every reading of the sweep."""
    better = "smaller" if facts.mode == "min" else "larger"
    of = f"Objective: {facts.metric}, {better} is better."
    out = [f"{of} Results are medians over seeds; ties go to the smaller learning rate."]
    if len({row.optimizer for row in facts.rows}) > 1:
        out.append(NO_RANKING)
    factors = [row for row in facts.rows if row.trained and math.isfinite(row.margins.bengio_factor)]
    if factors:
        here = listed([f"{row.title} {_factor(row)}" for row in factors], MANY)
        out.append(f"{BENGIO} Here the factor is: {here}.")
    out.append(WINDOWS)
    if any(row.name == "adadelta" for row in facts.rows):
        out.append(ADADELTA)
    out += _longer_steps(facts.rows)
    out += [_coupled(label, value) for label, value in facts.coupled_decay.items()]
    out += _watched(facts)
    moved = [_moved(drift) for drift in facts.drifts if drift.stays or math.isfinite(drift.slope.value)]
    out += moved[:MANY]
    if len(moved) > MANY:
        out.append(f"{len(moved) - MANY} more such trends were fitted.")
    return out


def _factor(row: OptimizerFacts) -> str:
    return f"{'at least ' * row.margins.censored}{row.margins.bengio_factor:.3g}"


def _coupled(label: str, decay: float) -> str:
    return (
        f"{label}: its weight decay ({decay:g}) is multiplied by lr, so sweeping lr also sweeps the decay; "
        "use `independent_weight_decay` to separate them."
    )


def _longer_steps(rows: Sequence[OptimizerFacts]) -> list[str]:
    """The best rates of SGD as those of the steps it takes, where its momentum differs."""
    known = [row for row in rows if row.trained and 0 <= row.momentum < 1]
    if len({row.momentum for row in known}) < 2:
        return []
    shown = listed([f"{row.title} at {rate_text(row.best_lr.value / (1 - row.momentum))}" for row in known], MANY)
    text = (
        "With momentum, the effective learning rate of SGD is lr / (1 - momentum); plotted against it, "
        "the curves roughly coincide. "
    )
    return [f"{text}Best learning rates as lr / (1 - momentum): {shown}."]


def _watched(facts: SweepFacts) -> list[str]:
    """What the plateau schedules cut on, a sentence per metric."""
    out = []
    for metric in dict.fromkeys(facts.plateau_metrics.values()):
        labels = listed([label for label, watched in facts.plateau_metrics.items() if watched == metric], MANY)
        usual = metric == PLATEAU_METRIC
        rest = "its default; set `metric:` to change it" if usual else f"not {PLATEAU_METRIC}, its default"
        out.append(f"The plateau schedule of {labels} watches {metric}, {rest}.")
    return out


def no_drift(drift: Drift) -> str:
    """`no drift seen (grid step 0.5 decades)`."""
    return f"no drift seen (grid step {drift.grid_step:.2g} decades)"


def _slope_text(drift: Drift, what: str) -> str:
    """Whether the best rate moves, as far as the interval of its slope tells."""
    slope = drift.slope
    if math.isnan(slope.low):
        return (
            f"the best learning rate may move along {what}: slope {slope.value:+.2g} decades per decade, from too few "
            "points for an interval"
        )
    ends = f"[{slope.low:+.2g}, {slope.high:+.2g}], {interval_name(slope.n)} and half a grid step at each point"
    if slope.low <= 0 <= slope.high:
        return f"no clear drift along {what}: slope {slope.value:+.2g} decades per decade {ends}"
    return f"the best learning rate moves by {slope.value:+.2g} decades per decade of {what} {ends}"


def _moved(drift: Drift) -> str:
    what = "the budget (earlier evaluations of the same runs)" if drift.from_rows else drift.against
    where = full_title(drift.optimizer, drift.fixed)
    if drift.stays:
        kept = next(lr for lr, used in zip(drift.best_lrs, drift.refined_lrs, strict=True) if math.isfinite(used))
        text = f"{where}: {no_drift(drift)} along {what}; the best learning rate stays at {rate_text(kept)}"
    else:
        text = f"{where}: {_slope_text(drift, what)}"
    if not drift.refined and not drift.stays:
        text += "; accurate to one grid step, because a neighbor of a best learning rate diverged"
    if left_out := len(drift.values) - drift.n_used:
        text += (
            f"; {left_out} of {len(drift.values)} left out, where the best learning rate is at the "
            "grid's edge or unknown"
        )
    return f"{text}."
