"""How the best rate moves with the budget, the batch or the width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis.facts import Drift, SweepFacts
from lrsweep.plot import legend, style, tags, ticks
from lrsweep.plot.style import SCREEN, Head, Look, Sheet
from lrsweep.plot.text import fit, width_of
from lrsweep.wording import words
from lrsweep.wording.notes import no_drift

FAINT = 0.4
SLOPES = "slope, decades per decade"


def drawable(facts: SweepFacts) -> list[Drift]:
    """The drifts with any best rate to draw: where everything diverged there is none."""
    return [one for one in facts.drifts if any(map(math.isfinite, one.best_lrs))]


def name_of(one: Drift) -> str:
    """The optimizer and where the other axes are held."""
    return ", ".join([one.optimizer, *([words.axes_text(one.fixed)] if one.fixed else [])])


def drift(facts: SweepFacts, labels: Sequence[str], sheet: Sheet = SCREEN) -> Figure:
    """A panel per quantity the best rate is held against; both axes are logarithmic. A line joins what its slope is
    fitted to, hollow marks where that is read off parabolas, or the grid's best rates where these never change; faint
    marks are left out of it.

    There must be a drift that is `drawable`. `labels`: the optimizers of the spec, whose places give the colours.
    """
    drifts = drawable(facts)
    kinds = list(dict.fromkeys(one.against for one in drifts))
    lines = {kind: [one for one in drifts if one.against == kind] for kind in kinds}
    below = sheet.width is not None  # there is no room beside the panels
    room = 0.2 if below else max(width_of(text, 8) for text in (SLOPES, *map(_entry, drifts))) + 0.85
    handles = [handle for kind in kinds for handle in _handles(lines[kind], labels, f"{kind}, " * (len(kinds) > 1))]
    heads = [
        Head(
            title=f"against {'the budget' if kind == 'budget' else kind}",
            facts="shorter budgets: earlier evaluations of the same runs" * any(one.from_rows for one in lines[kind]),
        )
        for kind in kinds
    ]
    page = style.page(
        heads, f"{facts.name}: drift of the best learning rate, by {words.objective_text(facts)}",
        words.budget_line(facts, sheet.setting), sheet, columns=1 if room > 3.4 else min(2, len(kinds)),
        panel=(4.6, 3.4), legend=[*_key(drifts), *(handles if below else [])], left=style.left_room(0.5, ""),
        gap=(room + 0.75, 0.4), right=room,
    )  # fmt: skip
    for kind, ax in zip(kinds, page.panels, strict=True):
        looks = style.looks([one.optimizer for one in lines[kind]], labels)
        titles = [_titles(facts, one) for one in lines[kind]]
        _panel(ax, lines[kind], looks, titles)
        if not below:
            key = ax.legend(
                handles=_handles(lines[kind], labels), loc="upper left", bbox_to_anchor=(1.01, 1.0), title=SLOPES,
                alignment="left", handlelength=4.6, title_fontsize=8,
            )  # fmt: skip
            for number, some in enumerate(titles):
                tags.part(key.legend_handles[number], ax, some, f"9{number}")
                tags.part(key.get_texts()[number], ax, some, f"8{number}")
        name = "budget (steps)" if kind == "budget" else kind
        ax.set_xlabel(name)
        ax.set_ylabel("best learning rate")
    return page.figure


def _titles(facts: SweepFacts, one: Drift) -> list[str]:
    """The curves whose best rates a drift is of."""
    return [row.title for row in facts.rows if row.optimizer == one.optimizer and one.fixed.items() <= row.axes.items()]


def _key(drifts: Sequence[Drift]) -> list[Artist]:
    """The marks that are there."""
    found: list[Artist] = []
    if any(one.n_used and not _between(one) for one in drifts):
        found.append(legend.line("best learning rate of the grid", marker="o", markersize=4.5, linewidth=1.4))
    if any(map(_between, drifts)):
        hollow = {"markersize": 6.5, "markerfacecolor": "white", "linewidth": 1.4}
        found.append(legend.line("best learning rate, between grid points (parabola)", marker="o", **hollow))
    if any(_left_out(one) for one in drifts):
        found.append(legend.mark("o", "at the edge of the grid (not used in the fit)", size=5, alpha=FAINT))
    return found


def _between(one: Drift) -> bool:
    """Whether the rates that are drawn lie between grid points; that there is no drift is said of the grid's own."""
    return one.refined and not one.stays


def _used(one: Drift) -> list[tuple[float, float]]:
    """What the slope is fitted to, or what stays."""
    points = zip(one.values, one.best_lrs, one.refined_lrs, strict=True)
    return [(value, best if one.stays else used) for value, best, used in points if math.isfinite(used)]


def _left_out(one: Drift) -> list[tuple[float, float]]:
    """The best rates of the grid that the slope is not fitted to."""
    points = zip(one.values, one.best_lrs, one.refined_lrs, strict=True)
    return [(value, best) for value, best, used in points if math.isfinite(best) and not math.isfinite(used)]


def _entry(one: Drift) -> str:
    some = f" ({one.n_used} of {len(one.values)} points)" if one.n_used < len(one.values) else ""
    return f"{fit(name_of(one), 4.0, 8)}: {slope_text(one)}{some}"


def _panel(ax: Axes, drifts: Sequence[Drift], looks: Sequence[Look], titles: Sequence[Sequence[str]]) -> None:
    values = sorted({value for one in drifts for value in one.values})
    rates = [rate for one in drifts for rate in (*one.best_lrs, *one.refined_lrs) if math.isfinite(rate)]
    for number, (one, kept, some) in enumerate(zip(drifts, looks, titles, strict=True)):
        covering = sum(other.stays and _used(other) == _used(one) for other in drifts[number + 1 :])
        with tags.curve(ax, *some):
            _line(ax, one, kept, covering if one.stays else 0)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ticks.value_axis(ax, ticks.value_scale(min(rates) / 2, max(rates) * 2, log=True))
    ax.set_xlim(values[0] / 1.15, values[-1] * 1.15)
    shown = values if len(values) <= 6 else ticks.log_ticks(values[0], values[-1])
    room = ticks.inches(ax) / math.log10(values[-1] / values[0] * 1.3225)
    names = ticks.apart([math.log10(value) * room for value in shown], [f"{value:g}" for value in shown])
    ticks.name_ticks(ax.xaxis, shown, names)


def _line(ax: Axes, one: Drift, kept: Look, covering: int) -> None:
    """So many flat lines are drawn over this one at the same rate: its marks stand out around theirs."""
    if used := _used(one):
        size, fill = (6.5, "white") if _between(one) else (5.5 + 3 * min(covering, 3), kept.color)
        edge = "white" if one.stays else kept.color
        how: dict[str, Any] = {"markersize": size, "markerfacecolor": fill, "markeredgecolor": edge}
        ax.plot(*zip(*used, strict=True), **kept.of_line, linewidth=1.4, **how)
    if out := _left_out(one):
        ax.plot(*zip(*out, strict=True), **kept.of_marks, markersize=4.5, alpha=FAINT)


def _handles(drifts: Sequence[Drift], labels: Sequence[str], before: str = "") -> list[Artist]:
    """An entry per line with its slope."""
    looks = style.looks([one.optimizer for one in drifts], labels)
    return [
        legend.line(f"{before}{_entry(one)}", **kept.of_line, markersize=4.5)
        for one, kept in zip(drifts, looks, strict=True)
    ]


def slope_text(one: Drift) -> str:
    if one.stays:
        return no_drift(one)
    if not math.isfinite(one.slope.value):
        return "no slope"
    if not math.isfinite(one.slope.low):
        return f"{round(one.slope.value, 2) + 0.0:+.2f}"
    value, low, high = (round(end, 2) + 0.0 for end in (one.slope.value, one.slope.low, one.slope.high))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
