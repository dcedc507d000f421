"""Loss over the run: a panel per optimizer, a few rates with their names, all others faint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from lrsweep.analysis.cells import by_run
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import colors as shades
from lrsweep.plot import legend, style, tags, ticks
from lrsweep.plot.style import GREY, SCREEN, Head, Sheet
from lrsweep.plot.text import width_of
from lrsweep.plot.u_curves import LARGE, SMALL, scales_differ
from lrsweep.wording import words

Floats: TypeAlias = npt.NDArray[np.float64]
Exit: TypeAlias = tuple[float, bool]
"""The x at which a curve leaves its panel, and True if upwards."""

MOST_POINTS = 400
"""Longer curves are thinned for drawing (every k-th row and the last)."""
MOST_SEEDS = 3
"""More seeds than this are drawn as their median and the band between their quartiles."""
MOST_NAMED = 7
"""Rates that are drawn with their name in a panel."""
DOTTED = (0, (1, 1.5))
TRAIN = (0, (3, 1.5))
FAINT = "#C9C9C9"
NAMES = 8.0
"""Points of the names of rates."""


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
    if len(runs := [run.run_id for row in facts.rows for run in row.runs]) < facts.n_runs:
        curves = curves[curves["run_id"].isin(runs)]
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

    @cached_property
    def scale(self) -> ticks.Scale:
        return ticks.value_scale(self.low, self.high, log=self.log)


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
        linear = min(high, top + 0.25 * abs(top - low))
        high = min(high, top * (top / low) ** 0.15) if log and top > low else linear
        log, high = (True, high) if log and high > 3 * low else (False, linear)
    elif len(start):
        low = max(low, float(start.min()) - 0.25 * abs(high - float(start.min())))
    if not high > low:
        low, high = (low / 2, low * 2) if log else (low - 0.5 * (abs(low) or 1.0), low + 0.5 * (abs(low) or 1.0))
    air = (high / low) ** 0.04 if log else 0.04 * (high - low)
    bounds = (low / air, high * air) if log else (low - air, high + air)
    return Window(left=0.0, right=right, low=bounds[0], high=bounds[1], log=log)


def _open(ax: Axes, view: Window) -> None:
    ax.set_xlim(view.left - 0.01 * view.right, view.right * 1.02)
    ticks.plain_axis(ax, view.left, view.right, whole=True)
    ticks.value_axis(ax, view.scale)


@dataclass(frozen=True, kw_only=True)
class DrawnCurve:
    """What is drawn of a run; or, without a `run_id`, of a rate: the median of its runs and as `band` the lower and the
    upper quartile of those that did not diverge. `diverged`: the run did, or all runs of the rate; `xy` may then have
    rows that are not finite."""

    lr: float
    xy: Floats
    diverged: bool
    run_id: str = ""
    band: tuple[Floats, Floats] | None = None

    def leaves(self, view: Window) -> Exit | None:
        """Where it first leaves the panel; None for a diverged one, which is marked where it ends."""
        return None if self.diverged else exit_of(self.xy, view)

    def inside(self, view: Window) -> Floats:
        """The points to join: of a diverged one those before it left the panel."""
        return self.xy[: ending(self.xy, view)] if self.diverged else self.xy


def ending(xy: Floats, view: Window) -> int:
    """The number of the first row of a diverged run that is outside of the panel or not finite, or of its last row."""
    y = xy[:, 1]
    out = np.flatnonzero(~((y <= view.high) & (y >= view.low)))
    return int(out[0]) if len(out) else len(xy) - 1


def named_rates(row: OptimizerFacts) -> list[float]:
    """At most MOST_NAMED rates, rising, those aside at which every run failed: the best, the first unusable one, the
    recommended one, those next to the best on both sides, then the lowest and the highest."""
    rates = [point.lr for point in row.rates if point.n_runs > point.n_failed]
    if len(rates) <= MOST_NAMED:
        return rates
    best = row.best_lr.value if math.isfinite(row.best_lr.value) else rates[len(rates) // 2]
    near = sorted(rates, key=lambda rate: abs(math.log(rate / best)))
    wanted = [best, row.margins.unusable_from, row.recommended_lr, *near[:5], rates[0], rates[-1], *near]
    return sorted(list(dict.fromkeys(rate for rate in wanted if rate in rates))[:MOST_NAMED])


def curves_of(row: OptimizerFacts, parts: Sequence[RunCurve]) -> list[DrawnCurve]:
    """A curve per run, or per rate where there are many seeds."""
    if row.n_seeds <= MOST_SEEDS:
        return [
            DrawnCurve(
                lr=line.lr,
                xy=line.xy if line.diverged else _finite(line.xy),
                diverged=line.diverged,
                run_id=line.run_id,
            )
            for line in parts
        ]
    found = []
    for lr in sorted({line.lr for line in parts}):
        mine = [line for line in parts if line.lr == lr]
        x, middle, _, _ = over_seeds([line.xy for line in mine])
        median, gone = np.column_stack([x, middle]), all(line.diverged for line in mine)
        if gone:  # and where the last of them stopped
            median = np.concatenate([median, [[max(float(line.xy[-1, 0]) for line in mine), math.nan]]])
        x, _, low, high = over_seeds([line.xy for line in mine if not line.diverged] or [np.empty((0, 2))])
        band = (np.column_stack([x, low]), np.column_stack([x, high]))
        found.append(DrawnCurve(lr=lr, xy=median, diverged=gone, band=band))
    return found


def loss_curves(
    facts: SweepFacts, rows: Sequence[OptimizerFacts], parts: RunCurves, column: str, *, x: str,
    train: RunCurves | None = None, sheet: Sheet = SCREEN,
) -> Figure:  # fmt: skip
    """Every run of `rows`; `train` holds the training loss of the same runs, drawn at the best rate."""
    lines = [[parts[run.run_id] for run in row.runs if run.run_id in parts] for row in rows]
    trained = [_at_best(row, train or {}) for row in rows]
    own = scales_differ(rows)
    everything = window([line for mine in lines for line in mine], facts.mode)
    views = [window(mine, facts.mode) for mine in lines] if own else [everything] * len(rows)
    curves = [curves_of(row, mine) for row, mine in zip(rows, lines, strict=True)]
    gone = [[one.leaves(view) for one in some] for some, view in zip(curves, views, strict=True)]
    panel = LARGE if len(rows) == 1 else SMALL
    names = [view.scale.label(column) for view in views]
    left = max(style.left_room(view.scale.width, name) for view, name in zip(views, names, strict=True))
    room = 0.12 + max((width_of(_name(row, rate), NAMES) for row in rows for rate in named_rates(row)), default=0.0)
    heads = [
        Head(title=row.optimizer, facts=legend.below_title(row, _facts_line(row)), aside=exits_text(out))
        for row, out in zip(rows, gone, strict=True)
    ]
    page = style.page(
        heads, f"{facts.name}: {column} during training, by learning rate", words.budget_line(facts, sheet.setting),
        sheet, columns=style.columns_for(len(rows)), panel=panel, left=left, right=room + 0.1,
        gap=(room + (left if own else 0.15), 0.36),
        legend=_key(facts, rows, lines, train=any(trained), leaving=any(map(any, gone))),
    )  # fmt: skip
    for index, (row, ax) in enumerate(zip(rows, page.panels, strict=True)):
        _fill(ax, row, lines[index], curves[index], trained[index], views[index], facts.mode, page.size[1])
        if page.left_column(index) or own:
            style.y_label(ax, names[index], page.size[1])
        else:
            ax.tick_params(labelleft=False)
        if page.bottom_row(index):
            ax.set_xlabel(x)
    return page.figure


def into(
    ax: Axes, facts: SweepFacts, row: OptimizerFacts, parts: RunCurves, column: str, *, x: str,
    train: RunCurves | None = None,
) -> None:  # fmt: skip
    """The same for one of the rows in a panel of the user's, in the user's style."""
    lines = [parts[run.run_id] for run in row.runs if run.run_id in parts]
    trained, view, curves = _at_best(row, train or {}), window(lines, facts.mode), curves_of(row, lines)
    _fill(ax, row, lines, curves, trained, view, facts.mode, ticks.inches(ax, upright=True))
    ax.set_xlabel(x)
    ax.set_ylabel(view.scale.label(column)).set_parse_math(False)
    leaving = any(one.leaves(view) for one in curves)
    beside = 0.2 + max((width_of(_name(row, rate), NAMES) for rate in named_rates(row)), default=0.0)
    legend.beside(ax, _key(facts, [row], [lines], train=bool(trained), leaving=leaving), beside, title=row.title)


def _fill(
    ax: Axes, row: OptimizerFacts, lines: Sequence[RunCurve], curves: Sequence[DrawnCurve],
    trained: Sequence[RunCurve], view: Window, mode: str, height: float,
) -> None:  # fmt: skip
    """All of a panel, `height` inches high, but the names of its axes."""
    named = named_rates(row)
    inks = dict(zip(named, _inks(len(named)), strict=True))
    _open(ax, view)
    tags.panel(ax, row.title)
    _draw(ax, row, curves, inks, view, mode)
    if trained:
        ink = inks.get(row.best_lr.value, FAINT)
        dotted = LineCollection([_finite(line.xy) for line in trained], colors=ink, linewidths=0.9, linestyles=[TRAIN])
        ax.add_collection(dotted, autolim=False)
        tags.runs(dotted, row, [line.run_id for line in trained])
    _crosses(ax, lines, inks, view, mode)
    mark_exits(ax, [one.leaves(view) for one in curves], [inks.get(one.lr, GREY) for one in curves], view)
    _write_names(ax, row, curves, inks, view, mode, height)


def _at_best(row: OptimizerFacts, train: RunCurves) -> list[RunCurve]:
    """The training loss of the runs at the best rate: of one seed, where the others are drawn as their median."""
    found = [train[run.run_id] for run in row.runs if _is_best(row, run.lr) and run.run_id in train]
    return found[:1] if row.n_seeds > MOST_SEEDS else found


def _inks(count: int) -> list[str]:
    """Colours of rising rates, dark to light."""
    colors = shades.rate_colormap()
    return [to_hex(colors(number / max(count - 1, 1))) for number in range(count)]


def _facts_line(row: OptimizerFacts) -> str:
    if not row.trained:
        return f"nothing trained · {row.n_diverged} of {words.plural(row.n_runs, 'run')} diverged"
    parts = [f"best {words.compact(row.best_lr.value)}"]
    if math.isfinite(row.margins.unusable_from):
        parts.append(f"unusable from {words.compact(row.margins.unusable_from)}")
    failed = f", {row.n_failed} failed" * bool(row.n_failed)
    parts.append(
        (f"{row.n_diverged} of {words.plural(row.n_runs, 'run')} diverged" if row.n_diverged else "none diverged")
        + failed
    )
    return " · ".join(parts)


def _draw(
    ax: Axes, row: OptimizerFacts, curves: Sequence[DrawnCurve], inks: Mapping[float, str], view: Window, mode: str
) -> None:
    """Named rates in their colour on their bands, the others faint below them. A diverged curve goes on, dotted, to
    the border above or below the first row that has no place in the panel."""
    bands = [(*one.band, inks[one.lr]) for one in curves if one.band is not None and one.lr in inks]
    if bands:
        corners, colors = zip(*((np.concatenate([low, high[::-1]]), color) for low, high, color in bands), strict=True)
        ax.add_collection(PolyCollection(corners, facecolors=colors, alpha=0.13, linewidths=0), autolim=False)
    for named, width, level in ((False, 0.7, 1.5), (True, 1.2, 4)):
        some = [one for one in curves if (one.lr in inks) == named and len(one.inside(view))]
        how: Any = {"colors": [inks.get(one.lr, FAINT) for one in some], "linewidths": width, "zorder": level}
        lines = LineCollection([one.inside(view) for one in some], **how)
        ax.add_collection(lines, autolim=False)
        _tag_lines(lines, row, some)
    for one in curves:
        end = ending(one.xy, view) if one.diverged and len(one.xy) else 0
        if end:
            x, y = one.xy[end - 1 : end + 1, 0], (one.xy[end - 1, 1], border(view, mode))
            ax.plot(x, y, color=inks.get(one.lr, FAINT), linestyle=DOTTED, linewidth=1.0, zorder=3)


def _tag_lines(drawn: LineCollection, row: OptimizerFacts, curves: Sequence[DrawnCurve]) -> None:
    """The lines of `drawn` are these curves of `row`: all of runs, or all of rates."""
    if all(one.run_id for one in curves):
        tags.runs(drawn, row, [one.run_id for one in curves])
    else:
        tags.rates(drawn, row, [one.lr for one in curves])


def border(view: Window, mode: str) -> float:
    """The worse one."""
    return view.high if mode == "min" else view.low


def _name(row: OptimizerFacts, rate: float) -> str:
    return words.compact(rate) + " ★" * _is_best(row, rate)


def _is_best(row: OptimizerFacts, rate: float) -> bool:
    return row.trained and rate == row.best_lr.value


def _write_names(
    ax: Axes, row: OptimizerFacts, curves: Sequence[DrawnCurve], inks: Mapping[float, str], view: Window, mode: str,
    height: float,
) -> None:  # fmt: skip
    """The names of the rates right of the panel, each as near to the end of its curve as the others allow."""
    wanted, worse = {}, 1.0 if mode == "min" else 0.0
    for rate in inks:
        ends = [
            worse if one.diverged else share_of(float(one.xy[-1, 1]), view)
            for one in curves
            if one.lr == rate and len(one.xy)
        ]
        if ends:
            wanted[rate] = float(np.median(ends))
    order = sorted(wanted, key=lambda rate: (wanted[rate], rate))
    places = spaced([wanted[rate] * height for rate in order], (NAMES + 1.2) / 72)
    for rate, place in zip(order, places, strict=True):
        at, bold = (1, place / height), _is_best(row, rate)
        style.note(
            ax, _name(row, rate), at, (4, 0), xycoords="axes fraction", size=NAMES, color=inks[rate], va="center",
            weight="bold" if bold else "normal",
        )  # fmt: skip


def share_of(y: float, view: Window) -> float:
    """Where a value lies between the lower and the upper border of the panel, 0 to 1."""
    if view.log:
        y = math.log(max(y, 5e-324) / view.low) / math.log(view.high / view.low)
    else:
        y = (y - view.low) / (view.high - view.low)
    return min(max(y, 0.0), 1.0)


def spaced(wanted: Sequence[float], least: float) -> list[float]:
    """Rising places at least `least` apart that lie as near as can be (least squares) to the rising `wanted` ones."""
    groups: list[tuple[float, int]] = []  # sum of what each of its members wants for the first, and their number
    for place in wanted:
        groups.append((place, 1))
        while len(groups) > 1 and groups[-1][0] / groups[-1][1] < groups[-2][0] / groups[-2][1] + least * groups[-2][1]:
            (total, count), (last, more) = groups[-2], groups[-1]
            groups[-2:] = [(total + last - more * count * least, count + more)]
    return [total / count + least * number for total, count in groups for number in range(count)]


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
    """x, and median, lower and upper quartile of the finite y over the runs that have a row at x."""
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
    low, high = np.nanquantile(table, (0.25, 0.75), axis=0, method="inverted_cdf")
    return x, middle, low, high


def _finite(xy: Floats) -> Floats:
    return xy[np.isfinite(xy[:, 1])]


def _crosses(ax: Axes, parts: Sequence[RunCurve], inks: Mapping[float, str], view: Window, mode: str) -> None:
    """A cross at the border for each diverged run, where it was first seen outside of the panel or stopped."""
    gone = [line for line in parts if line.diverged and len(line.xy)]
    if gone:
        x = [line.xy[ending(line.xy, view), 0] for line in gone]
        colors = [inks.get(line.lr, GREY) for line in gone]
        y = [border(view, mode)] * len(x)
        ax.scatter(x, y, s=22, marker="x", color=colors, linewidth=1.2, clip_on=False, zorder=9)


def _key(
    facts: SweepFacts, rows: Sequence[OptimizerFacts], lines: Sequence[Sequence[RunCurve]], *, train: bool,
    leaving: bool,
) -> list[Artist]:  # fmt: skip
    n = max((row.n_seeds for row in rows), default=1)
    handles: list[Artist] = [
        legend.line("one run, with its lr" if n <= MOST_SEEDS else f"median of {n} seeds, with its lr", linewidth=1.2)
    ]
    if n > MOST_SEEDS:
        handles.append(legend.quartiles(n))
    if any(len(row.rates) > MOST_NAMED for row in rows):
        handles.append(legend.line("other learning rates", color=FAINT, linewidth=0.7))
    if any(row.trained for row in rows):
        handles.append(legend.line(f"★ best lr by {words.objective_text(facts)}", linestyle=""))
    if train:
        one = " (one seed)" if n > MOST_SEEDS else ""
        handles.append(legend.line(f"train_loss at the best lr{one}", linewidth=0.9, linestyle=TRAIN))
    if leaving:
        handles.append(legend.leaves(up=facts.mode == "min"))
    if any(line.diverged for mine in lines for line in mine):
        handles.append(legend.mark("x", "diverged: where the run left the panel or stopped"))
    return handles
