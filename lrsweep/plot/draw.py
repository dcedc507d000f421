"""From a results folder to its pictures: read the tables, ask the analysis, draw."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrsweep.analysis import analyse
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.analysis.leader import leader
from lrsweep.errors import UsageError, WrongOption
from lrsweep.objective import last_k
from lrsweep.plot import (
    best_lr_drift,
    by_axis,
    facets,
    heatmap,
    loss_curves,
    lr_schedule,
    overlays,
    overview,
    selection,
    sensitivity,
    style,
    time_to_target,
    u_curves,
)
from lrsweep.plot.loss_curves import RunCurves
from lrsweep.plot.style import Look, Sheet
from lrsweep.results import facts_file, tables
from lrsweep.results.figures import CAPTIONS, SUFFIX, Rendered, mark, save
from lrsweep.spec.load import read_resolved
from lrsweep.spec.model import Spec, call_text
from lrsweep.system.folders import given
from lrsweep.system.machine import available_cores
from lrsweep.system.parallel import in_processes
from lrsweep.system.process import few_collections
from lrsweep.wording import words

UNTITLED = "untitled"
"""Of the name of a file that has no title."""
LEAST_WIDTH, MOST_WIDTH = 2.0, 40.0
"""Inches of a figure whose width is asked for."""
LONGEST = ("u_curve", "loss_curves", "time_to_target", "sensitivity")
"""The pictures that take longest to draw, longest first: begun last, they would keep one core waiting for the other."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn figure: the stem of its file, a caption, and what it shows for those who cannot see it."""

    name: str
    figure: Figure
    caption: str
    alt: str


@dataclass(frozen=True)
class SweepFigures:
    """What there is to draw; `setting` names what all of it holds for (task, model, budget, ...); `fingerprint` is that
    of the tables, if it was read from files. `optimizers`: the labels that were asked for; `width` and `titled`: see
    `style.Sheet`."""

    facts: SweepFacts
    spec: Spec
    curves: pd.DataFrame
    setting: str
    fingerprint: str = ""
    optimizers: tuple[str, ...] = ()
    width: float | None = None
    titled: bool = True

    @property
    def sheet(self) -> Sheet:
        return Sheet(setting=self.setting, width=self.width, titled=self.titled)

    @property
    def mark(self) -> str:
        """What every figure carries."""
        return mark(self.fingerprint, {"as": self.suffix} if self.suffix else None) if self.fingerprint else ""

    @property
    def suffix(self) -> str:
        """What the names of files end in, so that they replace none of those that show the whole sweep by its
        objective: `__val_accuracy`, `__sgd__3.25in`."""
        objective = self.spec.objective
        parts = [of_a_file(self.facts.metric)] if self.facts.metric != objective.metric else []
        parts += [self.facts.at] if self.facts.at != objective.at else []
        parts += [of_a_file(label) for label in self.optimizers]
        parts += [f"{self.width:g}in"] if self.width is not None else []
        parts += [UNTITLED] if not self.titled else []
        return "".join(f"{SUFFIX}{part}" for part in parts)

    @cached_property
    def looks(self) -> list[Look]:
        """One per row."""
        return style.looks([row.optimizer for row in self.facts.rows], self.labels)

    @property
    def labels(self) -> list[str]:
        return [optimizer.label for optimizer in self.spec.optimizers]

    @cached_property
    def column(self) -> str:
        """The column that is drawn over the run."""
        return self.facts.metric if self.facts.metric in self.curves else "val_loss"

    @property
    def x(self) -> str:
        return "step" if self.spec.train.steps is not None else "epoch"

    @cached_property
    def lines(self) -> RunCurves:
        return loss_curves.lines(self.curves, self.facts, self.column, x=self.x)

    @cached_property
    def train_lines(self) -> RunCurves:
        twin = "train_" + self.column.removeprefix("val_")
        if twin == self.column or twin not in self.curves:
            return {}
        return loss_curves.lines(self.curves, self.facts, twin, x=self.x)

    @cached_property
    def leading(self) -> SweepFigures:
        """One row per optimizer, its best, where all rows would be too many for one picture; the best of these."""
        rows = self.facts.rows
        if len(rows) <= selection.MOST_PANELS or not self.facts.axes:
            return self.shown
        one_each = selection.best_of_each(self.facts)
        several = len(one_each) < len(rows)
        few = self._with(selection.best(one_each, self.facts.mode, selection.MOST_ROWS), len(one_each), "optimizers")
        return replace(few, setting=f"{few.setting}; each optimizer at its best value") if several else few

    @cached_property
    def head(self) -> SweepFigures:
        """As many rows as the table at the head of the report has lines for."""
        rows = self.facts.rows
        return self._with(selection.best(rows, self.facts.mode, selection.MOST_LISTED), len(rows), "curves")

    @cached_property
    def shown(self) -> SweepFigures:
        """As many rows as a picture can have a panel or a bar for."""
        rows = self.facts.rows
        return self._with(selection.best(rows, self.facts.mode, selection.MOST_ROWS), len(rows), "curves")

    @cached_property
    def in_panels(self) -> SweepFigures:
        """All rows of as many optimizers as a picture can have a panel for."""
        labels = len({row.optimizer for row in self.facts.rows})
        return self._with(selection.best_optimizers(self.facts), labels, "optimizers")

    @cached_property
    def crowd(self) -> SweepFigures:
        """As many of these rows as a picture can have a line for."""
        rows = self.in_panels.facts.rows
        return self.in_panels._with(selection.best(rows, self.facts.mode, selection.MOST_LINES), len(rows), "curves")

    def _with(self, rows: tuple[OptimizerFacts, ...], there: int, noun: str) -> SweepFigures:
        """These rows alone, of so many `curves` or `optimizers` that there are."""
        if len(rows) == len(self.facts.rows):
            return self
        count = len(rows) if noun == "curves" else len({row.optimizer for row in rows})
        said = selection.said(count, there, noun)
        setting = "; ".join(filter(None, (self.setting, said)))
        return replace(self, facts=selection.with_rows(self.facts, rows), setting=setting)


def load(
    folder: Path | str, *, metric: str | None = None, at: str | None = None, optimizers: Sequence[str] = (),
    width: float | None = None, titled: bool = True,
) -> SweepFigures:  # fmt: skip
    """Read a sweep; `metric` (any column of curves.csv) and `at` replace the spec's objective, its direction follows
    the metric's name. `optimizers`: the labels to show, all if there are none; `width` in inches and `titled`: see
    `style.Sheet`.

    Raises UsageError for a folder without a sweep and for values that an option cannot have; StorageError.
    """
    if width is not None and not LEAST_WIDTH <= width <= MOST_WIDTH:
        raise WrongOption("width", width, f"must be from {LEAST_WIDTH:g} to {MOST_WIDTH:g} inches")
    folder = given(folder)
    tables.ensure(folder)
    fingerprint = tables.digest_of(folder)
    spec, curves = read_resolved(folder / tables.SPEC), tables.read_curves(folder)
    _check(spec, curves, metric, at, optimizers)
    by_objective = metric in (None, spec.objective.metric) and at in (None, spec.objective.at)
    facts = facts_file.read(folder, fingerprint) if by_objective else None
    if facts is None:
        facts = _analysed(spec, tables.read_runs(folder), curves, tables.read_summary(folder), metric, at)
    return replace(_shown(facts, spec, curves, optimizers), fingerprint=fingerprint, width=width, titled=titled)


def sweep_of(
    spec: Spec,
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    summary: pd.DataFrame,
    metric: str | None = None,
    at: str | None = None,
    optimizers: Sequence[str] = (),
) -> SweepFigures:
    """The same from frames that were read before. Torch's default rates are taken from the summary."""
    _check(spec, curves, metric, at, optimizers)
    return _shown(_analysed(spec, runs, curves, summary, metric, at), spec, curves, optimizers)


def _analysed(
    spec: Spec, runs: pd.DataFrame, curves: pd.DataFrame, summary: pd.DataFrame, metric: str | None, at: str | None
) -> SweepFacts:
    rates = zip(summary["optimizer"], summary["default_lr"], strict=True)
    return analyse(runs, curves, spec, {str(label): float(rate) for label, rate in rates}, metric=metric, at=at)


def _shown(facts: SweepFacts, spec: Spec, curves: pd.DataFrame, optimizers: Sequence[str]) -> SweepFigures:
    if optimizers:
        facts = selection.of_optimizers(facts, optimizers)
    return replace(sweep_from(facts, spec, curves), optimizers=tuple(optimizers))


def sweep_from(facts: SweepFacts, spec: Spec, curves: pd.DataFrame, fingerprint: str = "") -> SweepFigures:
    """What there is to draw of facts that the analysis has found in `curves` before."""
    return SweepFigures(facts, spec, curves, setting_text(spec, facts), fingerprint)


def _check(spec: Spec, curves: pd.DataFrame, metric: str | None, at: str | None, optimizers: Sequence[str]) -> None:
    first = list(curves.columns).index("lr_now") + 1 if "lr_now" in curves else 0
    columns = [str(name) for name in curves.columns[first:]]
    if metric is not None and metric not in columns:
        raise WrongOption("metric", metric, f"not a column of curves.csv (have: {', '.join(columns)})")
    if at is not None and at not in ("final", "best", "mean"):
        try:
            last_k(at)
        except ValueError as error:
            raise WrongOption("at", at, "must be final, best, mean or last_K with an integer K from 1") from error
    labels = [optimizer.label for optimizer in spec.optimizers]
    if unknown := [label for label in optimizers if label not in labels]:
        raise WrongOption("optimizer", unknown[0], f"no such optimizer label (have: {', '.join(labels)})")


def setting_text(spec: Spec, facts: SweepFacts) -> str:
    """What every number of the picture holds for: task, model, budget, batch, schedule; what an axis varies is named
    as one, and what holds for some optimizers only is left out."""
    parts = [call_text(spec.task.name, {})] if not {"task", "task.name"} & set(spec.axes) else []
    if spec.model is not None and not {"model", "model.name"} & set(spec.axes):
        # Of a model the sizes, not the many defaults that a resolved spec writes out.
        sizes = {key: value for key, value in spec.model.args.items() if isinstance(value, list)}
        parts.append(call_text(spec.model.name, {k: v for k, v in sizes.items() if f"model.{k}" not in spec.axes}))
    if not {"train.epochs", "train.steps"} & set(spec.axes):
        parts.append(words.budget_text(facts.budget))
    size = spec.train.batch_size
    if "train.batch_size" not in spec.axes:
        parts.append("full batches" if size == "full" else f"batches of {size}")
    names = {(optimizer.schedule or spec.schedule).name for optimizer in spec.optimizers}
    if len(names) == 1 and names != {"constant"} and not {"schedule", "schedule.name"} & set(spec.axes):
        parts.append(f"{call_text(names.pop(), {})} schedule")
    if spec.axes:
        parts.append(f"by {', '.join(spec.axes)}")
    return " · ".join(parts)


def pictures(sweep: SweepFigures, only: Sequence[str] = ()) -> Iterator[Picture]:
    """Every picture that the sweep has something to show in, or those named in `only`, most important first."""
    for name, draw in _drafts(sweep).items():
        if not only or name in only:
            yield _picture(name, draw, sweep.facts)


def names(sweep: SweepFigures) -> list[str]:
    """Of all its pictures."""
    return list(_drafts(sweep))


def _drafts(sweep: SweepFigures) -> dict[str, Callable[[], Figure]]:
    """How to draw each picture, by name."""
    facts, few, shown = sweep.facts, sweep.leading, sweep.shown
    found: dict[str, Callable[[], Figure]] = {"u_curve": lambda: u_curve(sweep)}
    if nothing(facts):
        return found
    if studied := by_axis.axes_of(facts):
        return _studies(sweep, studied) | _schedule(sweep)
    trained = any(row.trained for row in few.facts.rows)
    if len(facts.rows) > 1:
        found["u_curve_overlay"] = lambda: overlays.overlay(few.facts, few.looks, few.sheet)
    if trained:
        found["u_curve_aligned"] = lambda: overlays.aligned(few.facts, few.looks, few.sheet)
    found["loss_curves"] = lambda: loss_curve(sweep)
    found["sensitivity"] = lambda: sensitivity.sensitivity(shown.facts, shown.looks, shown.sheet)
    if math.isfinite(facts.target):
        found["time_to_target"] = lambda: time_to_target.time_to_target(few.facts, few.looks, few.sheet)
    if best_lr_drift.drawable(few.facts):
        found["best_lr_drift"] = lambda: best_lr_drift.drift(few.facts, sweep.labels, few.sheet)
    panels = sweep.in_panels
    for axis in facts.axes:
        if len(sweep.spec.axes.get(axis, ())) > 1:
            found[_heatmap_name(axis)] = partial(heatmap.heatmap, panels.facts, axis, panels.sheet)
    return found | _schedule(sweep)


def _schedule(sweep: SweepFigures) -> dict[str, Callable[[], Figure]]:
    """The rate in use, where it changes."""
    if not lr_schedule.changes(sweep.curves):
        return {}
    few = sweep.shown if sweep.facts.axes else sweep.leading
    used = loss_curves.lines(sweep.curves, few.facts, "lr_now", x=sweep.x)
    return {"lr_schedule": lambda: lr_schedule.lr_schedule(few.facts, used, x=sweep.x, sheet=few.sheet)}


def _studies(sweep: SweepFigures, axes: Sequence[str]) -> dict[str, Callable[[], Figure]]:
    """With one rate there is no U-curve, no sensitivity and no drift: what there is stands against the axis."""
    return {
        "by_" + of_a_file(axis): partial(
            by_axis.by_axis, sweep.facts, axis, sweep.lines, sweep.train_lines, sweep.column, x=sweep.x,
            sheet=sweep.sheet,
        )
        for axis in axes
    }  # fmt: skip


def _heatmap_name(axis: str) -> str:
    return "heatmap_" + of_a_file(axis)


def of_a_file(text: str) -> str:
    """A text as part of the name of a file; two underscores begin the suffix."""
    return re.sub("_{2,}", "_", re.sub(r"[^A-Za-z0-9._-]", "_", text)).strip("_")


def _picture(name: str, draw: Callable[[], Figure], facts: SweepFacts) -> Picture:
    caption = CAPTIONS.get(name, "")
    for axis in facts.axes:
        for kind, its_name in (("heatmap", _heatmap_name(axis)), ("by_axis", f"by_{of_a_file(axis)}")):
            caption = f"{CAPTIONS[kind]} Axis: {axis}." if its_name == name else caption
    said = " ".join(f"{words.title(row)}: {words.facts_line(row)}." for row in facts.rows[:12])
    with style.styled():
        return Picture(name=name, figure=draw(), caption=caption, alt=f"{caption} {said}")


def rendered(sweep: SweepFigures, formats: Sequence[str], only: Sequence[str] = ()) -> list[Rendered]:
    """The files of every picture, or of those named in `only`, drawn on all cores; the same bytes as on one.

    Raises UsageError for a name there is no picture of.
    """
    drafts = _drafts(sweep)
    if unknown := [name for name in only if name not in drafts]:
        raise WrongOption("only", unknown[0], f"this sweep has no such plot (have: {', '.join(drafts)})")
    drafts = {name: draw for name, draw in drafts.items() if not only or name in only}

    def one(name: str) -> Rendered:
        picture = _picture(name, drafts[name], sweep.facts)
        files = {kind: style.rendered(picture.figure, kind, sweep.mark) for kind in formats}
        return Rendered(name=name, caption=picture.caption, alt=picture.alt, files=files)

    order = sorted(drafts, key=lambda name: LONGEST.index(name) if name in LONGEST else len(LONGEST))
    with few_collections():
        done = dict(zip(order, in_processes([partial(one, name) for name in order], available_cores()), strict=True))
    return [done[name] for name in drafts]


def rehearse() -> None:
    """Find the fonts and import what the first picture would: for a process that waits for something to draw."""
    with style.styled():
        figure = style.empty("", "")
    for kind in ("png", "svg"):
        style.rendered(figure, kind)


def nothing(facts: SweepFacts) -> str:
    """Why there is nothing to draw; empty where there is."""
    if facts.all_failed:
        return f"{facts.name}: every run failed"
    return "" if facts.rows else f"{facts.name}: no run has finished yet"


def u_curve(sweep: SweepFigures) -> Figure:
    with style.styled():
        if reason := nothing(sweep.facts):
            return style.empty(reason, sweep.setting)
        if sweep.facts.axes:
            return facets.u_curve(sweep.crowd.facts, sweep.crowd.sheet)
        return u_curves.u_curve(sweep.shown.facts, sweep.shown.looks, sweep.shown.sheet)


def u_curve_on(ax: Axes, sweep: SweepFigures) -> Axes:
    """The U-curve in a panel of the user's, in the user's style: of one optimizer with its runs, of several their
    medians."""
    few = sweep.shown
    if not nothing(few.facts):
        overlays.into(ax, few.facts, few.looks)
    return ax


def loss_curve_on(ax: Axes, sweep: SweepFigures) -> Axes:
    """The loss curves of one optimizer likewise: of several the one to use, and its best value of an axis."""
    facts = sweep.facts
    if not nothing(facts):
        row = leader(facts) or facts.rows[0]
        loss_curves.into(ax, facts, row, sweep.lines, sweep.column, x=sweep.x, train=sweep.train_lines)
    return ax


def time_to_target_on(ax: Axes, sweep: SweepFigures) -> Axes:
    """The steps to the target of all optimizers likewise. Raises UsageError where there is no target."""
    few = sweep.leading
    if "time_to_target" not in names(sweep):
        raise UsageError("nothing trained: there is no target to reach")
    time_to_target.into(ax, few.facts, few.looks)
    return ax


def figure(sweep: SweepFigures, name: str) -> Figure:
    """The plot with this name. Raises UsageError if the sweep has none."""
    drafts = _drafts(sweep)
    if name not in drafts:
        raise WrongOption("name", name, f"this sweep has no such plot (have: {', '.join(drafts)})")
    return _picture(name, drafts[name], sweep.facts).figure


def loss_curve(sweep: SweepFigures) -> Figure:
    with style.styled():
        few = sweep.leading
        if reason := nothing(few.facts):
            return style.empty(reason, sweep.setting)
        return loss_curves.loss_curves(
            few.facts, few.facts.rows, few.lines, few.column, x=few.x, train=few.train_lines, sheet=few.sheet
        )


def head(sweep: SweepFigures) -> Rendered | None:
    """All U-curves in one, for the head of the report; None where there is nothing to draw, or no U-curve."""
    shown = sweep.head
    if nothing(sweep.facts) or by_axis.axes_of(sweep.facts):
        return None
    with style.styled():
        figure = overview.overview(shown.facts, shown.looks)
        svg = style.rendered(figure, "svg", sweep.mark)
    alt = "Median objective against learning rate for every line of the table."
    return Rendered(name="overview", caption="", alt=alt, files={"svg": svg})


def draw_all(
    folder: Path | str, formats: Sequence[str] = ("png",), metric: str | None = None, at: str | None = None
) -> list[Path]:
    """Draw every picture of a sweep into its folder, from its files alone, and return their paths.

    `formats`: any of png, svg, pdf. Pictures of the same files are the same bytes. Raises UsageError, StorageError.
    """
    folder = given(folder)
    return draw_sweep(load(folder, metric=metric, at=at), folder, formats)


def draw_sweep(sweep: SweepFigures, folder: Path, formats: Sequence[str], only: Sequence[str] = ()) -> list[Path]:
    """The same for a sweep that is loaded, or its plots named in `only`; none where there is `nothing` to draw."""
    if unknown := sorted(set(formats) - set(style.METADATA)):
        raise WrongOption("format", unknown[0], f"unknown format (allowed: {', '.join(style.METADATA)})")
    if nothing(sweep.facts):
        return []
    found = rendered(sweep, formats, only)
    return save(found, folder, formats, suffix=sweep.suffix, some=bool(only))
