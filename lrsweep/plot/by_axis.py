"""Sweeps with one learning rate that study something else, numbers (momentum, batch size) or names (activations,
schedules): the metric, the curves, the steps to the target and the spread over seeds against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import legend, loss_curves, rail, selection, style, tags, ticks
from lrsweep.plot.facets import looks_of, numeric
from lrsweep.plot.loss_curves import NAMES, TRAIN, RunCurve, RunCurves, Window
from lrsweep.plot.rail import Range, close_range
from lrsweep.plot.style import COLORS, GREY, RED, SCREEN, Head, Page, Sheet
from lrsweep.plot.text import fit, width_of
from lrsweep.plot.time_to_target import goal_text
from lrsweep.plot.u_curves import draw_untrained, extremes, left_room, quartiles, untrained
from lrsweep.wording import words

PANEL = (2.5, 2.0)
WIDE = 8.0
"""Positive values further apart than this factor have a log axis."""
MOST = 8
"""Optimizers (and places of the other axes) that are shown: the best."""
BESIDE = 0.012
"""Share of the width of a panel between the marks of two diverged seeds."""
WIDTH = 0.5
"""Of the band of a value with a name, whose neighbors are 1 away."""
LONGEST = 0.9
"""Inches of the name of a value."""


def axes_of(facts: SweepFacts) -> list[str]:
    """The axes that the sweep studies: all with more than one value, if no row has more than one learning rate."""
    if not facts.rows or any(len(row.rates) > 1 for row in facts.rows):
        return []
    return [axis for axis in facts.axes if len({row.axes[axis] for row in facts.rows}) > 1]


@dataclass(frozen=True, kw_only=True)
class _Study:
    """What is drawn of one optimizer: its `rows` at the rising numbers `xs`; where the values of the axis are names,
    these are places 0, 1, ... in the order of the spec, and `names` those of all places. `val` and `train` hold the
    curves of each row."""

    label: str
    others: str
    rows: list[OptimizerFacts]
    xs: list[float]
    names: tuple[str, ...]
    val: list[list[RunCurve]]
    train: list[list[RunCurve]]


def by_axis(
    facts: SweepFacts, axis: str, val: RunCurves, train: RunCurves, column: str, *, x: str, sheet: Sheet = SCREEN
) -> Figure:
    """A line of panels per optimizer (and place of the other axes)."""
    values = list(dict.fromkeys(row.axes[axis] for row in facts.rows))
    places = None if numeric(values) else {value: float(place) for place, value in enumerate(values)}
    studies = [_study(part, axis, places, val, train) for part in _best(selection.slices(facts, axis), facts)]
    rows = [row for one in studies for row in one.rows]
    limits = close_range(rows, facts.mode)
    limits = rail.with_rows(limits, rail.statuses(rows, limits), PANEL[1])
    view = loss_curves.window([line for one in studies for some in (*one.val, *one.train) for line in some], facts.mode)
    objective = limits.scale.label(words.objective_axis_label(facts))
    room = 0.12 + max(width_of(_short(row.axes[axis]), NAMES) for row in rows)
    seeds = max(row.n_seeds for row in rows)
    name = words.axes_text({axis: ""}).removesuffix("=")
    rates = dict.fromkeys(words.compact(row.rates[0].lr) for row in rows)
    upright = _upright(studies[0].names, sheet)
    panel = PANEL[0] if sheet.width is None else style.NARROWEST
    two_lines = any("\n" in name for one in studies if not one.names for name in _numbers(one.xs, panel)[1])
    heads = [
        head
        for one in studies
        for head in (
            Head(title=one.label, facts="\n".join(filter(None, (one.others, _best_text(one, axis, facts))))),
            Head(title="training", facts=f"{column}, and train_loss dashed" if any(one.train) else column),
            Head(title="steps to target", facts=_target_text(facts)),
            *([Head(title="spread", facts=f"worst to best of {words.plural(seeds, 'seed')}")] if seeds > 1 else []),
        )
    ]
    count = 4 if seeds > 1 else 3
    left = max(left_room(limits, objective), style.left_room(max(view.scale.width, 0.35), column))
    page = style.page(
        heads, f"{facts.name}: {words.objective_text(facts)} by {axis}",
        f"{words.budget_line(facts, sheet.setting)} · lr {', '.join(rates)}", sheet,
        columns=count, panel=PANEL, left=left, gap=(max(left, room + left), 0.5), right=max(room, 0.2),
        below=0.04 + max(width_of(one, ticks.SIZE) for one in studies[0].names) - ticks.LINE
        if upright
        else ticks.LINE * two_lines,
        legend=_key(rows, limits, seeds, of_numbers=places is None, trained=any(any(one.train) for one in studies)),
    )  # fmt: skip
    limits = rail.with_rows(limits, limits.rows, page.size[1])
    times, spreads = [row.rates[0].time for row in rows], [_spread(row) for row in rows]
    for number, one in enumerate(studies):
        panels = page.panels[number * count : (number + 1) * count]
        _metric(panels[0], one, limits, page, objective)
        _training(panels[1], one, axis, view, page, facts.mode)
        style.y_label(panels[1], view.scale.label(column), page.size[1])
        panels[1].set_xlabel(x)
        _against(panels[2], one, [row.rates[0].time for row in one.rows], times, page, "steps", log=True)
        if seeds > 1:
            _against(panels[3], one, [_spread(row) for row in one.rows], spreads, page, facts.metric, log=False)
        for ax in (panels[0], *panels[2:]):
            ax.set_xlabel(name)
            if upright:
                ax.tick_params(axis="x", rotation=90)
    return page.figure


def _study(
    part: selection.Slice, axis: str, places: dict[str, float] | None, val: RunCurves, train: RunCurves
) -> _Study:
    label, others, rows = part
    where = [float(row.axes[axis]) if places is None else places[row.axes[axis]] for row in rows]
    order = sorted(range(len(rows)), key=where.__getitem__)
    rows = [rows[i] for i in order]

    def curves(some: RunCurves) -> list[list[RunCurve]]:
        return [[some[run.run_id] for run in row.runs if run.run_id in some] for row in rows]

    return _Study(
        label=label, others=others, rows=rows, xs=[where[i] for i in order],
        names=tuple(map(_short, places or ())), val=curves(val), train=curves(train),
    )  # fmt: skip


def _best(parts: list[selection.Slice], facts: SweepFacts) -> list[selection.Slice]:
    """The MOST parts with the best row, in their order."""
    kept = selection.best([row for *_, some in parts for row in some], facts.mode, len(facts.rows))
    ranks = {row.title: place for place, row in enumerate(selection.ranked(kept, facts.mode))}
    best = sorted(range(len(parts)), key=lambda i: min(ranks[row.title] for row in parts[i][2]))[:MOST]
    return [parts[i] for i in sorted(best)]


def _best_text(one: _Study, axis: str, facts: SweepFacts) -> str:
    best = selection.ranked([row for row in one.rows if row.trained], facts.mode)
    return f"best {words.axes_text({axis: best[0].axes[axis]})}" if best else "nothing trained"


def _target_text(facts: SweepFacts) -> str:
    if not math.isfinite(facts.target):
        return "no target: nothing trained"
    return goal_text(facts)


def _spread(row: OptimizerFacts) -> float:
    """Between the worst and the best seed, in units of the metric; +inf if one diverged."""
    point = row.rates[0]
    return math.inf if point.n_diverged else abs(point.worst - point.best)


def _short(value: str) -> str:
    return fit(value, LONGEST, NAMES)


def _upright(names: Sequence[str], sheet: Sheet) -> bool:
    """Whether the names of places are too long to be written side by side below a panel."""
    room = PANEL[0] if sheet.width is None else style.NARROWEST
    return any(width_of(name, ticks.SIZE) + ticks.BETWEEN > room / len(names) for name in names)


def _x_axis(ax: Axes, one: _Study) -> None:
    """An axis with a tick at each of the values that fit side by side, or at each named place."""
    if one.names:
        ax.set_xlim(-0.5, len(one.names) - 0.5)
        ticks.name_ticks(ax.xaxis, range(len(one.names)), one.names)
        return
    log = _is_log(one.xs)
    bounds, names = _numbers(one.xs, ticks.inches(ax))
    ax.set_xlim(*bounds)
    ax.set_xscale("log" if log else "linear")
    ticks.name_ticks(ax.xaxis, one.xs, names)


def _is_log(xs: Sequence[float]) -> bool:
    return min(xs) > 0 and max(xs) >= WIDE * min(xs)


def _numbers(xs: Sequence[float], room: float) -> tuple[tuple[float, float], list[str]]:
    """The ends of an axis of so many inches, and the names of the values: those that do not fit side by side stand on a
    second line, if they fit there."""
    log = _is_log(xs)
    low, high = (math.log10(xs[0]), math.log10(xs[-1])) if log else (xs[0], xs[-1])
    air = 0.08 * ((high - low) or abs(high) or 1.0)
    scale = room / (high - low + 2 * air)
    places = [(math.log10(value) if log else value) * scale for value in xs]
    texts = [f"{value:g}" for value in xs]
    names = ticks.apart(places, texts)
    second = ticks.apart(places, ["" if name else text for name, text in zip(names, texts, strict=True)])
    bounds = (10 ** (low - air), 10 ** (high + air)) if log else (low - air, high + air)
    return bounds, [name or (f"\n{other}" if other else "") for name, other in zip(names, second, strict=True)]


def _metric(ax: Axes, one: _Study, limits: Range, page: Page, name: str) -> None:
    """Seeds, median and spread."""
    rail.open_axes(ax, limits)
    _x_axis(ax, one)
    color, points = COLORS[0], [row.rates[0] for row in one.rows]
    few = max(row.n_seeds for row in one.rows) <= legend.FEW_SEEDS
    if few:
        ends = [extremes(point, limits) for point in points]
    else:
        ends = [quartiles(row, point, limits) for row, point in zip(one.rows, points, strict=True)]
    medians = [point.objective if limits.inside(point.objective) else math.nan for point in points]
    band: dict[str, Any] = {"color": color, "alpha": 0.2, "linewidth": 0, "zorder": 2}
    with _all(ax, one):
        if not few and not one.names:
            low, high = zip(*ends, strict=True)
            ax.fill_between(one.xs, low, high, **band)
        if not one.names:  # there is nothing between two of them
            ax.plot(one.xs, medians, color=color, linewidth=1.6, zorder=4)
    for row, x, median, (bottom, top) in tags.each(ax, zip(one.rows, one.xs, medians, ends, strict=True)):
        ax.plot(x, median, color=color, marker="o", markersize=4, linestyle="", zorder=4)
        if few:
            ax.vlines(x, bottom, top, color=color, linewidth=1.0, alpha=0.8, zorder=3)
        elif one.names:
            ax.bar(x, top - bottom, WIDTH, bottom, **band)
        dots = [run for run in row.runs if run.status == "ok" and limits.inside(run.objective)]
        at = [x] * len(dots), [run.objective for run in dots]
        ax.scatter(*at, s=11, color=color, alpha=0.55, linewidth=0, zorder=3)
        far = [run for run in row.runs if run.status == "ok" and limits.beyond(run.objective)]
        if far:
            how = {"s": 20, "marker": rail.marker(limits), "facecolor": "none", "edgecolor": GREY}
            rail.at_height(ax, [x], limits.place(rail.OFF), **how)
        for status, how in (
            (rail.DIVERGED, {"s": 20, "marker": "x", "color": RED, "linewidth": 1.2}),
            (rail.FAILED, {"s": 14, "marker": "s", "facecolor": "none", "edgecolor": style.INK}),
        ):
            count = sum(run.status == status for run in row.runs)
            if count:
                rail.at_height(ax, _side_by_side(ax, x, count), limits.place(status), **how)
    _untrained(ax, one.rows, limits)
    style.y_label(ax, name, page.size[1], beyond=limits.names_width - limits.scale.width)
    rail.name_rows(ax, limits)


def _untrained(ax: Axes, rows: Sequence[OptimizerFacts], limits: Range) -> None:
    """The untrained model as a line, or its value at the worse end of an axis that does not reach it."""
    start = untrained(rows)
    if limits.inside(start):
        draw_untrained(ax, rows)
    elif math.isfinite(start):
        text = f"untrained model: {words.compact(start)} {'↑' if limits.worse_up else '↓'}"
        edge, va = (1 - limits.rail, "top") if limits.worse_up else (limits.rail, "bottom")
        at, offset = (1, edge), (-2, -2 if limits.worse_up else 2)
        style.note(ax, text, at, offset, xycoords="axes fraction", size=rail.SIZE, color=GREY, ha="right", va=va)


def _all(ax: Axes, one: _Study) -> AbstractContextManager[None]:
    """What is drawn meanwhile shows all rows together."""
    return tags.curve(ax, *(row.title for row in one.rows))


def _side_by_side(ax: Axes, x: float, count: int) -> list[float]:
    """Places around `x` for so many marks."""
    low, high = ax.get_xlim()
    log = ax.get_xscale() == "log"
    step = BESIDE * (math.log10(high / low) if log else high - low)
    shifts = [step * (number - (count - 1) / 2) for number in range(count)]
    return [x * 10**shift if log else x + shift for shift in shifts]


def _training(ax: Axes, one: _Study, axis: str, view: Window, page: Page, mode: str) -> None:
    """Medians over the seeds that did not diverge, the training loss dashed; names at the right end."""
    ax.set_xlim(view.left - 0.01 * view.right, view.right * 1.02)
    ticks.plain_axis(ax, view.left, view.right, whole=True)
    ticks.value_axis(ax, view.scale)
    border, ends = loss_curves.border(view, mode), []
    looks = looks_of([row.axes[axis] for row in one.rows])
    for _, look, val, train in tags.each(ax, zip(one.rows, looks, one.val, one.train, strict=True)):
        for some, how in ((train, TRAIN), (val, "-")):
            calm = [line.xy for line in some if not line.diverged]
            if calm:
                x, middle, _, _ = loss_curves.over_seeds(calm)
                ax.plot(x, middle, color=look.color, linestyle=how, linewidth=1.2 if how == "-" else 0.9, zorder=4)
        gone = [line.xy[loss_curves.ending(line.xy, view), 0] for line in val if line.diverged and len(line.xy)]
        ax.scatter(gone, [border] * len(gone), s=20, marker="x", color=look.color, clip_on=False, zorder=9)
        calm = [line.xy[-1, 1] for line in val if not line.diverged and len(line.xy)]
        ends.append(float(np.median(calm)) if calm else border)
    order = sorted(range(len(ends)), key=lambda i: (ends[i], i))
    wanted = [loss_curves.share_of(ends[i], view) * page.size[1] for i in order]
    for i, place in zip(order, loss_curves.spaced(wanted, (NAMES + 1.2) / 72), strict=True):
        at = (1, place / page.size[1])
        text, ink = _short(one.rows[i].axes[axis]), looks[i].color
        style.note(ax, text, at, (4, 0), xycoords="axes fraction", size=NAMES, color=ink, va="center")


def _against(
    ax: Axes, one: _Study, values: Sequence[float], every: Sequence[float], page: Page, name: str, *, log: bool
) -> None:
    """A number against the axis, on the scale of `every` value of the column; what is infinite stands on a row of its
    own."""
    known = [value for value in every if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    wide = log and high > WIDE * low
    bounds = (low / 1.3, high * 1.3) if wide else (0.0, high * 1.1 or 1.0)
    never, label = any(map(math.isinf, every)), "never" if log else rail.DIVERGED
    scale = ticks.value_scale(*bounds, log=wide)
    share = rail.ROW / page.size[1] if never else 0.0
    low, high = bounds
    top = low * (high / low) ** (1 / (1 - share)) if wide else high / (1 - share)
    ticks.value_axis(ax, scale, high=top)
    _x_axis(ax, one)
    shown = [value if math.isfinite(value) else math.nan for value in values]
    if not one.names:
        with _all(ax, one):
            ax.plot(one.xs, shown, color=COLORS[0], linewidth=1.4, zorder=4)
    for _, x, value in tags.each(ax, zip(one.rows, one.xs, values, strict=True)):
        how: dict[str, Any] = {"color": COLORS[0], "linestyle": "", "zorder": 4}
        if math.isinf(value):
            ax.plot(x, 1 - share / 2, marker="x", markersize=5, transform=ax.get_xaxis_transform(), **how)
        else:
            ax.plot(x, value, marker="o", markersize=4, **how)
    beyond = 0.0
    if never:
        ax.axhspan(high, top, color="#F3F3F3", linewidth=0, zorder=0)
        where = {"ha": "right", "va": "center"}
        style.note(ax, label, (0, 1 - share / 2), (-5, 0), xycoords="axes fraction", size=rail.SIZE, **where)
        beyond = width_of(label, rail.SIZE) - scale.width
    style.y_label(ax, scale.label(name), page.size[1], beyond=beyond)


def _key(rows: Sequence[OptimizerFacts], limits: Range, seeds: int, *, of_numbers: bool, trained: bool) -> list[Artist]:
    found: list[Artist] = [
        legend.mark("o", "one seed", size=3.4),
        legend.line("median over seeds", linewidth=1.6 * of_numbers, marker="o", markersize=4),
        *legend.seed_range(seeds),
        *(legend.untrained(rows) if any(limits.inside(untrained([row])) for row in rows) else []),
    ]
    if trained:
        found.append(legend.line("train_loss (median)", linewidth=0.9, linestyle=TRAIN))
    if rail.DIVERGED in limits.rows:
        found.append(legend.mark("x", "diverged run", color=RED))
    if rail.FAILED in limits.rows:
        found.append(legend.mark("s", "failed run", markerfacecolor="none", color=style.INK))
    return [*found, *([legend.beyond(worse_up=limits.worse_up)] if rail.OFF in limits.rows else [])]
