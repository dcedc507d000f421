"""A sweep in sentences: one per optimizer, the caveats that matter, what to try next.

Only the words: when a caveat applies is decided in `analysis/caveats.py`, which learning rates to add in
`analysis/suggest.py`. A best learning rate is never called optimal: it is the best of those tried with this budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lrsweep.analysis.caveats import Caveat, caveats_of
from lrsweep.analysis.facts import Budget, OptimizerFacts, SweepFacts
from lrsweep.analysis.sensitivity import is_even
from lrsweep.analysis.suggest import ENOUGH, better_grid, close_enough, known_gaps, open_gaps, steep_gap, too_high
from lrsweep.grids import generate
from lrsweep.wording.words import (
    agree,
    budget_text,
    decades,
    highest_known,
    listed,
    objective_text_of,
    plural,
    rate_text,
)

ASK_FOR_RATES = (
    "all_diverged", "untrained", "too_small", "mostly_diverged", "edge", "censored", "narrow", "cliff", "steep",
)  # fmt: skip
"""Caveats that another grid answers; the first of a row carries the line to paste, which answers all of them."""
LONG_LINE = 80
"""Letters of a line to paste from which on a list of rates is no help."""

MOST_NAMES = 2
"""Optimizers that a next step names."""

BROKEN_START = "the initial loss is NaN or infinite, so the learning rate is not the cause"
TOO_SMALL = "nothing trained, learning rates too small"
LOOK = "check the data, the loss and the model for NaN and infinite values"
TOO_CLOSE = "learning rates are already less than 26 % apart; add seeds, not learning rates"
BEST_TRIED = "best learning rate tried"
RECOMMENDED = {
    "centre": "closest to the center of the good range; no seed diverged or lost half of the improvement",
    "edge": f"{BEST_TRIED}; the good range extends past the grid at {{ends}}, so widen it first",
    "failed_edge": f"{BEST_TRIED}; the good range ends where runs failed",
    "no_clean_rate": f"{BEST_TRIED}; at every learning rate of the good range some seed diverged or ended closer to "
    "the untrained model than to the best",
    "no_start": f"{BEST_TRIED}; without the untrained model's value the good range is unknown",
    "nothing": "nothing trained",
}


# --- one row ------------------------------------------------------------------------------------------------------


def sentence(row: OptimizerFacts, budget: Budget | None) -> str:
    """What one row of the summary says."""
    n_known = row.n_rates - len(row.failed_lrs)
    known = plural(n_known, "learning rate")
    but = " that did not fail" * bool(row.failed_lrs)
    how = f"with this budget ({budget_text(budget)}, {plural(row.n_seeds, 'seed')})"
    tried = f"the {known} tried{but} {how}"
    if row.n_runs == row.n_failed:
        return f"{row.title}: every run failed; there are no results."
    if row.broken_start:
        return f"{row.title}: {BROKEN_START}; {LOOK}."
    if math.isnan(row.best_lr.value):
        return f"{row.title}: every one of {tried} diverged; try smaller learning rates."
    if row.rates_too_small and not row.trained:
        return f"{row.title}: {TOO_SMALL} ({tried})."
    if not row.trained and not math.isnan(row.initial_objective):
        return f"{row.title}: no learning rate improved on the untrained model ({tried})."
    if n_known == 1:
        said = objective_text_of(row, row.best_objective)
        return f"{row.title}: {said} at {rate_text(row.best_lr.value)}, the only learning rate tried{but}, {how}."
    parts = [f"{row.title}: {rate_text(row.best_lr.value)} is the best of {tried}", _width(row), _price(row)]
    parts += [_top(row), f"every run failed at {_rates(row.failed_lrs)}" * bool(row.failed_lrs)]
    return "; ".join(part for part in parts if part) + "."


def _width(row: OptimizerFacts) -> str:
    good_range = row.good_range
    if not good_range.rates:
        return "the width of the good range is unknown because the untrained model has no finite value"
    cliffs = [lr for lr in (row.cliff_below, row.cliff_above) if not math.isnan(lr)]
    if good_range.censored and not cliffs:
        return f"the good range is at least {decades(good_range.decades)} wide ({_span(row)})"
    beyond = f" ({' and '.join(map(rate_text, cliffs))} {agree(len(cliffs), 'diverge')}; nothing in between was tried)"
    if good_range.decades == 0:
        return f"no neighboring learning rate is about as good{beyond if cliffs else ''}"
    if not cliffs:
        rough = " roughly (it holds one grid point)" * (len(good_range.rates) == 1)
        return f"the good range is{rough} {_span(row)}, {decades(good_range.decades)}"
    low = f"{'at most ' if good_range.censored_low or row.cliff_below > 0 else ''}{rate_text(good_range.low)}"
    high = f"{'at least ' if good_range.censored_high or row.cliff_above > 0 else ''}{rate_text(good_range.high)}"
    return f"the good range is {low} to {high}{beyond}, at least {decades(good_range.decades)}"


def _price(row: OptimizerFacts) -> str:
    """What the recommended rate costs, where it is not the best one."""
    if math.isnan(row.recommended_objective) or row.recommended_lr == row.best_lr.value:
        return ""
    there, best = row.recommended_objective, row.best_objective
    return f"the recommended {rate_text(row.recommended_lr)} reaches {there:.4g}, the best {best:.4g}"


def _top(row: OptimizerFacts) -> str:
    """What happens above the best rate."""
    if row.margins.unusable_from < math.inf and row.margins.unusable_from != row.margins.diverges_from:
        return f"it loses half of the improvement or more from {rate_text(row.margins.unusable_from)} upwards"
    if not math.isnan(row.margins.diverges_from):
        return f"it diverges from {rate_text(row.margins.diverges_from)} upwards"
    above = [point for point in row.rates if point.lr > row.best_lr.value]
    tried = [point for point in row.rates if point.n_runs > point.n_failed]
    if "high" in row.failed_ends and row.best_lr.value == tried[-1].lr:
        return ""  # nothing above it is known
    top = rate_text(tried[-1].lr)
    worse = [point for point in above if point.n_worse]
    gone = sum(point.n_diverged for point in above)
    if not worse and not gone:
        return f"it does not diverge up to {top}"
    runs = plural(sum(point.n_ok + point.n_diverged for point in above), "run")
    of = f"of the {runs} above {rate_text(row.best_lr.value)}"
    n = sum(point.n_worse for point in worse)
    ends = "finished worse than the untrained model"
    if not gone:
        return f"nothing diverges up to {top}, but {n} {of} {ends}"
    return (
        f"{gone} {of} {agree(gone, 'diverge')}{f' and {n} {ends}' if n else ''}, but never half of the "
        "seeds at one learning rate"
    )


def _rates(values: Sequence[float]) -> str:
    """`10 and 100`, or from which on to which where they are many."""
    texts = [rate_text(value) for value in values]
    return " and ".join(texts) if len(texts) < 3 else f"{len(texts)} learning rates, {texts[0]} to {texts[-1]}"


def _span(row: OptimizerFacts) -> str:
    return f"{rate_text(row.good_range.low)} to {rate_text(row.good_range.high)}"


def recommendation(row: OptimizerFacts, metric: str) -> str:
    """The robust rate and the largest safe one, each with its reason; "" where nothing trained, and of one rate."""
    if not row.trained or row.holds_rate:
        return ""
    ends = "both ends" if row.good_range.censored_low and row.good_range.censored_high else "one end"
    reason = RECOMMENDED[row.recommended_by].format(ends=ends) + " (one seed)" * (row.n_seeds == 1)
    if row.recommended_lr != row.best_lr.value:
        there, best = row.recommended_objective, row.best_objective
        reason += f"; {metric} {there:.4g}, against {best:.4g} at the best lr ({row.best_lr.value:.3g})"
    text = f"Recommended: {rate_text(row.recommended_lr)}, {reason}."
    largest = row.margins.largest_safe_lr
    if math.isnan(largest):
        return text
    return f"{text} Largest safe learning rate (no seed lost half of the improvement): {rate_text(largest)}."


# --- caveats ------------------------------------------------------------------------------------------------------


def sweep_warnings(facts: SweepFacts) -> list[str]:
    """The warnings of all rows, then those about the sweep."""
    out = [text for row in facts.rows for _, text in warnings(row)]
    if facts.rows and not facts.trained and not facts.all_failed:
        out.append("no run improved on the untrained model")
    return out


def warnings(row: OptimizerFacts) -> list[tuple[Caveat, str]]:
    """What to know before believing a row, the weightiest first."""
    found = caveats_of(row)
    first = next((kind for kind in found if kind in ASK_FOR_RATES and not row.holds_rate), None)
    line = lr_line(row) if first else ""
    long = len(line) > LONG_LINE and first in ("cliff", "steep")  # which --refine answers
    paste = {first: "; `--refine` tries it" if long else f"; try `{line}`"} if line else {}
    return [(kind, f"{row.title}: {CAVEATS[kind](row)}{paste.get(kind, '')}") for kind in found]


def _mostly_diverged(row: OptimizerFacts) -> str:
    share = f"{row.n_diverged} of {plural(row.n_runs - row.n_failed, 'run')} diverged"
    return f"{share}{'; the grid extends too high' * bool(too_high(row) and not row.holds_rate)}"


def _worse(row: OptimizerFacts) -> str:
    worse = [point for point in row.rates if point.n_worse]
    share = f"{sum(point.n_worse for point in worse)} of {plural(row.n_runs - row.n_failed, 'run')}"
    where = " to ".join(dict.fromkeys([rate_text(worse[0].lr), rate_text(worse[-1].lr)]))
    return f"{share} finished worse than the untrained model (lr {where}) without diverging"


def _failed_edge(row: OptimizerFacts) -> str:
    ends = "the best learning rate" if row.at_edge else "the good range"
    text = f"{ends} borders on {_rates(row.failed_lrs)}, where every run failed, so nothing is known beyond it"
    return f"{text}; fix the failures before widening the grid"


def _edge(row: OptimizerFacts) -> str:
    where = {"low": "lowest", "high": "highest", "both": "only"}[row.edge_side]
    return f"the best learning rate {rate_text(row.best_lr.value)} is the {where} one tried"


def _narrow(row: OptimizerFacts) -> str:
    return f"only {plural(len(row.good_range.rates), 'grid point')} in the good range"


def _gaps(gaps: Sequence[tuple[float, float]]) -> str:
    where = " and ".join(f"between {rate_text(low)} and {rate_text(high)}" for low, high in gaps)
    return f"nothing was tried {where}, where the good range ends"


def _short_budget(row: OptimizerFacts) -> str:
    improving, good = row.still_improving
    share, were = f"{improving} of {plural(good, 'run')}", "was" if improving == 1 else "were"
    if row.holds_rate:
        return f"{share} {were} still improving: train longer"
    return f"{share} in the good range {were} still improving: train longer (the best learning rate may shift)"


def _few_seeds(row: OptimizerFacts) -> str:
    tied = len(row.tied_lrs)
    if row.n_seeds == 2:
        return f"2 seeds cannot tell {tied - 1} of the {row.n_rates - 1} other learning rates from the best: add seeds"
    return (
        f"{tied} of {row.n_rates} learning rates are statistically tied with the best at {row.n_seeds} seeds: add seeds"
    )


CAVEATS: dict[Caveat, Callable[[OptimizerFacts], str]] = {
    "failed": lambda row: (
        f"{row.n_failed} of {plural(row.n_runs, 'run')} failed and {'is' if row.n_failed == 1 else 'are'} left out; "
        f"rerun to retry {'it' if row.n_failed == 1 else 'them'}"
    ),
    "broken_start": lambda row: f"{BROKEN_START}; {LOOK}",
    "all_diverged": lambda row: "at least half of the seeds diverged at every learning rate",
    "no_start": lambda row: (
        "the untrained model has no finite value of this metric, so improvements cannot be measured"
    ),
    "untrained": lambda row: "no learning rate improved on the untrained model",
    "too_small": lambda row: (
        f"learning rates too small: the improvement still grows in proportion to lr at {rate_text(highest_known(row))}"
        if row.trained
        else TOO_SMALL
    ),
    "mostly_diverged": _mostly_diverged,
    "worse_than_untrained": _worse,
    "failed_edge": _failed_edge,
    "edge": _edge,
    "censored": lambda row: "the good range extends past the grid",
    "crowded": lambda row: f"{_narrow(row)}; {TOO_CLOSE}",
    "narrow": _narrow,
    "cliff": lambda row: f"{_gaps(open_gaps(row))} in divergence; a better learning rate may lie in that gap",
    "steep": lambda row: (
        f"{_gaps(steep_gap(row))} and half of the improvement or more is lost; "
        "a better learning rate may lie in that gap"
    ),
    "flat": lambda row: "no U-shape: every learning rate ends about as well as the best",
    "short_budget": _short_budget,
    "one_seed": lambda row: "only one seed: no intervals, and no learning rate can be called tied with the best",
    "few_seeds": _few_seeds,
}


_SIDES = {
    "low": "best lr is at the low end",
    "high": "best lr is at the high end",
    "both": "only one lr tried",
}
SHORT_CAVEATS = (
    ("broken_start", "initial loss is NaN/inf; lr is not the cause"),
    ("all_diverged", "half or more seeds diverge at every lr"),
    ("no_start", "untrained model has no finite value"),
    ("untrained", "no lr improved on the untrained model"),
    ("too_small", "{verdict}{upwards}"),
    ("failed_edge", "runs next to the good range failed"),
    ("edge", "{side}; widen the grid"),
    ("flat", "flat: all learning rates perform about the same"),
    ("mostly_diverged", "over half the runs diverged{remedy}"),
    ("censored", "good range reaches the grid edge; widen the grid"),
    ("narrow", "{inside} in the good range; try --refine"),
    ("crowded", "{inside} in the good range, others close by; add seeds"),
    ("cliff", "untested gap before divergence; try --refine"),
)


def warning_line(row: OptimizerFacts) -> str:
    """The weightiest thing to know before reading a U-curve: why there is none, or which end not to trust; or \"\"."""
    if row.n_failed == row.n_runs:
        return "every run failed"
    kinds = caveats_of(row)
    inside = f"only {plural(len(row.good_range.rates), 'grid point')}"
    found = next((text for kind, text in SHORT_CAVEATS if kind in kinds), "")
    verdict = "learning rates too small" if row.trained else TOO_SMALL
    remedy = "" if row.holds_rate else "; lower the grid"
    upwards = "; runs above them failed" if "high" in row.failed_ends else "; go up by decades"
    side = _SIDES.get(row.edge_side, "")
    return found.format(side=side, inside=inside, verdict=verdict, remedy=remedy, upwards=upwards)


def lr_line(row: OptimizerFacts) -> str:
    """The `lr:` line that holds the grid and the rates it lacks, which are all that it trains, without those that are
    too high; "" if the grid is to stay as it is."""
    return written(rates) if (rates := better_grid(row)) else ""


def written(rates: Sequence[float]) -> str:
    """An `lr:` line for these rates: by spacing where that gives the very same rates, else as a list."""
    if len(rates) > 2 and is_even(np.array(rates)):
        per_decade = round(1 / float(np.median(np.diff(np.log10(rates)))))
        if 1 <= per_decade <= 100 and list(generate(rates[0], rates[-1], per_decade=per_decade)) == list(rates):
            return f"lr: {{min: {rates[0]!r}, max: {rates[-1]!r}, per_decade: {per_decade}}}"
    return f"lr: [{', '.join(repr(rate) for rate in rates)}]"


def nothing_added(facts: SweepFacts) -> str:
    """What can be said of the rates where `refine` adds none."""
    if not facts.trained:
        return "--refine: nothing to add"
    failed = (
        "; none is added next to learning rates whose runs failed" if any(row.failed_lrs for row in facts.rows) else ""
    )
    if thin := [row.title for row in facts.rows if close_enough(row)]:
        return f"--refine: nothing to add: around the best learning rate of {listed(thin)}, {TOO_CLOSE}{failed}"
    widest = max((high / low for row in facts.rows for low, high in known_gaps(row)), default=1.0)
    return (
        f"--refine: nothing to add: each good range has {ENOUGH} or more learning rates, and there and at its edges "
        f"neighboring learning rates are at most a factor of {widest:.2g} apart{failed}"
    )


# --- next steps --------------------------------------------------------------------------------------------------


def next_steps(rows: Sequence[OptimizerFacts]) -> str:
    """What to do about the grid, the seeds and the budget, and for which rows."""
    if rows and all(row.holds_rate for row in rows):
        return ""
    known = [row for row in rows if row.trained and not row.rates_too_small]
    few = [row for row in known if not row.good_range.censored and len(row.good_range.rates) < ENOUGH]
    steps: dict[str, list[OptimizerFacts]] = {
        "find out why runs failed for {}": [row for row in rows if row.failed_lrs],
        "go up by decades for {}": [row for row in rows if row.rates_too_small and "high" not in row.failed_ends],
        "shift the grid for {}": [
            row
            for row in rows
            if not row.trained and not row.rates_too_small and row.n_runs > row.n_failed and not row.broken_start
        ],
        "drop the highest learning rates for {}": [row for row in rows if row.trained and too_high(row)],
        "widen the grid for {}": [
            row for row in rows if row.trained and not row.rates_too_small and row.open_ends - row.failed_ends
        ],
        "add learning rates near the best for {}": [row for row in few if not close_enough(row)],
        "add seeds, not learning rates, for {}": [row for row in few if close_enough(row)],
        "refine the gap before divergence for {}": [row for row in rows if row.trained and open_gaps(row)],
        "refine between the best and much worse learning rates for {}": [
            row for row in rows if row.trained and steep_gap(row)
        ],
        "train longer ({} still improving)": [row for row in rows if "short_budget" in caveats_of(row)],
    }
    texts = [text.format(_which(some, rows)) for text, some in steps.items() if some]
    return f"Next: {'; '.join(texts)}." if texts else "The grid covers every good range in full."


def _which(some: Sequence[OptimizerFacts], rows: Sequence[OptimizerFacts]) -> str:
    """Their names, or how many they are; settings of a sweep with axes have long names."""
    axes = any(row.axes for row in rows)
    if len(some) > (1 if axes else MOST_NAMES):
        count = f"all {len(rows)}" if len(some) == len(rows) else f"{len(some)} of {len(rows)}"
        return f"{count} {'settings' if axes else 'optimizers'}"
    return listed([row.title for row in some])
