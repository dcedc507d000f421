"""A finished sweep in Python: its tables as DataFrames, its spec, its two main figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lrsweep.results import tables
from lrsweep.spec.load import read_resolved
from lrsweep.spec.model import Spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lrsweep.analysis.facts import SweepFacts
    from lrsweep.plot import SweepFigures


@dataclass(frozen=True, kw_only=True)
class Results:
    """The sweep in `path` as it was when it was read.

    `runs` has a row per run, `curves` a row per evaluation, `summary` a row per optimizer and axis values: the columns
    are those of the files. Diverged and failed runs are rows like the others; look at `status`.
    """

    path: Path
    spec: Spec = field(repr=False)
    runs: pd.DataFrame = field(repr=False)
    curves: pd.DataFrame = field(repr=False)
    summary: pd.DataFrame = field(repr=False)

    def u_curve(self, *, metric: str | None = None, at: str | None = None) -> Figure:
        """What each rate costs, as a matplotlib Figure; `metric` and `at` as in `lrsweep plot`. Raises UsageError."""
        from lrsweep import plot

        return plot.u_curve(self._sweep(metric, at))

    def loss_curves(self, *, metric: str | None = None) -> Figure:
        """Every run over its updates, coloured by rate, as a matplotlib Figure. Raises UsageError."""
        from lrsweep import plot

        return plot.loss_curve(self._sweep(metric, None))

    def facts(self) -> SweepFacts:
        """What the sweep shows, by the spec's objective: see `lrsweep.analysis.facts`."""
        from lrsweep.analysis import analyse

        rates = zip(self.summary["optimizer"], self.summary["default_lr"], strict=True)
        return analyse(self.runs, self.curves, self.spec, {str(name): float(lr) for name, lr in rates})

    def _sweep(self, metric: str | None, at: str | None) -> SweepFigures:
        from lrsweep import plot

        return plot.sweep_of(self.spec, self.runs, self.curves, self.summary, metric, at)


def load(results_dir: Path | str) -> Results:
    """Read the sweep in `results_dir` (`<results>/<name>`), without training and without the user's own code.

    Missing or outdated tables are rebuilt from the journal first. Raises UsageError if there is no sweep, StorageError.
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
