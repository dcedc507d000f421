"""What a report shows before anybody scrolls: a sentence, a table with a line per curve, and all U-curves in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lrsweep.analysis.facts import Interval, OptimizerFacts, SweepFacts, shortened
from lrsweep.analysis.leader import at_recommended
from lrsweep.plot.style import LINES, Look
from lrsweep.report.rules import definition
from lrsweep.report.template import bullets, code, escaped, term
from lrsweep.wording import advice, words
from lrsweep.wording.verdict import interval_name, verdict
from lrsweep.wording.words import compact, number_text, plural, rate_text

DASHES = dict(zip(LINES, ("", "6 3", "6 2 1 2", "4 1 1 1 1 1"), strict=True))
SHAPES = {
    "o": '<circle cx="14" cy="7" r="3.4"/>',
    "s": '<path d="M11 4h6v6h-6z"/>',
    "^": '<path d="M14 3l4 7h-8z"/>',
    "D": '<path d="M14 3l4 4-4 4-4-4z"/>',
    "v": '<path d="M14 11l4-7h-8z"/>',
    "P": '<path d="M12.5 3h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z"/>',
    "X": '<path d="M10 5l2-2 2 2 2-2 2 2-2 2 2 2-2 2-2-2-2 2-2-2 2-2z"/>',
    "<": '<path d="M10 7l7-4v8z"/>',
    ">": '<path d="M18 7l-7-4v8z"/>',
    "p": '<path d="M14 3l4 3-1.5 5h-5l-1.5-5z"/>',
    "h": '<path d="M14 3l4 2v4l-4 2-4-2v-4z"/>',
}
"""The markers of plot/style.py in a box of 28 by 14."""


def sentence(facts: SweepFacts) -> str:
    """Which optimizer at which learning rate, how sure that is, what to do next."""
    choice, rest = verdict(facts)
    lead = f"<strong>{escaped(choice)}</strong>: " if choice else ""
    return f'<p class="verdict">{lead}{code(rest)}</p>'


def table(facts: SweepFacts, looks: Sequence[Look], places: Sequence[int]) -> str:
    """A line per curve, with its mark in the plots; `places` are the numbers that these know the curves by."""
    rates = [point.lr for row in facts.rows for point in row.rates]
    if not rates:
        return ""
    axis = _Axis(min(rates), max(rates))
    seeds = max(row.n_seeds for row in facts.rows)
    there = f"{words.objective_text(facts)} there"
    heads = {
        "setting" if facts.axes else "optimizer": ("", ""),
        "use lr": ("Recommended learning rate", ""),
        "good range": ("Good range", axis.ticks()),
        there: ("Median over seeds", ""),
        "S": ("Sensitivity S", ""),
        "unusable from": ("Diverges from", ""),
        "caveats": ("", ""),
    }
    labels = list(heads)
    head = "".join(
        f'<th scope="col" role="columnheader">{term(name, definition(rule))}{more}</th>'
        for name, (rule, more) in heads.items()
    )
    lines = [
        _line(row, look, place, axis, labels, facts) for row, look, place in zip(facts.rows, looks, places, strict=True)
    ]
    caption = f"Small figures: {interval_name(seeds)}" if seeds > 1 else "One seed: no intervals"
    return (
        f'<table class="answer" role="table"><caption>{escaped(caption)}</caption>\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{"".join(lines)}</tbody></table>'
    )


def _line(row: OptimizerFacts, look: Look, place: int, axis: _Axis, labels: Sequence[str], facts: SweepFacts) -> str:
    there, whole = at_recommended(row, facts.mode), row.sensitivity.whole
    cells = [
        escaped(rate_text(row.recommended_lr)) if row.trained else "–",
        axis.bar(row, look.color) if row.trained else '<span class="none">nothing trained</span>',
        _number(there) if row.trained else "–",
        _number(whole) if row.trained else "–",
        escaped(unusable(row)),
        _flag(row),
    ]
    body = "".join(
        f'<td role="cell" data-label="{escaped(label)}">{cell}</td>'
        for label, cell in zip(labels[1:], cells, strict=True)
    )
    axes = f"<small>{escaped(words.axes_text(row.axes))}</small>" if row.axes else ""
    label = f'<span class="name">{_breakable(shortened(row.optimizer))}{axes}</span>'
    name = f'<span class="curve">{swatch(look)}{label}</span>'
    return f'<tr role="row" data-row="{place}"><th scope="row" role="rowheader">{name}</th>{body}</tr>\n'


def _breakable(name: str) -> str:
    """A long name breaks where its arguments begin."""
    return "<wbr>(".join(escaped(part) for part in name.split("("))


def unusable(row: OptimizerFacts) -> str:
    """The rate from which on training fails; where the grid holds none, its end as a bound."""
    if not row.trained:
        return "–"
    first = row.margins.diverges_from
    return rate_text(first) if math.isfinite(first) else f"> {rate_text(row.rates[-1].lr)}"


def _number(one: Interval) -> str:
    ends = f"{number_text(one.low)} – {number_text(one.high)}"
    known = math.isfinite(one.low) and math.isfinite(one.high)
    return escaped(number_text(one.value, 4 if known else 3)) + (f"<small>{escaped(ends)}</small>" if known else "")


def _flag(row: OptimizerFacts) -> str:
    """A mark that opens what to know before believing the line; it works without the script."""
    texts = [text for _, text in advice.warnings(row)]
    if not texts:
        return '<span class="none">none</span>'
    said = f"{plural(len(texts), 'caveat')} for {row.title}"
    return (
        f'<details class="flag"><summary aria-label="{escaped(said)}">⚑ {len(texts)}</summary>'
        f"{bullets(texts)}</details>"
    )


def swatch(look: Look) -> str:
    """Line and marker of a curve, as in the plots."""
    dash = f' stroke-dasharray="{DASHES[look.line]}"' if DASHES[look.line] else ""
    return (
        f'<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true" fill="{look.color}">'
        f'<path d="M0 7h28" stroke="{look.color}" stroke-width="2"{dash}/>{SHAPES[look.marker]}</svg>'
    )


@dataclass(frozen=True)
class _Axis:
    """The log axis that all bars of the table share."""

    low: float
    high: float

    @property
    def decades(self) -> float:
        return math.log10(self.high / self.low)

    def at(self, rate: float) -> float:
        """Percent of the way from the lowest to the highest rate; the middle if there is one rate only."""
        return round(100 * math.log10(rate / self.low) / self.decades, 2) if self.decades else 50.0

    def ticks(self) -> str:
        """Both ends in figures."""
        ends = f"<span>{escaped(compact(self.low))}</span><span>{escaped(compact(self.high))}</span>"
        return f'<span class="axis">{ends}</span>'

    def bar(self, row: OptimizerFacts, color: str) -> str:
        """The good range, with a line at the recommended rate, an arrow where it goes on past the grid, and a cross
        from where on the rates are unusable."""
        found = row.good_range
        if not (math.isfinite(found.low) and math.isfinite(found.high)):
            return '<span class="none">unknown</span>'
        left, right = self.at(found.low), self.at(found.high)
        ends = f"{' open-low' * found.censored_low}{' open-high' * found.censored_high}"
        parts = [f'<i class="good{ends}" style="left:{left}%;width:{round(right - left, 2)}%;color:{color}"></i>']
        if math.isfinite(row.margins.diverges_from):
            parts.append(f'<i class="out" style="left:{self.at(row.margins.diverges_from)}%"></i>')
        parts.append(f'<i class="use" style="left:{self.at(row.recommended_lr)}%"></i>')
        step = f"background-size:{round(100 / self.decades, 3)}% 100%" if self.decades >= 1 else "background:none"
        low, high = words.good_range_ends(row, compact)
        width = f"{'≥ ' * found.at_least}{words.decades_text(row)} decades"
        return (
            f'<span class="bar" style="{step}" aria-hidden="true">{"".join(parts)}</span>'
            f'<small class="ends">{escaped(f"{low} – {high} ({width})")}</small>'
        )
