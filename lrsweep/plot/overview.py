"""All U-curves in one small panel, for the head of the report: the table beside it says which curve is which."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lrsweep.analysis.facts import SweepFacts
from lrsweep.plot import legend, overlays, rail, style, ticks
from lrsweep.plot.rail import value_range
from lrsweep.plot.style import Head, Look, Sheet
from lrsweep.plot.u_curves import draw_row, left_room, line_to_beat, name_values, overlay_key, rate_range
from lrsweep.wording import words

SHEET = Sheet(width=4.7, titled=False)
"""Small enough to be read on a phone, where the whole figure shrinks to four fifths."""
PANEL = (3.9, 2.5)


def overview(facts: SweepFacts, looks: Sequence[Look]) -> Figure:
    """Medians of all rows; of a single one the runs too."""
    rows = facts.rows
    several = len(rows) > 1
    limits = value_range(rows, facts.mode)
    there = rail.of_medians(rows, limits) if several else rail.statuses(rows, limits)
    limits = rail.with_rows(limits, there, PANEL[1], row=0.24 if several else rail.ROW)
    against = line_to_beat(facts, limits) if several else None
    key = overlay_key(rows, limits) if several else legend.untrained(rows)
    name = limits.scale.label(words.objective_axis_label(facts))
    page = style.page(
        [Head(title="")], "", "", SHEET, columns=1, panel=PANEL, left=left_room(limits, name), right=0.12,
        legend=[*key, *([legend.adam(facts.adam, against)] if against else [])],
    )  # fmt: skip
    (ax,) = page.panels
    if several:
        overlays.on_axes(ax, facts, looks, limits, against)
    else:
        rail.open_axes(ax, limits)
        ticks.rate_axis(ax, *rate_range(rows))
        draw_row(ax, rows[0], looks[0], limits)
    name_values(page, 0, limits, name)
    return page.figure
