"""Rate against one axis of the sweep: colour is the median objective, with the ridge of the best rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts, cost_span
from lrsweep.objective import cost
from lrsweep.plot import colors as shades
from lrsweep.plot import legend, style, tags, ticks
from lrsweep.plot.selection import Slice, slices
from lrsweep.plot.style import INK, RED, SCREEN, Head, Sheet
from lrsweep.plot.text import fit, width_of
from lrsweep.wording import words

LONGEST_VALUE = 1.2
"""Inches that the longest value of the axis takes."""
VALUES = 6.5
"""Points of the values in cells."""
OUTLINE = "#D55E00"
MISSING = "#F0F0F0"
BAR_NAME = 1.8
"""Inches that the metric's name above the colour bar takes at most."""


def heatmap(facts: SweepFacts, axis: str, sheet: Sheet = SCREEN) -> Figure:
    """A panel per optimizer; colours stop at the untrained model, so a bad cell does not wash out the good ones."""
    parts = slices(facts, axis)
    scale = _scale(facts, parts)
    metric = ticks.value_scale(*scale.get_clim(), log=False).label(facts.metric)
    bar = max(1.05, min(width_of(metric, 8.5), BAR_NAME) + 0.32)
    deepest = max((len(rows) for *_, rows in parts), default=1)
    tall = min(4.6, max(1.5, 0.42 * deepest + 0.4))
    names = max(width_of(_short(row.axes[axis]), ticks.SIZE) for *_, rows in parts for row in rows)
    page = style.page(
        [Head(title=title, facts=others) for title, others, _ in parts],
        f"{facts.name}: {words.objective_text(facts)}, lr by {axis}", words.budget_line(facts, sheet.setting), sheet,
        columns=style.columns_for(len(parts)), panel=(5.6 if len(parts) == 1 else 3.3, tall), right=bar,
        left=style.left_room(names, axis), gap=(0.25, 0.45), legend=_handles(facts, parts), tall=True,
    )  # fmt: skip
    for index, ((*_, rows), ax) in enumerate(zip(parts, page.panels, strict=True)):
        _panel(ax, rows, scale, page.size)
        _ticks(ax, sorted({point.lr for row in rows for point in row.rates}), [row.axes[axis] for row in rows])
        if page.left_column(index):
            style.y_label(ax, axis, page.size[1])
        else:
            ax.tick_params(labelleft=False)
        if page.bottom_row(index):
            ax.set_xlabel("learning rate")
    _colorbar(page.figure, scale, facts.metric, bar)
    return page.figure


def _short(value: str) -> str:
    return fit(value, LONGEST_VALUE, ticks.SIZE)


def _handles(facts: SweepFacts, parts: Sequence[Slice]) -> list[Artist]:
    """An entry for every mark that is in the picture."""
    rows = [row for *_, some in parts for row in some]
    points = [point for row in rows for point in row.rates]
    found: list[Artist] = []
    if any(math.isfinite(row.best_lr.value) for row in rows):
        found.append(legend.mark("*", "best lr", color=INK, size=9, markerfacecolor="white"))
    if any(row.trained and row.good_range.rates for row in rows):
        found.append(Patch(facecolor="none", edgecolor=OUTLINE, linewidth=1.6, label="good range"))
    _, worst = cost_span(rows, facts.mode)
    if any(math.isfinite(point.objective) and cost(point.objective, facts.mode) > worst for point in points):
        found.append(legend.line("darkest color: untrained model or worse (clipped)", linestyle=""))
    if any(not math.isfinite(point.objective) and point.n_diverged for point in points):
        found.append(legend.mark("x", "half or more of the seeds diverged", color=RED))
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


def _panel(ax: Axes, rows: Sequence[OptimizerFacts], scale: ScalarMappable, size: tuple[float, float]) -> None:
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
    ax.set_xlim(-0.5, len(rates) - 0.5)
    ax.set_ylim(-0.5, len(rows) - 0.5)
    texts = _values(table, (size[0] / len(rates), size[1] / len(rows)))
    up = 0.3 if texts else 0.0  # above the value
    star: Any = {"markersize": 7 if texts else 10, "markerfacecolor": "white", "linestyle": ""}
    for row, y in tags.each(ax, zip(rows, range(len(rows)), strict=True)):
        places = np.array([(x, y) for x in range(len(rates))])
        ax.add_collection(PolyCollection(places[:, None] + corners, facecolors=colors[y], edgecolors="face"))
        bad = [x for x, line in crosses if line == y]
        if bad:
            ax.scatter(bad, [y] * len(bad), s=26, marker="x", color=RED, linewidth=1.2, zorder=5)
        inside = [rates.index(rate) for rate in row.good_range.rates] if row.trained else []
        if inside:
            corner, wide = (min(inside) - 0.46, y - 0.46), max(inside) - min(inside) + 0.92
            ax.add_patch(Rectangle(corner, wide, 0.92, facecolor="none", edgecolor=OUTLINE, linewidth=1.6, zorder=5))
        for x, value in enumerate(table[y]):
            if texts and math.isfinite(value):
                how: Any = {"size": VALUES, "color": _ink(colors[y, x]), "ha": "center", "va": "center", "zorder": 8}
                ax.add_artist(Text(x, y - 0.12, texts[float(value)], **how))
        best = [x for x, line in ridge if line == y]
        ax.plot(best, [y + up] * len(best), color=INK, marker="*", zorder=7, **star)
    if ridge and not texts:
        with tags.curve(ax, *(row.title for row in rows)):
            columns, lines = zip(*ridge, strict=True)
            ax.plot(columns, lines, color="white", linewidth=3.0, zorder=6)
            ax.plot(columns, lines, color=INK, linewidth=1.3, zorder=6.5)


def _values(table: npt.NDArray[np.float64], cell: tuple[float, float]) -> dict[float, str]:
    """What to write in cells of so many inches, if all of it fits."""
    finite = table[np.isfinite(table)]
    if not len(finite):
        return {}
    apart = float(finite.max() - finite.min()) or abs(float(finite.max())) or 1.0
    digits = max(0, 2 - math.floor(math.log10(apart)))
    texts = {value: f"{value:.{digits}f}" for value in {float(value) for value in finite}}
    fits = max(width_of(text, VALUES) for text in texts.values()) <= cell[0] - 0.04 and cell[1] >= 0.3
    return texts if fits else {}


def _ink(color: npt.NDArray[np.float64]) -> str:
    """Of a text on this color."""
    red, green, blue, _ = color
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _ticks(ax: Axes, rates: Sequence[float], values: Sequence[str]) -> None:
    decades = [i for i, rate in enumerate(rates) if abs(math.log10(rate) - round(math.log10(rate))) < 1e-6]
    places = decades if len(decades) >= 2 else list(range(len(rates)))
    texts = (
        ticks.log_texts([rates[i] for i in places]) if places == decades else [words.compact(rate) for rate in rates]
    )
    cell = ticks.inches(ax) / len(rates)
    ticks.name_ticks(ax.xaxis, places, ticks.apart([place * cell for place in places], texts))
    rows = list(range(len(values)))[:: math.ceil(len(values) / 20)]
    ticks.name_ticks(ax.yaxis, rows, [_short(values[i]) for i in rows])


def _colorbar(figure: Figure, scale: ScalarMappable, metric: str, room: float) -> None:
    width, height = figure.get_size_inches()
    tall = min(3.0, height - 2.0)
    ax = figure.add_axes(((width - room + 0.22) / width, (height - 1.15 - tall) / height, 0.14 / width, tall / height))
    values = ticks.value_scale(*scale.get_clim(), log=False)
    shades.colorbar(ax, scale, fit(values.label(metric), room - 0.27, 8.5))
    ticks.name_ticks(ax.yaxis, values.ticks, values.texts)
