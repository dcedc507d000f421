"""Loss over the run: a panel per optimizer, colour = rate; and a zoom on the best rate, 2x, 5x and 10x of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from lrsweep import words
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import style
from lrsweep.plot.style import COLORS, GREY, INK, LINES, RED

Floats: TypeAlias = npt.NDArray[np.float64]
Color: TypeAlias = tuple[float, float, float, float]

MOST_POINTS = 400
"""Longer curves are thinned for drawing (every k-th row and the last)."""
MOST_SEEDS = 5
"""More seeds than this are drawn as their median and range."""
DOTTED = (0, (1, 1.5))
ZOOM = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One run as drawn: `xy` of shape (rows, 2), x in epochs or updates; `end` is where it stopped if it diverged."""

    lr: float
    seed: int
    xy: Floats
    diverged: bool


Lines: TypeAlias = Mapping[str, Line]
"""Lines by run id."""


def lines(curves: pd.DataFrame, facts: SweepFacts, column: str, *, x: str = "epoch") -> dict[str, Line]:
    """The rows of `column` cut into one line per run, in the order of the file."""
    codes, ids = pd.factorize(curves["run_id"], sort=False)
    order = np.argsort(codes, kind="stable")
    xy = np.column_stack([curves[x].to_numpy(dtype=float), curves[column].to_numpy(dtype=float)])[order]
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    parts = dict(zip((str(i) for i in ids), np.split(xy, cuts), strict=True)) if len(xy) else {}
    return {
        run.run_id: Line(lr=run.lr, seed=run.seed, xy=_thin(parts[run.run_id]), diverged=run.status == "diverged")
        for row in facts.rows
        for run in row.runs
        if run.run_id in parts
    }


def _thin(xy: Floats) -> Floats:
    step = math.ceil(len(xy) / MOST_POINTS)
    return xy if step <= 1 else np.concatenate([xy[:-1:step], xy[-1:]])


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of the plane that is shown."""

    left: float
    right: float
    low: float
    high: float
    log: bool

    @property
    def inner_high(self) -> float:
        """Just below the upper border, where a mark still is inside."""
        return self.high * (self.low / self.high) ** 0.03 if self.log else self.high - 0.03 * (self.high - self.low)


def window(parts: Sequence[Line], mode: str) -> Window:
    """Limits from the runs that did not diverge, no further than a little past where they all start."""
    calm = [line.xy for line in parts if not line.diverged] or [line.xy for line in parts]
    right = max((float(line.xy[-1, 0]) for line in parts if len(line.xy)), default=1.0) or 1.0
    stacked = np.concatenate(calm)[:, 1] if calm else np.array([0.0, 1.0])
    y = stacked[np.isfinite(stacked)]
    start = np.array([line.xy[0, 1] for line in parts if len(line.xy)])
    start = start[np.isfinite(start)]
    if not len(y):
        y = start if len(start) else np.array([0.0, 1.0])
    low, high = float(y.min()), float(y.max())
    log = mode == "min" and low > 0 and bool(np.all(start > 0))
    if mode == "min" and len(start):
        top = float(start.max())
        high = min(high, top * (top / low) ** 0.15 if log and top > low else top + 0.25 * abs(top - low))
    elif len(start):
        low = max(low, float(start.min()) - 0.25 * abs(high - float(start.min())))
    if not high > low:
        low, high = (low / 2, low * 2) if log else (low - 0.5 * (abs(low) or 1.0), low + 0.5 * (abs(low) or 1.0))
    air = (high / low) ** 0.04 if log else 0.04 * (high - low)
    bounds = (low / air, high * air) if log else (low - air, high + air)
    return Window(left=0.0, right=right, low=bounds[0], high=bounds[1], log=log)


def _size(rows: Sequence[OptimizerFacts]) -> tuple[float, float]:
    return (5.6, 3.4) if len(rows) == 1 else (3.3, 2.35)


def _open(ax: Axes, view: Window) -> None:
    ax.set_xlim(view.left - 0.01 * view.right, view.right * 1.02)
    style.plain_axis(ax, view.left, view.right)
    style.value_axis(ax, view.low, view.high, log=view.log)


def loss_curves(facts: SweepFacts, rows: Sequence[OptimizerFacts], parts: Lines, column: str, *, x: str) -> Figure:
    """Every run of `rows`; colour is the rate on one log scale, a black edge marks the best rate."""
    columns, bar = style.columns_for(len(rows)), 0.95
    page = style.page(len(rows), columns=columns, panel=_size(rows), right=bar, head=0.34, legend=_handles(rows))
    style.heading(page.figure, f"{facts.name}: {column} over the run, by learning rate", words.budget_line(facts))
    rates = sorted({point.lr for row in rows for point in row.rates}) or [1.0]
    norm, colors = style.rate_norm(rates), style.rate_colormap()
    shade = {rate: colors(norm(rate)) for rate in rates}
    for index, (row, ax) in enumerate(zip(rows, page.panels, strict=True)):
        mine = [parts[run.run_id] for run in row.runs if run.run_id in parts]
        view = window(mine, facts.mode)
        _open(ax, view)
        draw = _draw_seeds if row.n_seeds <= MOST_SEEDS else _draw_bands
        draw(ax, mine, row.best_lr.value, shade)
        _crosses(ax, mine, view)
        style.panel_title(ax, words.title(row), _facts_line(row))
        if page.left_column(index):
            ax.set_ylabel(column + (" (log)" if view.log else ""))
        if page.bottom_row(index):
            ax.set_xlabel(x)
    _colorbar(page.figure, ScalarMappable(norm=norm, cmap=colors), rates, bar)
    return page.figure


def _facts_line(row: OptimizerFacts) -> str:
    found = f"best {words.compact(row.best_lr.value)}" if row.trained else "nothing trained"
    if not row.n_diverged:
        return f"{found} · none of {row.n_runs} runs diverged"
    start = f", from {words.compact(row.margins.diverges_from)}" if math.isfinite(row.margins.diverges_from) else ""
    return f"{found} · {row.n_diverged} of {row.n_runs} runs diverged{start}"


def _draw_seeds(ax: Axes, parts: Sequence[Line], best: float, shade: Mapping[float, Color]) -> None:
    """A thin line per run; those of the best rate on a black edge, on top."""
    usual = [line for line in parts if line.lr != best]
    chosen = [line for line in parts if line.lr == best]
    ax.add_collection(
        LineCollection([_finite(line.xy) for line in usual], colors=[shade[line.lr] for line in usual], linewidths=0.9),
        autolim=False,
    )
    for color, width, level in ((INK, 2.6, 5), (None, 1.2, 6)):
        ax.add_collection(
            LineCollection(
                [_finite(line.xy) for line in chosen],
                colors=[color or shade[line.lr] for line in chosen],
                linewidths=width,
                zorder=level,
            ),
            autolim=False,
        )


def _draw_bands(ax: Axes, parts: Sequence[Line], best: float, shade: Mapping[float, Color]) -> None:
    """Per rate the median over its seeds, and as a band the range of those that did not diverge."""
    medians, bands, colors = [], [], []
    for lr in sorted({line.lr for line in parts}, key=lambda rate: (rate == best, rate)):
        mine = [line for line in parts if line.lr == lr]
        x, middle, _, _ = over_seeds([line.xy for line in mine])
        medians.append(np.column_stack([x, middle]))
        x, _, low, high = over_seeds([line.xy for line in mine if not line.diverged] or [np.empty((0, 2))])
        bands.append(np.concatenate([np.column_stack([x, low]), np.column_stack([x, high])[::-1]]))
        colors.append(shade[lr])
    ax.add_collection(PolyCollection(bands, facecolors=colors, alpha=0.13, linewidths=0), autolim=False)
    edge = [2.8 if best in {line.lr for line in parts} and i == len(medians) - 1 else 0.0 for i in range(len(medians))]
    ax.add_collection(LineCollection(medians, colors=INK, linewidths=edge, zorder=5), autolim=False)
    ax.add_collection(LineCollection(medians, colors=colors, linewidths=1.3, zorder=6), autolim=False)


def over_seeds(parts: Sequence[Floats]) -> tuple[Floats, Floats, Floats, Floats]:
    """x, and median, least and greatest finite y over the runs that have a row at x."""
    x = np.unique(np.concatenate([xy[:, 0] for xy in parts]))
    table = np.full((len(parts), len(x)), np.nan)
    for row, xy in zip(table, parts, strict=True):
        row[np.searchsorted(x, xy[:, 0])] = np.where(np.isfinite(xy[:, 1]), xy[:, 1], np.nan)
    known = np.isfinite(table).any(axis=0)
    x, table = x[known], table[:, known]
    if not len(x):
        return x, x, x, x
    with np.errstate(over="ignore"):  # the mean of two values near the largest float
        middle = np.nanmedian(table, axis=0)
    return x, middle, np.nanmin(table, axis=0), np.nanmax(table, axis=0)


def _finite(xy: Floats) -> Floats:
    return xy[np.isfinite(xy[:, 1])]


def _crosses(ax: Axes, parts: Sequence[Line], view: Window) -> None:
    """A red cross where a run diverged: at its last finite value, or at the border beyond which that lies."""
    ends = []
    for line in parts:
        if line.diverged and len(line.xy):
            kept = _finite(line.xy)
            y = kept[-1, 1] if len(kept) else view.high
            ends.append((line.xy[-1, 0], min(max(y, view.low), view.inner_high)))
    if ends:
        x, y = zip(*ends, strict=True)
        ax.scatter(x, y, s=24, marker="x", color=RED, linewidth=1.2, clip_on=False, zorder=9)


def _colorbar(figure: Figure, scale: ScalarMappable, rates: Sequence[float], room: float) -> None:
    width, height = figure.get_size_inches()
    tall = min(3.4, height - 2.2)
    ax = figure.add_axes(((width - room + 0.2) / width, (height - 1.1 - tall) / height, 0.14 / width, tall / height))
    bar = style.colorbar(ax, scale, "rate")
    low, high = rates[0], rates[-1]
    ticks = rates if len(rates) <= 2 else style.log_ticks(low, high)
    bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
    bar.ax.yaxis.set_major_formatter(FixedFormatter([words.compact(tick) for tick in ticks]))
    bar.ax.yaxis.set_minor_locator(NullLocator())


def _handles(rows: Sequence[OptimizerFacts]) -> list[Artist]:
    many = any(row.n_seeds > MOST_SEEDS for row in rows)
    handles: list[Artist] = [
        Line2D([], [], color=GREY, linewidth=1.1, label="median over seeds, with their range" if many else "one run"),
    ]
    if any(math.isfinite(row.best_lr.value) for row in rows):
        handles.append(Line2D([], [], color=INK, linewidth=2.8, label="best rate of the grid (black edge)"))
    if any(row.n_diverged for row in rows):
        handles.append(_cross("diverged here (at the border: beyond it)"))
    return handles


def _cross(label: str) -> Artist:
    return Line2D([], [], color=RED, marker="x", markersize=5.5, linestyle="", label=label)


def zoom(
    facts: SweepFacts, rows: Sequence[OptimizerFacts], parts: Lines, train: Lines, column: str, *, x: str
) -> Figure:
    """The best rate and the grid rates nearest to 2, 5 and 10 times it; the training loss dotted where it is given."""
    columns = style.columns_for(len(rows))
    handles: list[Artist] = [Line2D([], [], color=GREY, linewidth=1.4, label=f"{column}, one line per seed")]
    if train:
        handles.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=DOTTED, label="train_loss"))
    if any(run.status == "diverged" and run.lr in zoom_rates(row) for row in rows for run in row.runs):
        handles.append(_cross("diverged here"))
    page = style.page(len(rows), columns=columns, panel=_size(rows), head=0.34, legend=handles)
    title = f"{facts.name}: {column} at the best rate and the grid rates next to 2, 5 and 10 times it"
    style.heading(page.figure, title, words.budget_line(facts))
    for index, (row, ax) in enumerate(zip(rows, page.panels, strict=True)):
        view = _zoom_panel(ax, row, parts, train, facts.mode)
        style.panel_title(ax, words.title(row), " ")
        if page.left_column(index):
            ax.set_ylabel(column + (" (log)" if view.log else ""))
        if page.bottom_row(index):
            ax.set_xlabel(x)
    return page.figure


def zoom_rates(row: OptimizerFacts) -> list[float]:
    """The best rate and the grid rates nearest, in log, to 2, 5 and 10 times it; each rate once."""
    best, rates = row.best_lr.value, [point.lr for point in row.rates]
    if not math.isfinite(best):
        return []
    near = [min(rates, key=lambda rate: abs(math.log(rate / (best * factor)))) for factor in ZOOM]
    return sorted({rate for rate in near if rate >= best})


def _zoom_panel(ax: Axes, row: OptimizerFacts, parts: Lines, train: Lines, mode: str) -> Window:
    rates = zoom_rates(row)
    shown = [run for run in row.runs if run.lr in rates and run.run_id in parts]
    view = window([table[run.run_id] for table in (parts, train) for run in shown if run.run_id in table], mode)
    _open(ax, view)
    handles = []
    for number, rate in enumerate(rates):
        ids = [run.run_id for run in shown if run.lr == rate]
        color, line = COLORS[number], LINES[number]
        faint = LineCollection(
            [_finite(train[i].xy) for i in ids if i in train], colors=color, linewidths=0.8, linestyles=[DOTTED]
        )
        ax.add_collection(faint, autolim=False)
        bold = LineCollection([_finite(parts[i].xy) for i in ids], colors=color, linewidths=1.4, linestyles=line)
        ax.add_collection(bold, autolim=False)
        text = words.compact(rate) + (" best" if rate == row.best_lr.value else "")
        handles.append(Line2D([], [], color=color, linestyle=line, linewidth=1.4, label=text))
    _crosses(ax, [parts[run.run_id] for run in shown], view)
    if handles:
        ax.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), borderaxespad=0,
            borderpad=0.15, fontsize=7.8, handlelength=2.4, handletextpad=0.4, columnspacing=1.2,
        )  # fmt: skip
    return view
