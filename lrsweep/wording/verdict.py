"""What a report opens with: which optimizer at which learning rate, how sure that is, and what to do next."""

from __future__ import annotations

import math

from lrsweep.analysis.facts import Interval, OptimizerFacts, SweepFacts, shortened
from lrsweep.analysis.leader import at_recommended, leader, rivals
from lrsweep.wording import advice
from lrsweep.wording.words import axes_text, interval_name, listed, number_text, objective_text, plural, rate_text

MOST_NAMES = 3


def verdict(facts: SweepFacts) -> tuple[str, str]:
    """The choice in a few words, and the sentences that go on from there."""
    best = leader(facts)
    if best is None:
        return "", advice.headline(facts)
    there = at_recommended(best, facts.mode)
    ends = interval_text(there)
    value = f"{objective_text(facts)} {number_text(there.value)}{f' ({ends})' if ends else ''}."
    parts = [value, _certainty(facts, best), advice.next_steps(facts.rows)]
    return f"Use {name(best)} at lr {rate_text(best.recommended_lr)}", " ".join(part for part in parts if part)


def name(row: OptimizerFacts) -> str:
    """`adam`, or `adam (batch_size=16)`: commas are for lists."""
    return f"{shortened(row.optimizer)} ({axes_text(row.axes)})" if row.axes else row.title


def interval_text(one: Interval) -> str:
    """`range over 3 seeds: 0.071 to 0.103`; "" where there is none."""
    if not (math.isfinite(one.low) and math.isfinite(one.high)):
        return ""
    return f"{interval_name(one.n)}: {number_text(one.low)} to {number_text(one.high)}"


def _certainty(facts: SweepFacts, best: OptimizerFacts) -> str:
    """How the others compare, or without others, how well the rate is known."""
    others = [row for row in facts.rows if row is not best and row.trained]
    if best.n_seeds == 1:
        return "One seed cannot show whether this beats the alternatives."
    if others:
        seeds = plural(best.n_seeds, "seed")
        tied = [name(row) for row in rivals(facts, best)]
        if not tied:
            return f"No other setting is tied with it ({seeds})."
        who = listed(tied, MOST_NAMES)
        if len(tied) == len(others) > 1:
            return f"All {len(tied)} others are statistically tied with it ({seeds})."
        if len(tied) > MOST_NAMES or (facts.axes and len(tied) > 1):
            who = f"{len(tied)} of the {len(others)} others"
        return f"{who} {'is' if len(tied) == 1 else 'are'} statistically tied with it ({seeds})."
    if math.isfinite(best.best_lr.low):
        ends = f"{rate_text(best.best_lr.low)} to {rate_text(best.best_lr.high)}"
        return f"The best learning rate lies within {ends} ({interval_name(best.n_seeds)})."
    return ""
