"""Rate against one axis of the sweep: colour is the median objective, with the ridge of the best rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts, cost_span
from lrsweep.objective import cost
from lrsweep.plot import colors as shades
from lrsweep.plot import legend, style
from lrsweep.plot.style import INK, RED
from lrsweep.wording import words

Slice = tuple[str, str, list[OptimizerFacts]]
"""An optimizer, where the other axes are held ("" if there are none), and its rows along the axis."""
BETWEEN = 0.08
"""Inches between the names of two rates."""
MISSING = "#F0F0F0"
MOST_PANELS = 12
BAR_NAME = 1.8
"""Inches that the metric's name above the colour bar takes at most."""


def slices(facts: SweepFacts, axis: str) -> list[Slice]:
    """Per optimizer and combination of the other axes the rows along `axis`.

    Where these are more than MOST_PANELS, the other axes are held where the best row of all is, in every panel alike.
    """
    held = [tuple((name, text) for name, text in row.axes.items() if name != axis) for row in facts.rows]
    if len({(row.optimizer, others) for row, others in zip(facts.rows, held, strict=True)}) > MOST_PANELS:
        best = min(range(len(held)), key=lambda i: cost(facts.rows[i].best_objective, facts.mode))
        kept = {held[best]}
    else:
        kept = set(held)
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[OptimizerFacts]] = {}
    for row, others in zip(facts.rows, held, strict=True):
        if others in kept:
            found.setdefault((row.optimizer, others), []).append(row)
    return [(label, words.axes_text(dict(others)), rows) for (label, others), rows in found.items()]


def heatmap(facts: SweepFacts, axis: str, setting: str = "") -> Figure:
    """A panel per optimizer; colours stop at the untrained model, so a bad cell does not wash out the good ones."""
    parts = slices(facts, axis)
    columns, bar = style.columns_for(len(parts)), max(1.05, min(style.width_of(facts.metric, 8.5), BAR_NAME) + 0.32)
    deepest = max((len(rows) for *_, rows in parts), default=1)
    tall = min(4.6, max(1.5, 0.42 * deepest + 0.4))
    page = style.page(
        len(parts), f"{facts.name}: {words.objective_text(facts)}, lr by {axis}", words.budget_line(facts, setting),
        columns=columns, panel=(5.6 if len(parts) == 1 else 3.3, tall), right=bar,
        head=0.45 if any(others for _, others, _ in parts) else 0.3,
        left=0.95, gap=(0.85, 0.45), legend=_handles(parts),
    )  # fmt: skip
    scale = _scale(facts, parts)
    for index, ((title, others, rows), ax) in enumerate(zip(parts, page.panels, strict=True)):
        _panel(ax, rows, axis, scale)
        style.panel_title(ax, title, others)
        page.label(index, "learning rate", axis)
    _colorbar(page.figure, scale, facts.metric, bar)
    return page.figure


def _handles(parts: Sequence[Slice]) -> list[Artist]:
    """An entry for every mark that is in the picture."""
    rows = [row for *_, some in parts for row in some]
    points = [point for row in rows for point in row.rates]
    found: list[Artist] = []
    if any(math.isfinite(row.best_lr.value) for row in rows):
        star = {"marker": "*", "markerfacecolor": "white", "markersize": 9}
        found.append(legend.line("best lr", color=INK, linewidth=1.2, **star))
    if any(not math.isfinite(point.objective) and point.n_diverged for point in points):
        found.append(legend.mark("x", "half of the seeds diverged", color=RED))
    cells = sum(len(some) * len({point.lr for row in some for point in row.rates}) for *_, some in parts)
    if cells > sum(math.isfinite(point.objective) or point.n_diverged > 0 for point in points):
        found.append(Patch(facecolor=MISSING, edgecolor="#BBBBBB", label="not tried, or failed"))
    return found


def _scale(facts: SweepFacts, parts: Sequence[Slice]) -> ScalarMappable:
    """From the best median to the untrained model, the best in the lightest colour. What is worse has the darkest."""
    low, high = cost_span([row for *_, some in parts for row in some], facts.mode)
    high = high if high > low else low + 1.0
    if facts.mode == "min":
        return ScalarMappable(norm=Normalize(low, high), cmap=shades.value_colormap().reversed())
    return ScalarMappable(norm=Normalize(-high, -low), cmap=shades.value_colormap())  # values, not their costs


def _panel(ax: Axes, rows: Sequence[OptimizerFacts], axis: str, scale: ScalarMappable) -> None:
    rates = sorted({point.lr for row in rows for point in row.rates})
    table = np.full((len(rows), len(rates)), np.nan)
    crosses, ridge = [], []
    for y, row in enumerate(rows):
        for point in row.rates:
            x = rates.index(point.lr)
            if math.isfinite(point.objective):
                table[y, x] = point.objective
            elif point.n_diverged:
                table[y, x] = np.inf
                crosses.append((x, y))
        if math.isfinite(row.best_lr.value):
            ridge.append((rates.index(row.best_lr.value), y))
    colors = scale.to_rgba(np.where(np.isfinite(table), table, 0.0))
    colors[np.isnan(table)] = (*[int(MISSING[i : i + 2], 16) / 255 for i in (1, 3, 5)], 1.0)
    colors[np.isinf(table)] = (0.97, 0.93, 0.93, 1.0)
    ax.grid(False)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    places = np.array([(x, y) for y in range(len(rows)) for x in range(len(rates))])
    ax.add_collection(PolyCollection(places[:, None] + corners, facecolors=colors.reshape(-1, 4), edgecolors="face"))
    ax.set_xlim(-0.5, len(rates) - 0.5)
    ax.set_ylim(-0.5, len(rows) - 0.5)
    if crosses:
        columns, lines = zip(*crosses, strict=True)
        ax.scatter(columns, lines, s=26, marker="x", color=RED, linewidth=1.2, zorder=5)
    if ridge:
        columns, lines = zip(*ridge, strict=True)
        ax.plot(columns, lines, color="white", linewidth=3.0, zorder=6)
        ax.plot(columns, lines, color=INK, linewidth=1.3, marker="*", markersize=10, markerfacecolor="white", zorder=7)
    _ticks(ax, rates, [row.axes[axis] for row in rows])


def _ticks(ax: Axes, rates: Sequence[float], values: Sequence[str]) -> None:
    decades = {i for i, rate in enumerate(rates) if abs(math.log10(rate) - round(math.log10(rate))) < 1e-6}
    places = sorted(decades) if len(decades) >= 2 else list(range(len(rates)))
    places = _apart(ax, places, rates)
    style.name_ticks(ax.xaxis, places, [words.compact(rates[i]) for i in places])
    rows = list(range(len(values)))[:: math.ceil(len(values) / 20)]
    style.name_ticks(ax.yaxis, rows, [style.fit(values[i], 0.6, 8) for i in rows])


def _apart(ax: Axes, places: Sequence[int], rates: Sequence[float]) -> list[int]:
    """Those of the cells `places` whose rates can be written below them side by side."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    cell = figure.get_size_inches()[0] * ax.get_position().width / len(rates)
    kept: list[int] = []
    end = -math.inf
    for place in places:
        half = style.width_of(words.compact(rates[place]), 8) / 2
        if place * cell - half >= end:
            kept.append(place)
            end = place * cell + half + BETWEEN
    return kept


def _colorbar(figure: Figure, scale: ScalarMappable, metric: str, room: float) -> None:
    width, height = figure.get_size_inches()
    tall = min(3.0, height - 2.0)
    ax = figure.add_axes(((width - room + 0.22) / width, (height - 1.15 - tall) / height, 0.14 / width, tall / height))
    shades.colorbar(ax, scale, style.fit(metric, room - 0.27, 8.5))
