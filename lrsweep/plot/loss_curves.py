"""Loss over the run: a panel per optimizer, colour = rate; and a zoom on the best rate, 2x, 5x and 10x of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from lrsweep.analysis.cells import by_run
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import colors as shades
from lrsweep.plot import legend, style, tags
from lrsweep.plot.style import COLORS, INK, LINES, RED
from lrsweep.wording import words

Floats: TypeAlias = npt.NDArray[np.float64]
Color: TypeAlias = tuple[float, float, float, float]
Exit: TypeAlias = tuple[float, bool]
"""The x at which a curve leaves its panel, and True if upwards."""

MOST_POINTS = 400
"""Longer curves are thinned for drawing (every k-th row and the last)."""
MOST_SEEDS = 5
"""More seeds than this are drawn as their median and range."""
DOTTED = (0, (1, 1.5))
ZOOM = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """One run as drawn: `xy` of shape (rows, 2), x in epochs or updates; `end` is where it stopped if it diverged."""

    run_id: str
    lr: float
    xy: Floats
    diverged: bool


RunCurves: TypeAlias = Mapping[str, RunCurve]
"""Lines by run id."""


def lines(curves: pd.DataFrame, facts: SweepFacts, column: str, *, x: str = "epoch") -> dict[str, RunCurve]:
    """The rows of `column` cut into one line per run, in the order of the file."""
    parts = by_run(curves, (x, column))
    return {
        run.run_id: RunCurve(
            run_id=run.run_id, lr=run.lr, xy=_thin(parts[run.run_id]), diverged=run.status == "diverged"
        )
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


def window(parts: Sequence[RunCurve], mode: str) -> Window:
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


@dataclass(frozen=True, kw_only=True)
class DrawnCurve:
    """What is drawn of a run; or, without a `run_id`, of a rate: the median of its runs and as `band` the lower and the
    upper edge of the range of those that did not diverge."""

    lr: float
    run_id: str = ""
    xy: Floats
    band: tuple[Floats, Floats] | None = None

    def leaves(self, view: Window) -> Exit | None:
        """Where it first leaves the panel."""
        return min((one for xy in (self.xy, *(self.band or ())) if (one := exit_of(xy, view))), default=None)


def curves_of(row: OptimizerFacts, parts: Sequence[RunCurve]) -> list[DrawnCurve]:
    """A curve per run, or per rate where there are many seeds."""
    if row.n_seeds <= MOST_SEEDS:
        return [DrawnCurve(lr=line.lr, run_id=line.run_id, xy=_finite(line.xy)) for line in parts]
    found = []
    for lr in sorted({line.lr for line in parts}):
        mine = [line for line in parts if line.lr == lr]
        x, middle, _, _ = over_seeds([line.xy for line in mine])
        median = np.column_stack([x, middle])
        x, _, low, high = over_seeds([line.xy for line in mine if not line.diverged] or [np.empty((0, 2))])
        found.append(DrawnCurve(lr=lr, xy=median, band=(np.column_stack([x, low]), np.column_stack([x, high]))))
    return found


def loss_curves(
    facts: SweepFacts, rows: Sequence[OptimizerFacts], parts: RunCurves, column: str, *, x: str, setting: str = ""
) -> Figure:
    """Every run of `rows`; colour is the rate on one log scale, a black edge marks the best rate."""
    lines = [[parts[run.run_id] for run in row.runs if run.run_id in parts] for row in rows]
    views = [window(mine, facts.mode) for mine in lines]
    curves = [curves_of(row, mine) for row, mine in zip(rows, lines, strict=True)]
    gone = [[one.leaves(view) for one in some] for some, view in zip(curves, views, strict=True)]
    columns, bar = style.columns_for(len(rows)), 0.95
    handles = _handles(facts, rows, leaving=any(map(any, gone)))
    page = style.page(
        len(rows), f"{facts.name}: {column} during training, by learning rate", words.budget_line(facts, setting),
        columns=columns, panel=_size(rows), right=bar, head=legend.head(rows, 0.34), legend=handles,
    )  # fmt: skip
    rates = sorted({point.lr for row in rows for point in row.rates}) or [1.0]
    norm, colors = shades.rate_norm(rates), shades.rate_colormap()
    shade = {rate: colors(norm(rate)) for rate in rates}
    for index, (row, ax) in enumerate(zip(rows, page.panels, strict=True)):
        view = views[index]
        _open(ax, view)
        tags.panel(ax, row.title)
        _draw(ax, row, curves[index], shade)
        _crosses(ax, lines[index], view)
        mark_exits(ax, gone[index], [shade[one.lr] for one in curves[index]], view)
        style.panel_title(ax, row.optimizer, legend.below_title(row, _facts_line(row)), aside=exits_text(gone[index]))
        page.label(index, x, column + (" (log)" if view.log else ""))
    _colorbar(page.figure, ScalarMappable(norm=norm, cmap=colors), rates, bar)
    return page.figure


def _facts_line(row: OptimizerFacts) -> str:
    found = f"best {words.compact(row.best_lr.value)}" if row.trained else "nothing trained"
    if not row.n_diverged:
        return f"{found} · none of {row.n_runs} runs diverged"
    start = f", from {words.compact(row.margins.diverges_from)}" if math.isfinite(row.margins.diverges_from) else ""
    return f"{found} · {row.n_diverged} of {row.n_runs} runs diverged{start}"


def _draw(ax: Axes, row: OptimizerFacts, curves: Sequence[DrawnCurve], shade: Mapping[float, Color]) -> None:
    """Thin lines on their bands; those of the best rate on a black edge, on top."""
    bands = [(*one.band, shade[one.lr]) for one in curves if one.band is not None]
    if bands:
        corners, colors = zip(*((np.concatenate([low, high[::-1]]), color) for low, high, color in bands), strict=True)
        ax.add_collection(PolyCollection(corners, facecolors=colors, alpha=0.13, linewidths=0), autolim=False)
    best = row.best_lr.value
    usual, chosen = [one for one in curves if one.lr != best], [one for one in curves if one.lr == best]
    for some, edge, width, level in ((usual, None, 1.0, 2), (chosen, INK, 2.6, 5), (chosen, None, 1.2, 6)):
        lines = LineCollection(
            [one.xy for one in some], colors=[edge or shade[one.lr] for one in some],
            linewidths=width + 0.3 * bool(bands), zorder=level,
        )  # fmt: skip
        ax.add_collection(lines, autolim=False)
        tag_lines(lines, row, some)


def tag_lines(drawn: LineCollection, row: OptimizerFacts, curves: Sequence[DrawnCurve]) -> None:
    """The lines of `drawn` are these curves of `row`: all of runs, or all of rates."""
    if all(one.run_id for one in curves):
        tags.runs(drawn, row, [one.run_id for one in curves])
    else:
        tags.rates(drawn, row, [one.lr for one in curves])


def exit_of(xy: Floats, view: Window) -> Exit | None:
    """Where the line through the finite points `xy` first leaves the panel; None if it never does."""
    y = xy[:, 1]
    outside = np.flatnonzero((y > view.high) | (y < view.low))
    if not len(outside):
        return None
    at = int(outside[0])
    up = bool(y[at] > view.high)
    if at == 0:
        return float(xy[0, 0]), up
    border, before, after = view.high if up else view.low, float(y[at - 1]), float(y[at])
    if view.log:  # a straight line on the axis as it is drawn
        border, before, after = (math.log(max(value, 5e-324)) for value in (border, before, after))
    share = (border - before) / (after - before)
    return float(xy[at - 1, 0] + share * (xy[at, 0] - xy[at - 1, 0])), up


def mark_exits(ax: Axes, gone: Sequence[Exit | None], colors: Sequence[Any], view: Window) -> None:
    """A triangle at the border where each curve first leaves the panel."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    for up, marker, border, lift in ((True, "^", view.high, -2.2), (False, "v", view.low, 2.2)):
        here = [(one[0], color) for one, color in zip(gone, colors, strict=True) if one is not None and one[1] == up]
        if here:
            x, inks = zip(*here, strict=True)
            inside = ax.transData + ScaledTranslation(0, lift / 72, figure.dpi_scale_trans)  # clear of the text above
            ax.scatter(x, [border] * len(x), s=20, marker=marker, color=inks, linewidth=0, zorder=8, transform=inside)


def exits_text(gone: Sequence[Exit | None]) -> str:
    """How many curves leave the panel."""
    ups = [one[1] for one in gone if one is not None]
    return f"{'▲' if any(ups) else '▼'} {len(ups)} off scale" if ups else ""


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


def _crosses(ax: Axes, parts: Sequence[RunCurve], view: Window) -> None:
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
    bar = shades.colorbar(ax, scale, "lr")
    low, high = rates[0], rates[-1]
    ticks = rates if len(rates) <= 2 else style.log_ticks(low, high)
    style.name_ticks(bar.ax.yaxis, ticks, [words.compact(tick) for tick in ticks])


def _handles(facts: SweepFacts, rows: Sequence[OptimizerFacts], *, leaving: bool) -> list[Artist]:
    many = any(row.n_seeds > MOST_SEEDS for row in rows)
    label = "median and range over seeds" if many else "one run"
    handles: list[Artist] = [legend.line(label, linewidth=1.1)]
    if any(math.isfinite(row.best_lr.value) for row in rows):
        label = f"best lr by {words.objective_text(facts)} (black edge)"
        handles.append(legend.line(label, color=INK, linewidth=2.8))
    if leaving:
        handles.append(legend.leaves(up=facts.mode == "min"))
    if any(row.n_diverged for row in rows):
        handles.append(legend.mark("x", "diverged (at the border: off scale)", color=RED))
    return handles


def zoom(
    facts: SweepFacts, rows: Sequence[OptimizerFacts], parts: RunCurves, train: RunCurves, column: str, *, x: str,
    setting: str = "",
) -> Figure:  # fmt: skip
    """The best rate and the grid rates nearest to 2, 5 and 10 times it; the training loss dotted where it is given."""
    zoomed = [_zoomed(row, parts, train, facts.mode) for row in rows]
    columns = style.columns_for(len(rows))
    label = f"{column}, one line per seed; best: by {words.objective_text(facts)}"
    handles: list[Artist] = [legend.line(label, linewidth=1.4)]
    if train:
        handles.append(legend.line("train_loss", linewidth=0.8, linestyle=DOTTED))
    if any(any(one.gone) for one in zoomed):
        handles.append(legend.leaves(up=facts.mode == "min"))
    if any(run.status == "diverged" and run.lr in zoom_rates(row) for row in rows for run in row.runs):
        handles.append(legend.mark("x", "diverged", color=RED))
    page = style.page(
        len(rows), f"{facts.name}: {column} at the best learning rate and above", words.budget_line(facts, setting),
        columns=columns, panel=_size(rows), head=legend.head(rows, 0.34), legend=handles,
    )  # fmt: skip
    for index, (row, ax, one) in enumerate(zip(rows, page.panels, zoomed, strict=True)):
        _zoom_panel(ax, row, one)
        style.panel_title(ax, row.optimizer, legend.below_title(row, " "), aside=exits_text(one.gone))
        page.label(index, x, column + (" (log)" if one.view.log else ""))
    return page.figure


def zoom_rates(row: OptimizerFacts) -> list[float]:
    """The best rate and the grid rates nearest, in log, to 2, 5 and 10 times it; each rate once."""
    best, rates = row.best_lr.value, [point.lr for point in row.rates]
    if not math.isfinite(best):
        return []
    near = [min(rates, key=lambda rate: abs(math.log(rate / (best * factor)))) for factor in ZOOM]
    return sorted({rate for rate in near if rate >= best})


@dataclass(frozen=True, kw_only=True)
class _Zoomed:
    """What a panel of the zoom shows: `rates`, the objective's `lines` at them and those of the training loss; `gone`
    says where these leave it, first those of the objective."""

    rates: list[float]
    lines: list[RunCurve]
    train: list[RunCurve]
    view: Window
    gone: list[Exit | None]


def _zoomed(row: OptimizerFacts, parts: RunCurves, train: RunCurves, mode: str) -> _Zoomed:
    rates = zoom_rates(row)
    ids = [run.run_id for run in row.runs if run.lr in rates and run.run_id in parts]
    lines, dotted = [parts[i] for i in ids], [train[i] for i in ids if i in train]
    view = window([*lines, *dotted], mode)
    gone = [exit_of(_finite(line.xy), view) for line in (*lines, *dotted)]
    return _Zoomed(rates=rates, lines=lines, train=dotted, view=view, gone=gone)


def _zoom_panel(ax: Axes, row: OptimizerFacts, shown: _Zoomed) -> None:
    _open(ax, shown.view)
    handles = []
    for number, rate in enumerate(shown.rates):
        color, line = COLORS[number], LINES[number]
        for some, width, how in ((shown.train, 0.8, DOTTED), (shown.lines, 1.4, line)):
            xy = [_finite(one.xy) for one in some if one.lr == rate]
            ax.add_collection(LineCollection(xy, colors=color, linewidths=width, linestyles=[how]), autolim=False)
        text = words.compact(rate) + (" best" if rate == row.best_lr.value else "")
        handles.append(legend.line(text, color=color, linestyle=line, linewidth=1.4))
    _crosses(ax, shown.lines, shown.view)
    inks = [COLORS[shown.rates.index(line.lr)] for line in (*shown.lines, *shown.train)]
    mark_exits(ax, shown.gone, inks, shown.view)
    if handles:
        ax.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), borderaxespad=0,
            borderpad=0.15, fontsize=7.8, handlelength=2.4, handletextpad=0.4, columnspacing=1.2,
        )  # fmt: skip
