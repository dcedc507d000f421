"""U-curves of a sweep with axes: a panel per optimizer and value of the other axes, colour = the value of one axis."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import colors as shades
from lrsweep.plot import legend as keys
from lrsweep.plot import rail, selection, style, tags, ticks
from lrsweep.plot.rail import Range, value_range
from lrsweep.plot.style import SCREEN, Head, Look, Sheet
from lrsweep.plot.u_curves import (
    SMALL,
    draw_overlay,
    draw_spread,
    draw_star,
    left_room,
    name_values,
    overlay_key,
    rate_range,
    scales_differ,
)
from lrsweep.wording import words

ROW = 0.24
"""Inches of a row beyond the axis, where the marks of several curves stand one above the other."""
MOST_NAMED = 12
"""More values than this are named by the first and the last."""
MOST_SPREADS = 4
"""With more curves than this in a panel the ranges over seeds would hide each other."""


def color_axis(facts: SweepFacts) -> str:
    """The axis whose values are told by colour: a numeric one before one of texts, then that with most values."""
    values = {axis: list(dict.fromkeys(row.axes[axis] for row in facts.rows)) for axis in facts.axes}
    return max(facts.axes, key=lambda axis: (len(values[axis]) > 1, numeric(values[axis]), len(values[axis])))


def numeric(values: Sequence[str]) -> bool:
    """Whether all texts of an axis are numbers."""
    try:
        return bool(values) and all(float(value) == float(value) for value in values)
    except ValueError:
        return False


def looks_of(values: Sequence[str]) -> list[Look]:
    """One per value of an axis: dark to light where they are numbers, else a colour and marker each."""
    if not numeric(values):
        return [style.look(number) for number in range(len(values))]
    colors = shades.rate_colormap()
    inks = [to_hex(colors(0.92 * number / max(len(values) - 1, 1))) for number in range(len(values))]
    return [Look(color=ink, line="-", marker=style.MARKERS[n % len(style.MARKERS)]) for n, ink in enumerate(inks)]


def u_curve(facts: SweepFacts, sheet: Sheet = SCREEN) -> Figure:
    """A panel per optimizer and value of the other axes with a median curve per value of one axis."""
    axis = color_axis(facts)
    parts = selection.slices(facts, axis)
    rows = [row for *_, some in parts for row in some]
    values = list(dict.fromkeys(row.axes[axis] for row in rows))
    looks = dict(zip(values, looks_of(values), strict=True))
    own = scales_differ(rows)
    limits = [_limits(some if own else rows, facts) for *_, some in parts]
    named = [one.scale.label(words.objective_axis_label(facts)) for one in limits]
    left = max(left_room(one, name) for one, name in zip(limits, named, strict=True))
    spread = max(len(some) for *_, some in parts) <= MOST_SPREADS
    page = style.page(
        [Head(title=label, facts=_facts_text(others, some)) for label, others, some in parts],
        f"{facts.name}: {words.objective_text(facts)} by learning rate and {axis}",
        words.budget_line(facts, sheet.setting), sheet,
        columns=style.columns_for(len(parts)), panel=SMALL, left=left, gap=(left if own else 0.22, 0.36),
        legend=_key(rows, axis, looks, limits[0], spread=spread),
    )  # fmt: skip
    limits = [rail.with_rows(one, one.rows, page.size[1], ROW) for one in limits]
    for index, ((*_, some), ax) in enumerate(zip(parts, page.panels, strict=True)):
        rail.open_axes(ax, limits[index])
        ticks.rate_axis(ax, *rate_range(rows), label="learning rate" if page.bottom_row(index) else None)
        ticks.mark_traditional(ax)
        draw_overlay(ax, some, [looks[row.axes[axis]] for row in some], limits[index])
        for row in some:
            with tags.curve(ax, row.title):
                if spread and row.n_seeds > 1:
                    draw_spread(ax, row, looks[row.axes[axis]].color, limits[index])
                if row.trained and limits[index].inside(row.best_objective):
                    draw_star(ax, row, looks[row.axes[axis]].color)
        if own:
            beyond = limits[index].names_width - limits[index].scale.width
            style.y_label(ax, named[index], page.size[1], beyond=beyond)
            rail.name_rows(ax, limits[index])
        else:
            name_values(page, index, limits[index], named[index])
    return page.figure


def _limits(rows: Sequence[OptimizerFacts], facts: SweepFacts) -> Range:
    found = value_range(rows, facts.mode)
    return rail.with_rows(found, rail.of_medians(rows, found), SMALL[1], ROW)


def _facts_text(others: str, rows: Sequence[OptimizerFacts]) -> str:
    """Where the other axes are held, and the best rates of all curves."""
    best = [words.compact(row.best_lr.value) for row in rows if row.trained]
    known = f"best lr {', '.join(dict.fromkeys(best))}" if best else "nothing trained"
    return "\n".join(filter(None, (others, known if len(best) <= MOST_NAMED else "")))


def _key(
    rows: Sequence[OptimizerFacts], axis: str, looks: dict[str, Look], limits: Range, *, spread: bool
) -> list[Artist]:
    values = list(looks)
    shown = values if len(values) <= MOST_NAMED else [values[0], values[len(values) // 2], values[-1]]
    found: list[Artist] = [
        keys.line(words.axes_text({axis: value}), **looks[value].of_line, markersize=4.5, linewidth=1.6)
        for value in shown
    ]
    if len(shown) < len(values):
        found.append(keys.line(f"and {len(values) - len(shown)} values between, dark to light", linestyle=""))
    if spread:
        found += keys.seed_range(max(row.n_seeds for row in rows))
    found += [keys.star()] * any(row.trained for row in rows)
    return found + overlay_key(rows, limits)
