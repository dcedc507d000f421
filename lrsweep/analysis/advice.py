"""What a person would say about a sweep: one sentence per optimizer, the warnings that matter, what to try next.

A best rate is never called optimal: it is the best of those tried, on this budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrsweep.analysis.cells import PLATEAU_METRIC, AnalysisConfig
from lrsweep.analysis.facts import Drift, OptimizerFacts, SweepFacts, Warned
from lrsweep.analysis.suggest import ENOUGH, TOO_CLOSE, close_enough, lr_line, open_gaps, steep_gap, too_high

ASK_FOR_RATES = ("all_diverged", "untrained", "mostly_diverged", "edge", "censored", "narrow", "cliff", "steep")
"""Warnings that another grid answers; the first of a row carries the line to paste, which answers all of them."""
LONG_LINE = 80
"""Letters of a line to paste from which on a list of rates is no help."""
WIDE_TIE = 0.5
"""Share of the grid: more rates than this tied with the best means that the seeds cannot tell them apart."""
MANY = 12
"""Sentences or names of one kind that are still read."""

BROKEN_START = "the loss of the untrained model is not finite already, so the learning rate is not the cause"
LOOK = "look for values that are not finite in the data, the loss and the model"
NO_RANKING = (
    "No optimizer is best everywhere: this is one task, one model and one budget, so read no ranking into it; "
    "only how each optimizer takes to its learning rate here."
)
BENGIO = "Bengio (2012): the best rate is often within a factor of 2 of the largest one that does not diverge."
ADADELTA = (
    "Adadelta's lr multiplies a step already in the units of the weights: its scale is another (torch's default: 1.0)."
)
WINDOWS = (
    "Sensitivity depends on the range of rates, and means nothing across a change of what lr means (Lion, Muon, "
    "Adadelta, schedule-free): compare it on windows centred on each best rate."
)


def rate(value: float) -> str:
    """A learning rate for people."""
    return "none" if math.isnan(value) else f"{value:.3g}"


def decade(value: float) -> str:
    """The order of magnitude a rate lies in."""
    power = math.floor(math.log10(value) + 1e-9)
    return f"{10.0**power:.0e} to {10.0 ** (power + 1):.0e}".replace("e-0", "e-").replace("e+0", "e+")


def sentence(row: OptimizerFacts, budget: str) -> str:
    """What one row of the summary says."""
    known = _count(row.n_rates - len(row.failed_lrs), "rate") if row.failed_lrs else f"{row.n_rates} rates"
    but = " that did not fail" * bool(row.failed_lrs)
    tried = f"the {known} tried{but}, on this budget ({budget}, {_count(row.n_seeds, 'seed')})"
    if row.n_runs == row.n_failed:
        return f"{row.title}: every run failed, so there is nothing to say."
    if row.broken_start:
        return f"{row.title}: {BROKEN_START}; {LOOK}."
    if math.isnan(row.best_lr.value):
        return f"{row.title}: every one of {tried} diverged; try smaller ones."
    if not row.trained and not math.isnan(row.initial_objective):
        return f"{row.title}: nothing trained at any of {tried}: no rate got below the untrained model."
    parts = [f"{row.title}: {rate(row.best_lr.value)} is the best of {tried}", _width(row), _price(row)]
    parts += [_top(row), f"every run failed at {_rates(row.failed_lrs)}" * bool(row.failed_lrs)]
    return "; ".join(part for part in parts if part) + "."


def _width(row: OptimizerFacts) -> str:
    basin = row.basin
    if not basin.rates:
        return "how wide the good range is cannot be told without a value of the untrained model"
    cliffs = [lr for lr in (row.cliff_below, row.cliff_above) if not math.isnan(lr)]
    if basin.censored and not cliffs:
        return f"the good range is at least {basin.decades:.2g} decades wide ({_span(basin.low, basin.high)})"
    beyond = f" ({' and '.join(map(rate, cliffs))} diverge{'s' * (len(cliffs) == 1)}; nothing tried between)"
    if basin.decades == 0:
        return f"no rate beside it is about as good{beyond if cliffs else ''}"
    if not cliffs:
        return f"the good range is {_span(basin.low, basin.high)}, {basin.decades:.2g} decades"
    low = f"{'at most ' if basin.censored_low or row.cliff_below > 0 else ''}{rate(basin.low)}"
    high = f"{'at least ' if basin.censored_high or row.cliff_above > 0 else ''}{rate(basin.high)}"
    return f"the good range is {low} to {high}{beyond}, at least {basin.decades:.2g} decades"


def _price(row: OptimizerFacts) -> str:
    """What the recommended rate costs, where it is not the best one."""
    objective = {point.lr: point.objective for point in row.rates}
    if row.recommended_lr not in objective or row.recommended_lr == row.best_lr.value:
        return ""
    there, best = objective[row.recommended_lr], row.best_objective
    return f"the recommended {rate(row.recommended_lr)} ends at {there:.4g}, the best at {best:.4g}"


def _top(row: OptimizerFacts) -> str:
    """What happens above the best rate."""
    if not math.isnan(row.margins.diverges_from):
        return f"it diverges from {rate(row.margins.diverges_from)} up"
    above = [point for point in row.rates if point.lr > row.best_lr.value]
    tried = [point for point in row.rates if point.n_runs > point.n_failed]
    if "high" in row.failed_ends and row.best_lr.value == tried[-1].lr:
        return ""  # nothing above it is known
    top = rate(tried[-1].lr)
    worse = [point for point in above if point.n_worse]
    gone = sum(point.n_diverged for point in above)
    if not worse and not gone:
        return f"it does not diverge up to {top}"
    runs = _count(sum(point.n_ok + point.n_diverged for point in above), "run")
    of = f"of the {runs} above {rate(row.best_lr.value)}"
    n = sum(point.n_worse for point in worse)
    ends = f"end{'s' * (n == 1)} worse than the untrained model"
    if not gone:
        return f"nothing diverges up to {top}, but {n} {of} {ends}"
    return f"{gone} {of} diverge{'s' * (gone == 1)}{f' and {n} {ends}' if n else ''}, at no rate half of the seeds"


def _rates(values: Sequence[float]) -> str:
    """`10 and 100`, or from which on to which where they are many."""
    texts = [rate(value) for value in values]
    return " and ".join(texts) if len(texts) < 3 else f"{len(texts)} rates of {texts[0]} to {texts[-1]}"


def _span(low: float, high: float) -> str:
    return f"{rate(low)} to {rate(high)}"


def warnings_of(row: OptimizerFacts) -> tuple[Warned, ...]:
    """What to know before believing a row, the weightiest first."""
    found = [*_outcome_warnings(row), *_grid_warnings(row), *_evidence_warnings(row)]
    first = next((kind for kind, _ in found if kind in ASK_FOR_RATES), "")
    line = lr_line(row) if first else ""
    long = len(line) > LONG_LINE and first in ("cliff", "steep")  # which --refine answers
    paste = {first: "; `--refine` tries it" if long else f"; try `{line}`"} if line else {}
    return tuple(Warned(kind=kind, text=f"{row.title}: {text}{paste.get(kind, '')}") for kind, text in found)


def _outcome_warnings(row: OptimizerFacts) -> list[tuple[str, str]]:
    out = []
    if row.n_failed:
        out.append(("failed", f"{row.n_failed} of {row.n_runs} runs failed and are left out; run again to retry them"))
    if row.n_runs == row.n_failed:
        return out
    if row.broken_start:
        return [*out, ("broken_start", f"{BROKEN_START}; {LOOK}")]
    if math.isnan(row.best_lr.value):
        out.append(("all_diverged", "at every rate at least half of the seeds diverged"))
    elif not row.trained and math.isnan(row.initial_objective):
        out.append(("no_start", "the untrained model has no finite value of this metric, so gains cannot be measured"))
    elif not row.trained:
        out.append(("untrained", "nothing trained: no rate got below the untrained model"))
    if 2 * row.n_diverged > row.n_runs - row.n_failed:
        share = f"{row.n_diverged} of {row.n_runs - row.n_failed}"
        out.append(("mostly_diverged", f"{share} runs diverged{'; the grid reaches too far up' * bool(too_high(row))}"))
    if worse := [point for point in row.rates if point.n_worse]:
        share = f"{sum(point.n_worse for point in worse)} of {_count(row.n_runs - row.n_failed, 'run')}"
        where = " to ".join(dict.fromkeys([rate(worse[0].lr), rate(worse[-1].lr)]))
        text = f"{share} end worse than the untrained model without counting as diverged (at {where})"
        out.append(("worse_than_untrained", text))
    return out


def _grid_warnings(row: OptimizerFacts) -> list[tuple[str, str]]:
    out = []
    if row.open_ends & row.failed_ends:
        ends = "the best rate" if row.at_edge else "the good range"
        text = f"{ends} borders on {_rates(row.failed_lrs)}, where every run failed: nothing is known beyond"
        out.append(("failed_edge", f"{text}; find out why before widening the grid"))
    elif row.at_edge:
        where = {"low": "lowest", "high": "highest", "both": "only"}[row.edge_side]
        out.append(("edge", f"the best rate {rate(row.best_lr.value)} is the {where} one of its grid"))
    if row.open_ends - row.failed_ends and (row.open_ends & row.failed_ends or not row.at_edge):
        out.append(("censored", "the good range runs out of the grid"))
    if row.trained and len(row.basin.rates) < ENOUGH:
        inside = _count(len(row.basin.rates), "grid rate")
        text = f"only {inside} in the good range"
        out.append(("crowded", f"{text}; {TOO_CLOSE}") if close_enough(row) else ("narrow", text))
    if gaps := open_gaps(row):
        where = " and ".join(f"between {rate(low)} and {rate(high)}" for low, high in gaps)
        text = f"nothing was tried {where}, where the good range ends in divergence: a better rate may lie there"
        out.append(("cliff", text))
    for low, high in steep_gap(row):
        text = f"nothing was tried between {rate(low)} and {rate(high)}, where the good range ends and half of the gain"
        out.append(("steep", f"{text} or more is lost: a better rate may lie there"))
    if not row.even_grid:
        out.append(("uneven", "the rates are unevenly spaced: sensitivity weighs crowded parts of the grid more"))
    return out


def _evidence_warnings(row: OptimizerFacts) -> list[tuple[str, str]]:
    out = []
    if row.trained and is_flat(row):
        out.append(("flat", "no U in sight: every rate ends about as well as the best one"))
    good = [run.diagnosis for run in row.runs if run.lr in row.basin.rates and run.status == "ok"]
    improving = good.count("improving")
    if good and 2 * improving > len(good):
        text = f"{improving} of {len(good)} runs in the good range were still improving: the budget is short"
        out.append(("short_budget", f"{text}, and the best rate may move when it grows"))
    if row.n_seeds == 1:
        out.append(("one_seed", "one seed: no interval, and no rate can be called tied with the best"))
    elif row.trained and (tied := len(row.near_tied_lrs)) > max(WIDE_TIE * row.n_rates, ENOUGH):
        text = f"{tied} of {row.n_rates} rates cannot be told from the best one with {row.n_seeds} seeds"
        out.append(("few_seeds", f"{text}: add seeds"))
    return out


def is_flat(row: OptimizerFacts) -> bool:
    """Every rate of a grid of three or more lies in the basin."""
    return row.n_rates >= 3 and len(row.basin.rates) == row.n_rates


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def sweep_warnings(facts: SweepFacts) -> tuple[Warned, ...]:
    """The warnings of all rows, then those about the sweep."""
    out = [warned for row in facts.rows for warned in row.warnings]
    if facts.rows and not facts.trained and not facts.all_failed:
        out.append(Warned(kind="nothing_trained", text="nothing was trained in this sweep: no run beats its own start"))
    return tuple(out)


def notes_of(rows: Sequence[OptimizerFacts], drifts: Sequence[Drift], setup: AnalysisConfig) -> tuple[str, ...]:
    """The sentences that belong under every reading of the sweep."""
    better = "smaller" if setup.mode == "min" else "larger"
    of = f"Objective: {setup.metric}, {better} is better."
    notes = [f"{of} Seeds are summarised by medians, ties go to the smaller rate."]
    if len({row.optimizer for row in rows}) > 1:
        notes.append(NO_RANKING)
    factors = [row for row in rows if math.isfinite(row.margins.bengio_factor)]
    if factors:
        here = _names([f"{row.title} {_factor(row)}" for row in factors], MANY)
        notes.append(f"{BENGIO} Here the factor is: {here}.")
    notes.append(WINDOWS)
    if any(row.name == "adadelta" for row in rows):
        notes.append(ADADELTA)
    notes += _longer_steps(rows, setup)
    notes += [_coupled(label, value) for label, value in setup.decay.items()]
    notes += _watched(setup)
    moved = [_moved(drift) for drift in drifts if math.isfinite(drift.slope.value)]
    notes += moved[:MANY]
    if len(moved) > MANY:
        notes.append(f"{len(moved) - MANY} more drifts of this kind were fitted.")
    return tuple(notes)


def _factor(row: OptimizerFacts) -> str:
    return f"{_at_least(row.margins.censored)}{row.margins.bengio_factor:.3g}"


def _coupled(label: str, decay: float) -> str:
    return (
        f"{label}: its weight decay ({decay:g}) acts in steps of the learning rate, so sweeping the rate sweeps the "
        "decay too; `independent_weight_decay` takes the two apart."
    )


def _longer_steps(rows: Sequence[OptimizerFacts], setup: AnalysisConfig) -> list[str]:
    """The best rates of SGD as those of the steps it takes, where its momentum differs."""
    found = [(row, setup.momentum_of(row.optimizer, row.axes)) for row in rows if row.trained]
    known = [(row, momentum) for row, momentum in found if momentum is not None and 0 <= momentum < 1]
    if len({momentum for _, momentum in known}) < 2:
        return []
    shown = _names([f"{row.title} at {rate(row.best_lr.value / (1 - momentum))}" for row, momentum in known], MANY)
    text = "With momentum SGD's steps add up to those of lr / (1 - momentum), by which curves roughly line up. "
    return [f"{text}The best rates as lr / (1 - momentum): {shown}."]


def _watched(setup: AnalysisConfig) -> list[str]:
    """What the plateau schedules cut on, a sentence per metric."""
    out = []
    for metric in dict.fromkeys(setup.watched.values()):
        labels = _names([label for label, watched in setup.watched.items() if watched == metric], MANY)
        usual = metric == PLATEAU_METRIC
        rest = "its default; `metric:` names another" if usual else f"not {PLATEAU_METRIC}, its default"
        out.append(f"The plateau schedule of {labels} watches {metric}, {rest}.")
    return out


def _moved(drift: Drift) -> str:
    what = "the budget (earlier rows of the same runs)" if drift.from_rows else drift.against
    fixed = "".join(f", {name}={value}" for name, value in drift.fixed.items())
    kept = [lr for lr in drift.refined_lrs if math.isfinite(lr)]
    if max(kept) == min(kept):
        text = f"{drift.optimizer}{fixed}: the best rate stays at {rate(kept[0])} along {what}"
    else:
        text = f"{drift.optimizer}{fixed}: the best rate moves by {drift.slope.value:+.2g} decades per decade of {what}"
        if not math.isnan(drift.slope.low):
            text += f" [{drift.slope.low:+.2g}, {drift.slope.high:+.2g}], {_count(drift.slope.n, 'seed')}"
    if not drift.refined:
        text += "; in steps of the grid, since a neighbour of some best rate diverged"
    if left_out := len(drift.values) - drift.n_used:
        text += f"; {left_out} of {len(drift.values)} left out, where the best rate is at the grid's edge or missing"
    return f"{text}."


def headline(rows: Sequence[OptimizerFacts], budget: str) -> str:
    """The plain answer a report opens with: which decade, how wide, what diverges, what to try next."""
    trained = [row for row in rows if row.trained]
    if not rows:
        return "No run has finished yet."
    if all(row.n_runs == row.n_failed for row in rows):
        return "Every run failed: there is nothing to say of any rate. What was raised stands under Diagnosis."
    if all(row.broken_start for row in rows):
        return f"Nothing could be trained: {BROKEN_START}. {LOOK.capitalize()}."
    if not trained:
        return f"Nothing trained: on this budget ({budget}) no rate of any optimizer got below the untrained model."
    if len(trained) == 1:
        row = trained[0]
        text = f"{sentence(row, budget)} Its decade is {decade(row.best_lr.value)}."
    else:
        text = f"{_best_range(trained)} {_widths(trained)} {_divergence(trained)}"
    return f"{text} {_next(rows)}".strip()


def _best_range(rows: Sequence[OptimizerFacts]) -> str:
    low = min(rows, key=lambda row: row.best_lr.value)
    high = max(rows, key=lambda row: row.best_lr.value)
    if low.best_lr.value == high.best_lr.value:
        return f"The best of the rates tried is {rate(low.best_lr.value)} in every row."
    return (
        f"The best of the rates tried lies between {rate(low.best_lr.value)} ({low.title}) "
        f"and {rate(high.best_lr.value)} ({high.title})."
    )


def _widths(rows: Sequence[OptimizerFacts]) -> str:
    widest = max(rows, key=lambda row: row.basin.decades)
    narrowest = min(rows, key=lambda row: row.basin.decades)
    if widest is narrowest or widest.basin.decades == narrowest.basin.decades:
        return f"The good range is {_decades(widest)} wide."
    return (
        f"{widest.title} is good over {_decades(widest)} of rates ({_span(widest.basin.low, widest.basin.high)}), "
        f"{narrowest.title} over {_decades(narrowest)} ({_span(narrowest.basin.low, narrowest.basin.high)})."
    )


def _decades(row: OptimizerFacts) -> str:
    return f"{_at_least(row.basin.at_least)}{row.basin.decades:.2g} decades"


def _at_least(censored: bool) -> str:
    return "at least " if censored else ""


def _divergence(rows: Sequence[OptimizerFacts]) -> str:
    cliffs = [row for row in rows if not math.isnan(row.margins.diverges_from)]
    if not cliffs:
        worse = [row.title for row in rows if any(p.n_worse for p in row.rates if p.lr > row.best_lr.value)]
        but = f", but runs up there end worse than the untrained model: {_names(worse)}" if worse else ""
        failed = _names([row.title for row in rows if any(lr > row.best_lr.value for lr in row.failed_lrs)])
        aside = f", rates whose runs failed aside ({failed})" if failed else ""
        return f"No rate above its row's best one diverges within the grid{aside}{but}."
    return f"Diverging: {_names([f'{row.title} from {rate(row.margins.diverges_from)}' for row in cliffs], 6)}."


def _next(rows: Sequence[OptimizerFacts]) -> str:
    edges = [row.title for row in rows if row.open_ends - row.failed_ends and not math.isnan(row.best_lr.value)]
    failed = [row.title for row in rows if row.failed_lrs]
    few = [row for row in rows if row.trained and not row.basin.censored and len(row.basin.rates) < ENOUGH]
    narrow = [row.title for row in few if not close_enough(row)]
    crowded = [row.title for row in few if close_enough(row)]
    open_ended = [row.title for row in rows if row.trained and open_gaps(row)]
    steep = [row.title for row in rows if row.trained and steep_gap(row)]
    short = [row.title for row in rows if any(warned.kind == "short_budget" for warned in row.warnings)]
    lost = [row.title for row in rows if not row.trained and row.n_runs > row.n_failed and not row.broken_start]
    high = [row.title for row in rows if row.trained and too_high(row)]
    steps = [
        *([f"find out why runs failed for {_names(failed)}"] if failed else []),
        *([f"move the grid for {_names(lost)}"] if lost else []),
        *([f"leave out the highest rates for {_names(high)}"] if high else []),
        *([f"widen the grid for {_names(edges)}"] if edges else []),
        *([f"add rates near the best one for {_names(narrow)}"] if narrow else []),
        *([f"add seeds, not rates, for {_names(crowded)}"] if crowded else []),
        *([f"fill the gap up to divergence for {_names(open_ended)}"] if open_ended else []),
        *([f"try rates between the best ones and much worse ones for {_names(steep)}"] if steep else []),
        *([f"train longer: {_names(short)} still improving"] if short else []),
    ]
    return f"Next: {'; '.join(steps)}." if steps else "The grid shows the whole of every good range."


def _names(titles: Sequence[str], most: int = 4) -> str:
    return ", ".join(titles[:most]) + (f" and {len(titles) - most} more" if len(titles) > most else "")
