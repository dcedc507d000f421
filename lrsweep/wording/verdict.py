"""What a report opens with: which optimizer at which learning rate, how sure that is, and what to do next."""

from __future__ import annotations

import math

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts, shortened
from lrsweep.analysis.leader import at_recommended, leader, rivals
from lrsweep.wording import advice
from lrsweep.wording.words import (
    axes_text,
    budget_text,
    interval_name,
    listed,
    objective_text,
    objective_text_of,
    plural,
    rate_text,
)

MOST_NAMES = 3


def verdict(facts: SweepFacts) -> tuple[str, str]:
    """The choice in a few words, and the sentences that go on from there."""
    best = leader(facts)
    if best is None:
        return "", _nothing_to_choose(facts)
    there = at_recommended(best, facts.mode)
    ends = ""
    if math.isfinite(there.low) and math.isfinite(there.high):
        low, high = (objective_text_of(best, end, 3) for end in (there.low, there.high))
        ends = f" ({interval_name(there.n)}: {low} to {high})"
    value = f"{objective_text(facts)} {objective_text_of(best, there.value, 3)}{ends}."
    parts = [value, _certainty(facts, best), advice.next_steps(facts.rows)]
    return f"Use {name(best)} at lr {rate_text(best.recommended_lr)}", " ".join(part for part in parts if part)


def _nothing_to_choose(facts: SweepFacts) -> str:
    """Why no optimizer is better than another one."""
    rows = facts.rows
    if not rows:
        return "No run has finished yet."
    if all(row.n_runs == row.n_failed for row in rows):
        return "Every run failed, so there are no results. The errors are listed under Diagnosis."
    if all(row.broken_start for row in rows):
        return f"Nothing could be trained: {advice.BROKEN_START}. {advice.LOOK.capitalize()}."
    why = "no learning rate improved on the untrained model"
    if small := [row for row in rows if row.rates_too_small]:
        some = "" if len(small) == len(rows) else f" for {listed([row.title for row in small])}"
        why = f"the learning rates are too small{some}"
    budget = budget_text(facts.budget)
    return f"Nothing trained: with this budget ({budget}) {why}. {advice.next_steps(rows)}".strip()


def name(row: OptimizerFacts) -> str:
    """`adam`, or `adam (batch_size=16)`: commas are for lists."""
    return f"{shortened(row.optimizer)} ({axes_text(row.axes)})" if row.axes else row.title


def _certainty(facts: SweepFacts, best: OptimizerFacts) -> str:
    """How the others compare, or without others, how well the rate is known."""
    others = [row for row in facts.rows if row is not best and row.trained]
    if best.n_seeds == 1:
        return "One seed cannot show whether this beats the alternatives."
    if others:
        seeds = plural(best.n_seeds, "seed")
        each = "" if best.holds_rate else ", each at its recommended lr"
        tied = [name(row) for row in rivals(facts, best)]
        if not tied:
            return f"No other setting is tied with it{each} ({seeds})."
        who = listed(tied, MOST_NAMES)
        if best.n_seeds == 2:  # whose interval is so wide that nearly everything is tied
            all_of_them = f"the {len(tied)} others" if len(tied) == len(others) > 1 else who
            return f"2 seeds cannot tell it from {all_of_them}{each}."
        if len(tied) == len(others) > 1:
            every = "Both" if len(tied) == 2 else f"All {len(tied)}"
            return f"{every} others are statistically tied with it{each} ({seeds})."
        if len(tied) > MOST_NAMES or (facts.axes and len(tied) > 1):
            who = f"{len(tied)} of the {len(others)} others"
        return f"{who} {'is' if len(tied) == 1 else 'are'} statistically tied with it{each} ({seeds})."
    if math.isfinite(best.best_lr.low):
        ends = f"{rate_text(best.best_lr.low)} to {rate_text(best.best_lr.high)}"
        return f"The best learning rate lies within {ends} ({interval_name(best.n_seeds)})."
    return ""
