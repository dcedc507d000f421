"""What a report shows before anybody scrolls: a sentence, a table with a line per curve, and all U-curves in one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lrsweep.analysis.facts import Interval, OptimizerFacts, SweepFacts, shortened
from lrsweep.analysis.leader import at_recommended
from lrsweep.plot.style import LINES, Look
from lrsweep.report.rules import definition
from lrsweep.report.template import bullets, code, escaped, term
from lrsweep.wording import advice, words
from lrsweep.wording.verdict import verdict
from lrsweep.wording.words import compact, interval_name, number_text, plural, rate_text

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
    columns = _columns(facts, _Axis(min(rates), max(rates)))
    seeds = max(row.n_seeds for row in facts.rows)
    head = f'<th scope="col" role="columnheader">{"setting" if facts.axes else "optimizer"}</th>' + "".join(
        f'<th scope="col" role="columnheader">{term(one.name, definition(one.rule))}{one.below}</th>' for one in columns
    )
    lines = [_line(row, look, place, columns) for row, look, place in zip(facts.rows, looks, places, strict=True)]
    caption = f"Small figures: {interval_name(seeds)}" if seeds > 1 else "One seed: no intervals" * seeds
    return (
        f'<table class="answer" role="table"><caption>{escaped(caption)}</caption>\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{"".join(lines)}</tbody></table>'
    )


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of the table: `kind` is the class of its cells, `rule` how the name of its definition begins, `below`
    what stands under its head, and `cell` what it says of a row that trained."""

    kind: str
    name: str
    cell: Callable[[OptimizerFacts, Look], str]
    rule: str = ""
    below: str = ""


def _columns(facts: SweepFacts, axis: _Axis) -> list[_Column]:
    test = f"test_{facts.metric.partition('_')[2]} there"
    found = [
        _Column(
            kind="lr", name="use lr", rule="Recommended",
            cell=lambda row, look: escaped(rate_text(row.recommended_lr)),
        ),
        _Column(
            kind="range", name="good range", rule="Good range", below=axis.ticks(),
            cell=lambda row, look: axis.bar(row, look.color),
        ),
        _Column(
            kind="loss", name=f"{words.objective_text(facts)} there", rule="Median",
            cell=lambda row, look: _number(at_recommended(row, facts.mode), row),
        ),
        _Column(
            kind="test", name=test, rule="Recommended",
            cell=lambda row, look: escaped(words.objective_text_of(row, row.test_at_recommended)),
        ),
        _Column(kind="s", name="S", rule="Sensitivity S", cell=lambda row, look: _number(row.sensitivity.whole)),
        _Column(
            kind="unusable", name="unusable from", rule="Unusable from",
            cell=lambda row, look: escaped(words.unusable_text(row)),
        ),
        _Column(kind="flag", name="caveats", cell=lambda row, look: _flag(row)),
    ]  # fmt: skip
    tested = any(math.isfinite(row.test_at_recommended) for row in facts.rows)
    left_out = {"test": not tested, **dict.fromkeys(("range", "s", "unusable"), facts.one_rate)}
    return [one for one in found if not left_out.get(one.kind)]


def _line(row: OptimizerFacts, look: Look, place: int, columns: Sequence[_Column]) -> str:
    body = "".join(
        f'<td role="cell" class="{one.kind}" data-label="{escaped(one.name)}">'
        f"{one.cell(row, look) if row.trained or one.kind == 'flag' else _nothing(row, one.kind)}</td>"
        for one in columns
    )
    axes = f"<small>{escaped(words.axes_text(row.axes))}</small>" if row.axes else ""
    label = f'<span class="name">{_breakable(shortened(row.optimizer))}{axes}</span>'
    name = f'<span class="curve">{swatch(look)}{label}</span>'
    return f'<tr role="row" data-row="{place}"><th scope="row" role="rowheader">{name}</th>{body}</tr>\n'


def _nothing(row: OptimizerFacts, kind: str) -> str:
    """What a cell says of a row that did not train."""
    if kind != "range":
        return "–"
    return f'<span class="none">{"every run failed" if row.n_failed == row.n_runs else "nothing trained"}</span>'


def _breakable(name: str) -> str:
    """A long name breaks where its arguments begin."""
    return "<wbr>(".join(escaped(part) for part in name.split("("))


def _number(one: Interval, row: OptimizerFacts | None = None) -> str:
    """A number with its interval in small figures; an objective of `row` if one is given."""

    def text(value: float, digits: int) -> str:
        return words.objective_text_of(row, value, digits) if row else number_text(value, digits)

    known = math.isfinite(one.low) and math.isfinite(one.high)
    small = f"<small>{escaped(f'{text(one.low, 3)} – {text(one.high, 3)}')}</small>" if known else ""
    return escaped(text(one.value, 4)) + small


def _flag(row: OptimizerFacts) -> str:
    """A mark that opens what to know before believing the line; it works without the script."""
    texts = [text for _, text in advice.warnings(row)]
    if not texts:
        return '<span class="none">none</span>'
    said = f"{plural(len(texts), 'caveat')} for {row.title}"
    return f'<details><summary aria-label="{escaped(said)}">⚑ {len(texts)}</summary>{bullets(texts)}</details>'


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
        if math.isfinite(row.margins.unusable_from):
            parts.append(f'<i class="out" style="left:{self.at(row.margins.unusable_from)}%"></i>')
        parts.append(f'<i class="use" style="left:{self.at(row.recommended_lr)}%"></i>')
        step = f"background-size:{round(100 / self.decades, 3)}% 100%" if self.decades >= 1 else "background:none"
        low, high = words.good_range_ends(row, compact)
        width = f"{'≥ ' * found.at_least}{words.decades_text(row)} decades"
        return (
            f'<span class="bar" style="{step}" aria-hidden="true">{"".join(parts)}</span>'
            f'<small class="ends">{escaped(f"{low} – {high} ({width})")}</small>'
        )
