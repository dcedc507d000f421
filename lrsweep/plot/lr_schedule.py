"""The learning rate in use during training, where a schedule changes it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.plot import facets, legend, loss_curves, selection, style, tags, ticks
from lrsweep.plot.loss_curves import RunCurves
from lrsweep.plot.style import COLORS, SCREEN, Head, Look, Sheet
from lrsweep.plot.u_curves import SMALL
from lrsweep.wording import words


def changes(curves: pd.DataFrame) -> bool:
    """Whether any run used another rate than its own."""
    return "lr_now" in curves and bool((curves["lr_now"] != curves["lr"]).any())


def lr_schedule(facts: SweepFacts, lines: RunCurves, *, x: str, sheet: Sheet = SCREEN) -> Figure:
    """A panel per optimizer (and place of all axes but one): the rate of every seed's run at the best rate."""
    axis = facets.color_axis(facts) if facts.axes else ""
    parts: list[selection.Slice] = (
        selection.slices(facts, axis) if axis else [(row.optimizer, "", [row]) for row in facts.rows]
    )
    values = list(dict.fromkeys(row.axes[axis] for *_, rows in parts for row in rows)) if axis else []
    looks = dict(zip(values, facets.looks_of(values), strict=True))
    drawn = [[(row, _curves(row, lines)) for row in rows] for *_, rows in parts]
    y = np.concatenate([xy[:, 1] for some in drawn for _, curves in some for xy in curves] or [np.ones(1)])
    low, high = float(y.min()), float(y.max())
    log = low > 0 and high > 10 * low
    bounds = (low / 1.3, high * 1.3) if log else (0.0, high * 1.08)
    scale = ticks.value_scale(*bounds, log=log)
    right = max((float(xy[-1, 0]) for some in drawn for _, curves in some for xy in curves), default=1.0)
    name = scale.label("learning rate in use")
    page = style.page(
        [Head(title=label, facts=_facts_text(others, rows)) for label, others, rows in parts],
        f"{facts.name}: learning rate during training", words.budget_line(facts, sheet.setting), sheet,
        columns=style.columns_for(len(parts)), panel=SMALL, left=style.left_room(scale.width, name), gap=(0.22, 0.36),
        legend=_key(axis, looks),
    )  # fmt: skip
    for index, (some, ax) in enumerate(zip(drawn, page.panels, strict=True)):
        ax.set_xlim(-0.01 * right, right * 1.02)
        ticks.plain_axis(ax, 0.0, right, whole=True)
        ticks.value_axis(ax, scale)
        for row, curves in tags.each(ax, some):
            _draw(ax, curves, looks[row.axes[axis]].color if axis else COLORS[0])
        if page.left_column(index):
            style.y_label(ax, name, page.size[1])
        else:
            ax.tick_params(labelleft=False)
        if page.bottom_row(index):
            ax.set_xlabel(x)
    return page.figure


def _curves(row: OptimizerFacts, lines: RunCurves) -> list[loss_curves.Floats]:
    """Of the runs at the best rate, or at the lowest one where there is none."""
    at = row.best_lr.value if row.trained else row.rates[0].lr
    found = [lines[run.run_id].xy for run in row.runs if run.lr == at and run.run_id in lines]
    return [xy[np.isfinite(xy[:, 1])] for xy in found if np.isfinite(xy[:, 1]).any()]


def _draw(ax: Axes, curves: list[loss_curves.Floats], color: str) -> None:
    for xy in curves:
        ax.plot(xy[:, 0], xy[:, 1], color=color, linewidth=0.8, alpha=0.8, marker="o", markersize=2.5)


def _facts_text(others: str, rows: list[OptimizerFacts]) -> str:
    best = dict.fromkeys(words.compact(row.best_lr.value) for row in rows if row.trained)
    return "\n".join(filter(None, (others, f"at the best lr {', '.join(best)}" if best else "nothing trained")))


def _key(axis: str, looks: dict[str, Look]) -> list[Artist]:
    if len(looks) > facets.MOST_NAMED:
        looks = {value: looks[value] for value in (next(iter(looks)), list(looks)[-1])}
    named: list[Artist] = [
        legend.line(words.axes_text({axis: value}), color=look.color, linewidth=1.4) for value, look in looks.items()
    ]
    return [*named, legend.line("one run; dots: at its evaluations", linewidth=0.8, marker="o", markersize=2.5)]
