"""A finished sweep in Python: its tables as DataFrames, its spec, its plots."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pandas as pd

from lrsweep.errors import UsageError, printable
from lrsweep.results import tables
from lrsweep.spec.load import read_resolved
from lrsweep.spec.model import Spec
from lrsweep.wording.words import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
    from lrsweep.plot import SweepFigures


@dataclass(frozen=True, kw_only=True)
class Results:
    """The sweep in `path` as it was when it was read.

    `runs` has a row per run, `curves` a row per evaluation, `summary` a row per optimizer and axis values: the columns
    are those of the files. Diverged and failed runs are rows like the others; look at `status`.

    >>> results = lrsweep.load("results/sweep")
    >>> results.runs["status"].value_counts().to_dict()
    {'ok': 24}
    >>> results.summary.set_index("optimizer")["recommended_lr"].to_dict()
    {'sgd': 1.0, 'adam': 0.01}
    """

    path: Path
    spec: Spec = field(repr=False)
    runs: pd.DataFrame = field(repr=False)
    curves: pd.DataFrame = field(repr=False)
    summary: pd.DataFrame = field(repr=False)

    @overload
    def u_curve(
        self, ax: None = None, *, metric: str | None = None, at: str | None = None, optimizer: str | None = None
    ) -> Figure: ...

    @overload
    def u_curve(
        self, ax: Axes, *, metric: str | None = None, at: str | None = None, optimizer: str | None = None
    ) -> Axes: ...

    def u_curve(
        self, ax: Axes | None = None, *, metric: str | None = None, at: str | None = None, optimizer: str | None = None
    ) -> Figure | Axes:
        """Plot the objective against the learning rate; returns a matplotlib Figure.

        With `ax`, draw into these matplotlib axes, in their own style, and return them: one optimizer with its runs,
        or the medians of several. `metric`, `at` and `optimizer` are those of `lrsweep plot`. Raises UsageError.

        >>> from matplotlib.figure import Figure
        >>> results = lrsweep.load("results/sweep")
        >>> results.u_curve().savefig("u_curve.pdf")
        >>> ax = results.u_curve(Figure().add_subplot(), metric="val_accuracy", at="best")
        >>> ax.get_ylabel()
        'val_accuracy (best)'
        """
        from lrsweep import plot

        sweep = self._sweep(metric, at, optimizer)
        return plot.u_curve(sweep) if ax is None else plot.u_curve_on(ax, sweep)

    @overload
    def loss_curves(self, ax: None = None, *, metric: str | None = None, optimizer: str | None = None) -> Figure: ...

    @overload
    def loss_curves(self, ax: Axes, *, metric: str | None = None, optimizer: str | None = None) -> Axes: ...

    def loss_curves(
        self, ax: Axes | None = None, *, metric: str | None = None, optimizer: str | None = None
    ) -> Figure | Axes:
        """Plot the loss (or `metric`) during training; returns a matplotlib Figure.

        With `ax`, draw into these matplotlib axes and return them: the curves of `optimizer`, or of the one that is
        recommended. Raises UsageError.

        >>> lrsweep.load("results/sweep").loss_curves(optimizer="adam").savefig("adam.png")
        """
        from lrsweep import plot

        sweep = self._sweep(metric, None, optimizer)
        return plot.loss_curve(sweep) if ax is None else plot.loss_curve_on(ax, sweep)

    def sensitivity(self, *, metric: str | None = None, at: str | None = None, optimizer: str | None = None) -> Figure:
        """Plot the sensitivity, good range and cost of the default lr of each optimizer. Raises UsageError.

        >>> lrsweep.load("results/sweep").sensitivity().savefig("sensitivity.png")
        """
        return self.figure("sensitivity", metric=metric, at=at, optimizer=optimizer)

    @overload
    def time_to_target(
        self, ax: None = None, *, metric: str | None = None, at: str | None = None, optimizer: str | None = None
    ) -> Figure: ...

    @overload
    def time_to_target(
        self, ax: Axes, *, metric: str | None = None, at: str | None = None, optimizer: str | None = None
    ) -> Axes: ...

    def time_to_target(
        self, ax: Axes | None = None, *, metric: str | None = None, at: str | None = None, optimizer: str | None = None
    ) -> Figure | Axes:
        """Plot the steps to the sweep's target against the learning rate; returns a matplotlib Figure.

        With `ax`, draw into these matplotlib axes and return them. Raises UsageError.

        >>> lrsweep.load("results/sweep").time_to_target().savefig("time_to_target.png")
        """
        from lrsweep import plot

        sweep = self._sweep(metric, at, optimizer)
        return plot.figure(sweep, "time_to_target") if ax is None else plot.time_to_target_on(ax, sweep)

    def figure(
        self, name: str, *, metric: str | None = None, at: str | None = None, optimizer: str | None = None
    ) -> Figure:
        """Any plot of the sweep, by the name of its file, such as `u_curve_aligned`, `best_lr_drift` or
        `heatmap_train.batch_size`, as a matplotlib Figure. Raises UsageError, which names all that there are.

        >>> lrsweep.load("results/sweep").figure("u_curve_aligned").savefig("aligned.svg")
        """
        from lrsweep import plot

        return plot.figure(self._sweep(metric, at, optimizer), name)

    @property
    def recommended(self) -> pd.Series[Any]:
        """The row of `summary` to use: the best median at the recommended learning rate, `recommended_lr`.

        Raises UsageError where nothing trained.

        >>> best = lrsweep.load("results/sweep").recommended
        >>> print(best["optimizer"], best["recommended_lr"])
        adam 0.01
        """
        facts = self.facts()
        return self._leader(facts, facts.rows, "")

    def best(self, optimizer: str) -> pd.Series[Any]:
        """The row of `summary` of an optimizer, by its label; of several axis values the one with the best median at
        the recommended learning rate.

        Raises UsageError for an unknown label, and where nothing trained.

        >>> print(lrsweep.load("results/sweep").best("sgd")["recommended_lr"])
        1.0
        """
        facts = self.facts()
        labels = list(dict.fromkeys(row.optimizer for row in facts.rows))
        if optimizer not in labels:
            raise UsageError(f"no optimizer {optimizer!r} in this sweep (have: {', '.join(labels)})")
        return self._leader(facts, tuple(row for row in facts.rows if row.optimizer == optimizer), f" with {optimizer}")

    def failures(self) -> str:
        """How many runs failed, and the first error; "" if none did.

        >>> lrsweep.load("results/sweep").failures()
        ''
        """
        failed = self.runs[self.runs["status"] == "failed"]
        if failed.empty:
            return ""
        first = str(failed["error"].iloc[0]).split("\n", 1)[0]
        return printable(f"{len(failed)} of {plural(len(self.runs), 'run')} failed, the first with {first}")

    def _leader(self, facts: SweepFacts, rows: tuple[OptimizerFacts, ...], which: str) -> pd.Series[Any]:
        """The row of `summary` of the best of `rows`, which are some of those of `facts`."""
        from lrsweep.analysis.leader import leader

        best = leader(replace(facts, rows=rows))
        if best is None:
            raise UsageError(f"nothing trained{which}: there is no learning rate to recommend")
        return self.summary.iloc[facts.rows.index(best)]

    def _repr_html_(self) -> str:
        """What a notebook shows: the choice, the table of the answer, the U-curve."""
        from lrsweep.wording.answer import answer
        from lrsweep.wording.options import as_in_python
        from lrsweep.wording.verdict import verdict

        facts = self.facts()
        choice, rest = verdict(facts)
        head, rows = answer(facts)
        cells = "".join(f"<tr>{''.join(f'<td>{escape(as_in_python(cell))}</td>' for cell in row)}</tr>" for row in rows)
        table = f"<table><thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>{cells}</table>"
        said = f"<p><b>{escape(choice)}</b>{': ' * bool(choice)}{escape(as_in_python(rest))}</p>"
        if failed := self.failures():
            said += f"<p>{escape(failed)}</p>"
        return f"<div><h4>{escape(facts.name)}</h4>{said}{table}{self._picture(facts)}</div>"

    def _picture(self, facts: SweepFacts) -> str:
        """The U-curve inside the page; nothing where there is none to draw."""
        from lrsweep import plot

        sweep = self._sweep(None, None, None)
        wanted = "by_" if facts.one_rate else "u_curve"
        name = next((name for name in plot.names(sweep) if name.startswith(wanted)), None)
        if name is None or plot.nothing(facts):
            return ""
        (picture,) = plot.rendered(sweep, ("png",), (name,))
        data = base64.b64encode(picture.files["png"]).decode()
        return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'

    def facts(self) -> SweepFacts:
        """What the sweep shows, by the spec's objective: see `lrsweep.analysis.facts`.

        >>> sgd, adam = lrsweep.load("results/sweep").facts().rows
        >>> sgd.best_lr.value, sgd.tied_lrs
        (1.0, (0.1, 1.0))
        """
        from lrsweep.analysis import analyse

        rates = zip(self.summary["optimizer"], self.summary["default_lr"], strict=True)
        return analyse(self.runs, self.curves, self.spec, {str(name): float(lr) for name, lr in rates})

    def _sweep(self, metric: str | None, at: str | None, optimizer: str | None) -> SweepFigures:
        from lrsweep import plot

        some = () if optimizer is None else (optimizer,)
        return plot.sweep_of(self.spec, self.runs, self.curves, self.summary, metric, at, some)


def load(results_dir: Path | str) -> Results:
    """Read the sweep in `results_dir` (`<results>/<name>`), without training and without the user's own code.

    Missing or outdated tables are rebuilt from the journal first. Raises UsageError if there is no sweep, StorageError.

    >>> results = lrsweep.load("results/sweep")
    >>> best = results.runs.nsmallest(3, "final_val_loss")
    >>> set(best["optimizer"])
    {'adam'}
    """
    path = tables.folder_of(results_dir)
    tables.ensure(path)
    return Results(
        path=path,
        spec=read_resolved(path / tables.SPEC),
        runs=tables.read_runs(path),
        curves=tables.read_curves(path),
        summary=tables.read_summary(path),
    )
